"""Decide which image goes into which shard, before any is decoded.

The plan is a pure function of the source's listing and the settings, so a shard's bytes do not depend on workers, on
an interruption or on what else was rejected. A plan names members by number: 14 million of them fit in memory only as
long as they are not made into objects before a worker needs them.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from alexnet.shards.errors import InputError
from alexnet.shards.hashing import Purpose, key_of, permutation
from alexnet.shards.manifest import MAX_IMAGES, MAX_SIZE_PX, SPLITS, Split
from alexnet.tools.convert.listing import Member, Source


@dataclass(frozen=True, kw_only=True)
class ConvertSettings:
    """Settle how a data set is made; all of it is recorded in the manifest.

    `size_px`: side of the stored squares. `quality`: JPEG quality. `shard_images`: images planned for a shard.
    `seed`: of the training set's shuffle. `class_order`: labels follow the sorted names, or a list of the user's.
    """

    size_px: int = 256
    quality: int = 90
    shard_images: int = 5000
    seed: int = 2012
    class_order: Literal["sorted", "as listed"] = "sorted"

    def __post_init__(self) -> None:
        bounds = (("size_px", 16, MAX_SIZE_PX), ("quality", 1, 100), ("shard_images", 1, MAX_IMAGES - 1))
        for field, low, high in bounds:
            value = getattr(self, field)
            if not low <= value <= high:
                raise InputError(f"{field}={value}: must be between {low} and {high:,}")

    def as_manifest(self) -> dict[str, Any]:
        """Return the settings and the fixed choices that shape the bytes; the usual order of classes goes unsaid."""
        said = {name: value for name, value in asdict(self).items() if (name, value) != ("class_order", "sorted")}
        return {**said, "resample": "bicubic", "jpeg": "baseline 4:2:0"}


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardPlan:
    """Say what one shard is to hold: the numbers of members of its split, in the order of their places.

    `member_ids`: int64. The first has place `first_place`, the next the one after, and so on.
    """

    split: Split
    number: int
    first_place: int
    member_ids: npt.NDArray[np.int64]

    @property
    def name(self) -> str:
        """Return a short name, such as `train-000012`."""
        return f"{self.split}-{self.number:06d}"

    def members(self, source: Source) -> list[Member]:
        """Look the members up."""
        members = source.members[self.split]
        return [members[i] for i in self.member_ids.tolist()]


def plan_shards(source: Source, settings: ConvertSettings) -> list[ShardPlan]:
    """Shuffle the training set across classes, keep validation in file-name order, cut both into shards."""
    plans: list[ShardPlan] = []
    for split in SPLITS:
        images = len(source.members[split])
        shuffled = split == "train"
        order = permutation(images, key_of(Purpose.PREP_ORDER, settings.seed)) if shuffled else np.arange(images)
        for number, first in enumerate(range(0, images, settings.shard_images)):
            ids = order[first : first + settings.shard_images]
            plans.append(ShardPlan(split=split, number=number, first_place=first, member_ids=ids))
    return plans
