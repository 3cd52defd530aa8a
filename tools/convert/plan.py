"""Decide which image goes into which shard, before any is decoded.

The plan is a pure function of the source's listing and the settings, so a shard's bytes do not depend on workers, on
an interruption or on what else was rejected.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from alexnet.shards.errors import InputError
from alexnet.shards.hashing import Purpose, key_of, permutation
from alexnet.shards.manifest import SPLITS, Split
from alexnet.tools.convert.listing import Member, Source


@dataclass(frozen=True, kw_only=True)
class ConvertSettings:
    """Settle how a data set is made; all of it is recorded in the manifest.

    `size_px`: side of the stored squares. `quality`: JPEG quality. `shard_images`: images planned for a shard.
    `seed`: of the training set's shuffle.
    """

    size_px: int = 256
    quality: int = 90
    shard_images: int = 5000
    seed: int = 2012

    def __post_init__(self) -> None:
        for field, low, high in (("size_px", 16, 4096), ("quality", 1, 100), ("shard_images", 1, 99_999_999)):
            value = getattr(self, field)
            if not low <= value <= high:
                raise InputError(f"{field}={value}: must be between {low} and {high:,}")

    def as_manifest(self) -> dict[str, Any]:
        """Return the settings and the fixed choices that shape the bytes."""
        return {**asdict(self), "resample": "bicubic", "jpeg": "baseline 4:2:0"}


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """List what one shard is to hold: members in the order of their places, starting at `first_place`."""

    split: Split
    number: int
    first_place: int
    members: tuple[Member, ...]


def plan_shards(source: Source, settings: ConvertSettings) -> list[ShardPlan]:
    """Shuffle the training set across classes, keep validation in file-name order, cut both into shards."""
    plans: list[ShardPlan] = []
    for split in SPLITS:
        members = source.members[split]
        order = np.arange(len(members))
        if split == "train":
            order = permutation(len(members), key_of(Purpose.PREP_ORDER, settings.seed))
        for number, first in enumerate(range(0, len(members), settings.shard_images)):
            places = order[first : first + settings.shard_images]
            chosen = tuple(members[i] for i in places.tolist())
            plans.append(ShardPlan(split=split, number=number, first_place=first, members=chosen))
    return plans
