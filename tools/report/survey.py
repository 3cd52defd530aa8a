"""Gather what the page shows: all of the index, a bounded number of images, nothing of the rest.

A set of 14 million images costs as much as one of ten thousand, but for reading the index. Which images are looked at
is fixed by the data set, so that the page is the same every time.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.augment import AugmentSettings, Draws, draw
from alexnet.shards.errors import InputError, reason_of
from alexnet.shards.index import read_index
from alexnet.shards.manifest import MEAN_IMAGE_NAME, REJECTED_NAME, SPLITS, Manifest, Reject, Split, read_rejects
from alexnet.shards.order import shuffle_score
from alexnet.shards.reader import SplitReader, read_mean_image
from alexnet.tools.stored_jpeg import rgb_and_quality

EPOCHS = 8
SEED = 0

_LOOKED_AT = 256  # images whose quality and pixels are sampled
_CLOUD_POINTS = 1536
_REJECTS_SHOWN = 30
_STRIDE = 2_654_435_761  # Knuth's multiplier: successive multiples spread over any image evenly

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Hold one stored square, uint8 (size, size, 3), its JPEG, and how training draws it in epochs 0 to 7."""

    key: str
    label: int
    words: str
    jpeg: bytes
    pixels: Pixels
    draws: tuple[Draws, ...]


@dataclass(frozen=True, kw_only=True)
class Rejects:
    """Hold the rejects: how many, how often each reason came, and the first of them."""

    total: int
    reasons: tuple[tuple[str, int], ...]
    first: tuple[Reject, ...]


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Hold everything the page shows.

    `labels`, `lengths`: of every sample, in order, by split. `shuffle`: distinct classes in 256 consecutive training
    samples, and what a perfect shuffle would give. `qualities`: of the images looked at. `cloud`: uint8 (n, 3), some
    of their pixels. `mean_image`: uint8 (size, size, 3).
    """

    name: str
    manifest: Manifest
    digest: str
    settings: AugmentSettings
    labels: dict[Split, npt.NDArray[np.int32]]
    lengths: dict[Split, npt.NDArray[np.int32]]
    shuffle: tuple[float, float]
    pictures: tuple[Picture, ...]
    qualities: tuple[int, ...]
    cloud: Pixels
    mean_image: Pixels
    rejects: Rejects


def survey(root: Path, images: int) -> Survey:
    """Survey a data set and choose `images` training images to show. Raises InputError if something cannot be read."""
    train = SplitReader(root, "train")
    manifest = train.manifest
    if not len(train):
        raise InputError(f"{root}: holds no training images; there is nothing to show")
    rows = {split: read_index(root, manifest, split) for split in SPLITS if split in manifest.counts}
    settings = AugmentSettings(crop_px=max(1, manifest.size_px * 224 // 256))
    qualities, cloud = _look_at(train)
    return Survey(
        name=root.resolve().name,
        manifest=manifest,
        digest=manifest.digest(),
        settings=settings,
        labels={split: np.ascontiguousarray(r["label"]) for split, r in rows.items()},
        lengths={split: np.ascontiguousarray(r["length"]) for split, r in rows.items()},
        shuffle=shuffle_score(train.labels),
        pictures=tuple(_picture(train, i, settings) for i in _chosen(train.labels, images)),
        qualities=qualities,
        cloud=cloud,
        mean_image=_mean_image(root / MEAN_IMAGE_NAME, manifest.size_px),
        rejects=_rejects(root / REJECTED_NAME),
    )


def _chosen(labels: npt.NDArray[np.int32], images: int) -> list[int]:
    """Choose samples of as many classes as there is room for, spread over the class list."""
    first_of_class = np.unique(labels, return_index=True)[1]
    images = min(images, len(labels))
    if images <= len(first_of_class):
        return [int(first_of_class[k * len(first_of_class) // images]) for k in range(images)]
    others = np.setdiff1d(np.arange(len(labels)), first_of_class)
    more = others[: images - len(first_of_class)]
    chosen = np.concatenate([first_of_class, more])
    return [int(i) for i in chosen[np.argsort(labels[chosen], kind="stable")]]


def _decode(reader: SplitReader, sample_id: int) -> tuple[Pixels, int]:
    try:
        return rgb_and_quality(reader.jpeg(sample_id).tobytes())
    except ValueError as error:
        raise InputError(
            f"{reader.root / reader.shard(sample_id).file}: the image of sample {sample_id} {error}; "
            f"`alexnet-prep verify {reader.root}` says what else is wrong"
        ) from None


def _picture(reader: SplitReader, sample_id: int, settings: AugmentSettings) -> Picture:
    manifest, ids = reader.manifest, np.array([sample_id], np.int64)
    label = int(reader.labels[sample_id])
    return Picture(
        key=reader.key(sample_id),
        label=label,
        words=manifest.classes[label].words or manifest.classes[label].wnid,
        jpeg=reader.jpeg(sample_id).tobytes(),
        pixels=_decode(reader, sample_id)[0],
        draws=tuple(draw(settings, manifest.colour, manifest.size_px, SEED, e, ids) for e in range(EPOCHS)),
    )


def _look_at(reader: SplitReader) -> tuple[tuple[int, ...], Pixels]:
    """Decode images spread evenly over the split; return each one's quality, and pixels spread evenly over them."""
    count = min(_LOOKED_AT, len(reader))
    per_image = -(-_CLOUD_POINTS // count)
    qualities, points = [], []
    for k in range(count):
        pixels, quality = _decode(reader, k * len(reader) // count)
        flat = pixels.reshape(-1, 3)
        at = (np.arange(k * per_image, (k + 1) * per_image) + 1) * _STRIDE % len(flat)
        qualities.append(quality)
        points.append(flat[at])
    return tuple(qualities), np.concatenate(points)[:_CLOUD_POINTS]


def _mean_image(path: Path, size_px: int) -> Pixels:
    return np.rint(read_mean_image(path, size_px, mend="bring it back from a copy")).astype(np.uint8)


def _rejects(path: Path) -> Rejects:
    """Read the rejects; a reason that differs from another in numbers alone is the same reason."""
    reasons: Counter[str] = Counter()
    first: list[Reject] = []
    try:
        for reject in read_rejects(path):
            reasons[re.sub(r"[0-9]+", "…", reject.reason)] += 1
            first += [reject] if len(first) < _REJECTS_SHOWN else []
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({reason_of(error)}); bring it back from a copy") from None
    return Rejects(total=reasons.total(), reasons=tuple(reasons.most_common()), first=tuple(first))
