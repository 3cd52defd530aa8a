"""The page of a data set: survey it, and lay out what was found.

A set of 14 million images costs as much as one of ten thousand, but for reading the index: a bounded number of images
is looked at. Which ones is fixed by the data set, so that the page is the same every time.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from alexnet.pipeline.augment import AugmentSettings, augmented, draw
from alexnet.shards.errors import InputError, reason_of
from alexnet.shards.index import read_index
from alexnet.shards.manifest import MEAN_IMAGE_NAME, REJECTED_NAME, SPLITS, Manifest, read_rejects
from alexnet.shards.order import shuffle_score
from alexnet.shards.planes import rgb_of_planes
from alexnet.shards.reader import SplitReader, read_mean_image
from alexnet.shards.url import place_of
from alexnet.tools.pages import charts
from alexnet.tools.pages.render import data_uri, image_uri, render
from alexnet.tools.stored_jpeg import rgb_and_quality

EPOCHS = 8
SEED = 0

_LOOKED_AT = 256  # images whose quality and pixels are sampled
_CLOUD_POINTS = 1536
_REJECTS_SHOWN = 30
_STRIDE = 2_654_435_761  # Knuth's multiplier: successive multiples spread over any image evenly
_FEW_CLASSES = 40  # up to so many get a bar and a name each
_NAMED = 6  # of many classes, the fewest and the most images are named
_SPLIT_NAMES = {"train": "training", "val": "validation"}
_HALF, _THIRD = 530.0, 352.0  # of a page of 1,100, in CSS pixels

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Hold an image as training sees it in an epoch, clipped to what a screen can show, and how it was made."""

    x: int
    y: int
    mirror: bool
    light: str
    pixels: Pixels


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """Hold one stored square, uint8 (size, size, 3), as a URI, too, and its crops of epochs 0 to 7."""

    key: str
    label: int
    words: str
    uri: str
    pixels: Pixels
    crops: tuple[Crop, ...]


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Hold what was found in the images looked at.

    `qualities`: of their JPEGs, none of planes. `cloud`: uint8 (n, 3), some of their pixels.
    """

    root: Path
    train: SplitReader
    settings: AugmentSettings
    images: list[StoredImage]
    qualities: npt.NDArray[np.int64]
    cloud: Pixels

    @property
    def name(self) -> str:
        """Return the name of the data set."""
        return name_of_set(self.root)


def name_of_set(root: Path) -> str:
    """Return a data set's name: its folder's, or the last part of its URL."""
    return Path(place_of(root.resolve())).name


def survey(root: Path, images: int) -> Survey:
    """Survey a data set and choose `images` training images to show. Raises InputError if something cannot be read."""
    train = SplitReader(root, "train")
    if not len(train):
        raise InputError(f"{place_of(root)}: holds no training images; there is nothing to show")
    settings = AugmentSettings(crop_px=max(1, train.manifest.size_px * 224 // 256))
    qualities, cloud = _look_at(train)
    shown = [_stored_image(train, i, settings) for i in chosen(train.labels, images)]
    return Survey(root=root, train=train, settings=settings, images=shown, qualities=qualities, cloud=cloud)


def page(found: Survey) -> str:
    """Return the page as HTML; the same survey gives the same text. Raises InputError if something cannot be read."""
    manifest, labels = found.train.manifest, found.train.labels
    rows = {split: read_index(found.root, manifest, split) for split in SPLITS}
    counts = {split: np.bincount(r["label"], minlength=len(manifest.classes)) for split, r in rows.items() if len(r)}
    reasons, rejects = _rejects(found.root / REJECTED_NAME)
    mean_image = read_mean_image(found.root / MEAN_IMAGE_NAME, manifest.size_px, mend="bring it back from a copy")
    lengths = np.concatenate([r["length"] for r in rows.values()])
    colour = manifest.colour
    return render(
        "data.html",
        title=f"{found.name}: data set",
        found=found,
        manifest=manifest,
        splits=_SPLIT_NAMES,
        rows=rows,
        size=_size,
        epochs=EPOCHS,
        planes=[charts.plane(found.cloud, colour, x, y, _THIRD) for x, y in ((0, 1), (0, 2), (2, 1))],
        strips=[charts.strip(colour, axis) for axis in range(3)],
        mean_image=np.rint(mean_image).astype(np.uint8),
        counts=counts,
        classes=[(_SPLIT_NAMES[split], _classes(images, manifest)) for split, images in counts.items()],
        extremes=[] if len(manifest.classes) <= _FEW_CLASSES else _extremes(counts["train"], manifest),
        shuffle=shuffle_score(labels),
        order=charts.order(labels, len(manifest.classes), 1100.0, 240.0),
        lengths=lengths,
        files=[
            ("bytes of a JPEG", charts.histogram(lengths, "bytes", _HALF, 260)),
            ("estimated JPEG quality", charts.histogram(found.qualities, "quality", _HALF, 260)),
        ]
        if len(found.qualities)
        else [],
        reasons=[(reason, f"{n:,}") for reason, n in reasons.most_common()],
        rejected=reasons.total(),
        rejects=rejects,
        facts=_facts(manifest),
    )


def _classes(images: npt.NDArray[np.int64], manifest: Manifest) -> Markup:
    if len(images) <= _FEW_CLASSES:
        return charts.class_bars(images, [_words(manifest, k) for k in range(len(images))], _HALF)
    return charts.class_profile(images, _HALF, 260)


def _extremes(images: npt.NDArray[np.int64], manifest: Manifest) -> list[tuple[str, list[tuple[str, str, str]]]]:
    rising = np.argsort(images, kind="stable").tolist()
    return [
        (title, [(str(k), _words(manifest, k), f"{images[k]:,}") for k in labels])
        for title, labels in (("fewest images", rising[:_NAMED]), ("most images", rising[: -_NAMED - 1 : -1]))
    ]


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    return [
        *((name.replace("_", " "), str(value)) for name, value in manifest.settings.items()),
        *((f"source {name}", value) for name, value in manifest.source.items()),
        *((f"version of {name}", value) for name, value in manifest.versions.items()),
        *(
            (_SPLIT_NAMES[split], f"{c.input:,} in = {c.written:,} written + {c.rejected:,} rejected")
            for split, c in manifest.counts.items()
        ),
        ("sha256 of the manifest", manifest.digest()),
        ("sha256 that names the images", manifest.images_digest()),
    ]


def _words(manifest: Manifest, label: int) -> str:
    return manifest.classes[label].words or manifest.classes[label].wnid


def chosen(labels: npt.NDArray[np.int32], images: int) -> list[int]:
    """Choose samples of as many classes as there is place for, then second ones of the same classes, and so on.

    They depend on the data set alone, so the pages of two runs show the same.
    """
    by_class = np.argsort(labels, kind="stable")
    sorted_labels = labels[by_class]
    place_in_class = np.arange(len(labels)) - np.searchsorted(sorted_labels, sorted_labels)
    first = by_class[place_in_class == 0]
    if len(first) >= images:
        return [int(first[k * len(first) // images]) for k in range(images)]
    taken = by_class[np.argsort(place_in_class, kind="stable")][:images]
    return [int(k) for k in taken[np.argsort(labels[taken], kind="stable")]]


def pixels_and_quality(reader: SplitReader, sample_id: int) -> tuple[Pixels, int | None]:
    """Return a stored square, uint8 (size, size, 3), and the quality of its JPEG, None of planes.

    Raises InputError if it cannot be decoded.
    """
    stored = reader.stored(sample_id)
    if reader.manifest.stored.encoding != "jpeg":
        return rgb_of_planes(stored, reader.manifest.size_px, reader.manifest.size_px), None
    try:
        return rgb_and_quality(stored.tobytes())
    except ValueError as error:
        raise InputError(
            f"{reader.place}/{reader.shard(sample_id).file}: the image of sample {sample_id} {error}; "
            f"`alexnet-prep verify {reader.place}` says what else is wrong"
        ) from None


def _stored_image(reader: SplitReader, sample_id: int, settings: AugmentSettings) -> StoredImage:
    label, (pixels, quality) = int(reader.labels[sample_id]), pixels_and_quality(reader, sample_id)
    return StoredImage(
        key=reader.key(sample_id),
        label=label,
        words=_words(reader.manifest, label),
        uri=image_uri(pixels) if quality is None else data_uri(reader.stored(sample_id).tobytes()),
        pixels=pixels,
        crops=tuple(_crop(reader.manifest, sample_id, pixels, settings, epoch) for epoch in range(EPOCHS)),
    )


def _crop(manifest: Manifest, sample_id: int, pixels: Pixels, settings: AugmentSettings, epoch: int) -> Crop:
    ids = np.array([sample_id], np.int64)
    plan = draw(settings, manifest.colour, manifest.size_px, SEED, epoch, ids, positions=ids)
    y, x = plan.crop_yx[0].tolist()
    seen = np.clip(np.rint(augmented(pixels, plan, 0, settings)), 0, 255).astype(np.uint8)
    light = ", ".join(f"{v:+.1f}" for v in plan.colour_offset[0].tolist())
    return Crop(x=x, y=y, mirror=bool(plan.mirror[0]), light=light, pixels=seen)


def _look_at(reader: SplitReader) -> tuple[npt.NDArray[np.int64], Pixels]:
    """Decode images spread evenly over the split; return each one's quality, and pixels spread evenly over them."""
    count = min(_LOOKED_AT, len(reader))
    ids = [k * len(reader) // count for k in range(count)]
    reader.files.plan_samples(reader.rows(np.array(ids)))
    per_image = -(-_CLOUD_POINTS // count)
    qualities, points = list[int](), []
    for k, sample_id in enumerate(ids):
        pixels, quality = pixels_and_quality(reader, sample_id)
        flat = pixels.reshape(-1, 3)
        qualities += [] if quality is None else [quality]
        points.append(flat[(np.arange(k * per_image, (k + 1) * per_image) + 1) * _STRIDE % len(flat)])
    return np.array(qualities), np.concatenate(points)[:_CLOUD_POINTS]


def _rejects(path: Path) -> tuple[Counter[str], list[tuple[str, str, str, str]]]:
    """Return how often each reason came, and split, source, member and reason of the first rejects.

    A reason that differs from another in numbers alone is the same reason.
    """
    reasons: Counter[str] = Counter()
    first: list[tuple[str, str, str, str]] = []
    try:
        for reject in read_rejects(path):
            reasons[re.sub(r"[0-9]+", "…", reject.reason)] += 1
            if len(first) < _REJECTS_SHOWN:
                first.append((reject.split, reject.source, reject.member, reject.reason))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({reason_of(error)}); bring it back from a copy") from None
    return reasons, first


def _size(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:,.0f} B"
