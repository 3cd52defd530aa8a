"""What set is made, and how the converter reads it: as a source of which no file exists.

Each image is made when it is opened. So shards are made by the converter itself, with its workers, its resume, its lock
and its manifest. What it opens is an uncompressed bitmap of 256x256 px, which Pillow turns into an image in 0.05 ms, an
eighth of what making and encoding take.
"""

import io
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import ClassRecord, Split
from alexnet.tools.convert.listing import Listing, ListingBuilder, Source, sizes_of
from alexnet.tools.synth.classes import MAX_CLASSES, VERSION, Choices, label_of, traits_of, wnid_of, words_of
from alexnet.tools.synth.image import IMAGE_PX, Pixels, make_image

MAX_IMAGES = 20_000_000  # ImageNet-21k has 14 million
_TRAIN_FOR_VAL = 20
_MAX_SEED = (1 << 63) - 1

_HEADER_BYTES = 64  # 54, and padding that leaves the pixels aligned
_PIXEL_BYTES = 4 * IMAGE_PX**2
_BITMAP_BYTES = _HEADER_BYTES + _PIXEL_BYTES
_NO_SCALE = 2835  # pixels a metre: 72 an inch, which says nothing


@dataclass(frozen=True, kw_only=True)
class SynthSettings:
    """Settle a set. `images`, `val_images`: of all classes together, dealt out evenly, the first classes in turn."""

    classes: int
    images: int
    val_images: int
    seed: int

    def __post_init__(self) -> None:
        limits = (
            ("classes", 1, MAX_CLASSES),
            ("images", self.classes, MAX_IMAGES),
            ("val_images", 0, MAX_IMAGES),
            ("seed", 0, _MAX_SEED),
        )
        for field, low, high in limits:
            value = getattr(self, field)
            if not low <= value <= high:
                why = ", one for each class" if field == "images" and value < low else ""
                raise InputError(f"{field}={value}: must be between {low:,} and {high:,}{why}")

    def train_stems(self, label: int) -> list[str]:
        """Return the names of a class's training images, without ending."""
        images = self.images // self.classes + (label < self.images % self.classes)
        return [f"{wnid_of(label)}_{i}" for i in range(images)]

    def val_stems(self) -> list[str]:
        """Return the names of the validation images, without ending."""
        return [f"ILSVRC2012_val_{number:08d}" for number in range(1, self.val_images + 1)]

    def val_labels(self) -> list[int]:
        """Return their labels: classes take turns, so that the first images are of all of them."""
        return [k % self.classes for k in range(self.val_images)]


def default_val_images(classes: int, images: int) -> int:
    """Return how many validation images go with so many for training: a twentieth, and one for each class."""
    return max(classes, images // _TRAIN_FOR_VAL)


def open_synthetic(path: Path, seed: int) -> io.BytesIO:
    """Make the image that a path names by its class and stem; return its file."""
    traits = traits_of(label_of(path.parent.name))
    return io.BytesIO(_bitmap(make_image(traits, Choices(f"{seed} {path.stem}"))))


def synthetic_source(settings: SynthSettings) -> Source:
    """List the images of a set as the converter wants a source listed."""
    train, val = ListingBuilder(in_folders=True), ListingBuilder(in_folders=True)
    for label in range(settings.classes):
        _add(train, "train", label, settings.train_stems(label))
    for label, stem in zip(settings.val_labels(), settings.val_stems(), strict=True):
        _add(val, "val", label, [stem])
    members: dict[Split, Listing] = {"train": train.finish(), "val": val.finish()}
    return Source(
        root=Path("the synthetic images"),  # which are on no disk
        opener=partial(open_synthetic, seed=settings.seed),
        kind=f"synthetic-{VERSION}",
        classes=tuple(ClassRecord(wnid=wnid_of(label), words=words_of(label)) for label in range(settings.classes)),
        members=members,
        description=f"{settings.classes:,} classes, {sizes_of(members)} images, from seed {settings.seed}",
    )


def _add(builder: ListingBuilder, split: Split, label: int, stems: list[str]) -> None:
    builder.add(f"{split}/{wnid_of(label)}", label, [(f"{stem}.bmp".encode(), 0, _BITMAP_BYTES) for stem in stems])


def _bitmap(pixels: Pixels) -> bytes:
    """Return a Windows bitmap of 32 bits a pixel, the top row first."""
    height, width = pixels.shape
    head = struct.pack("<2sIHHI", b"BM", _BITMAP_BYTES, 0, 0, _HEADER_BYTES) + struct.pack(
        "<IiiHHIIiiII", 40, width, -height, 1, 32, 0, _PIXEL_BYTES, _NO_SCALE, _NO_SCALE, 0, 0
    )
    return b"".join((head.ljust(_HEADER_BYTES, b"\0"), pixels.astype("<u4", copy=False).data.cast("B")))
