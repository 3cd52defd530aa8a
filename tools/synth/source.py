"""A source for the converter of which no file exists: each picture is drawn when it is opened.

So shards are made by the converter itself, with its workers, its resume, its lock and its manifest. It reads a source
by joining a folder with a name and opening that; here both are objects that draw. What is opened is an uncompressed
bitmap of 256x256 px, which Pillow turns into an image in 0.05 ms, an eighth of what drawing and encoding take.
"""

import io
import struct
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

from alexnet.shards.manifest import ClassRecord, Split
from alexnet.tools.convert.listing import Listing, ListingBuilder, Source, sizes_of
from alexnet.tools.synth.classes import label_of, traits_of, wnid_of, words_of
from alexnet.tools.synth.picture import PICTURE_PX, Pixels, draw_picture
from alexnet.tools.synth.randomness import VERSION, Draws
from alexnet.tools.synth.settings import SynthSettings

KIND = f"synthetic-{VERSION}"

_ENDING = ".bmp"
_HEADER_BYTES = 64  # 54, and padding that leaves the pixels aligned
_PIXEL_BYTES = 4 * PICTURE_PX**2
_BITMAP_BYTES = _HEADER_BYTES + _PIXEL_BYTES
_NO_SCALE = 2835  # pixels a metre: 72 an inch, which says nothing


@dataclass(frozen=True)
class DrawnFile:
    """Stand for a file that is drawn when it is opened."""

    seed: int
    name: str

    def open(self, mode: str = "rb") -> io.BytesIO:
        """Draw the picture; return its file."""
        path = PurePosixPath(self.name)
        traits = traits_of(label_of(path.parent.name))
        return io.BytesIO(_bitmap(draw_picture(traits, Draws(f"{self.seed} {path.stem}"))))

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class DrawnFolder:
    """Stand for the folder that holds them all."""

    seed: int

    def __truediv__(self, name: str) -> DrawnFile:
        """Return a file of it."""
        return DrawnFile(self.seed, name)

    def __str__(self) -> str:
        return "the synthetic pictures"


def drawn_source(settings: SynthSettings) -> Source:
    """List the pictures of a set as the converter wants a source listed."""
    train = ListingBuilder(in_folders=True)
    for label in range(settings.classes):
        _add(train, "train", label, settings.train_stems(label))
    val = ListingBuilder(in_folders=True)
    for number in range(1, settings.val_images + 1):
        _add(val, "val", settings.val_label(number), [settings.val_stem(number)])
    members: dict[Split, Listing] = {"train": train.finish(), "val": val.finish()}
    return Source(
        root=cast(Path, DrawnFolder(settings.seed)),  # joined and opened is all that it ever is
        kind=KIND,
        classes=tuple(ClassRecord(wnid=wnid_of(label), words=words_of(label)) for label in range(settings.classes)),
        members=members,
        description=f"{settings.classes:,} classes, {sizes_of(members)} pictures, from seed {settings.seed}",
    )


def _add(builder: ListingBuilder, split: Split, label: int, stems: list[str]) -> None:
    entries = [(f"{stem}{_ENDING}".encode(), 0, _BITMAP_BYTES) for stem in stems]
    builder.add(f"{split}/{wnid_of(label)}", label, entries)


def _bitmap(pixels: Pixels) -> bytes:
    """Return a Windows bitmap of 32 bits a pixel, the top row first."""
    height, width = pixels.shape
    head = struct.pack("<2sIHHI", b"BM", _BITMAP_BYTES, 0, 0, _HEADER_BYTES) + struct.pack(
        "<IiiHHIIiiII", 40, width, -height, 1, 32, 0, _PIXEL_BYTES, _NO_SCALE, _NO_SCALE, 0, 0
    )
    return b"".join((head.ljust(_HEADER_BYTES, b"\0"), pixels.astype("<u4", copy=False).data.cast("B")))
