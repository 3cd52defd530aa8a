"""MNIST's four IDX files, gzipped as downloaded or not, whatever their names say; its test files serve as validation.

An IDX file is a big-endian header (magic number, sizes) and raw bytes, so that an image has a place that can be read by
offset, once the file is not gzipped. Sets in the same form, such as Fashion-MNIST, cannot be told apart from it.
"""

import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import SPLITS, ClassRecord, Split
from alexnet.tools.convert.image import MNIST_BYTES, MNIST_PX
from alexnet.tools.convert.known import published_notes
from alexnet.tools.convert.listing import Listing, Source, sizes_of
from alexnet.tools.convert.sources.first_bytes import is_gzipped, unpacked
from alexnet.tools.convert.sources.layout import Layout, Walk, unpacked_name

FOLDERS = (".", "MNIST/raw", "raw")
IMAGES: dict[Split, str] = {"train": "train-images-idx3-ubyte", "val": "t10k-images-idx3-ubyte"}
LABELS: dict[Split, str] = {"train": "train-labels-idx1-ubyte", "val": "t10k-labels-idx1-ubyte"}
_IMAGE_MAGIC, _LABEL_MAGIC = 0x803, 0x801  # unsigned bytes in three dimensions, and in one
_IMAGE_HEADER, _LABEL_HEADER = struct.Struct(">4I"), struct.Struct(">2I")
_PUBLISHED: dict[Split, int] = {"train": 60_000, "val": 10_000}
_CLASSES = 10
_MOST_IMAGES = 8_500_000  # the largest set in this form, MNIST8M, has 8.1 million
_CHUNK_BYTES = 1 << 20


def find(root: Path) -> Layout | None:
    """Recognise the training images' file."""
    home = next((root / folder for folder in FOLDERS if _file(root / folder, IMAGES["train"]) is not None), None)
    if home is None:
        return None
    found = (_file(home, name) for split in SPLITS for name in (IMAGES[split], LABELS[split]))
    files = tuple(path for path in found if path is not None)
    return Layout(
        kind="mnist", root=root, files=files, read=partial(_read, root, home), size_px=MNIST_PX, unpack=_unpack
    )


def _unpack(source: Source, folder: Path, on_bytes: Callable[[int], None]) -> None:
    """Write the files of images into `folder`, ungzipped."""
    for listing in source.members.values():
        for container in listing.containers:
            path, to = source.root / container, folder / unpacked_name(container)
            left = _IMAGE_HEADER.size + len(listing) * MNIST_BYTES + 1
            with unpacked(path) as file, to.open("wb") as target:
                while data := file.read(min(left, _CHUNK_BYTES)):
                    on_bytes(target.write(data))
                    left -= len(data)
            _check_size(path, to.stat().st_size, len(listing))


def _read(root: Path, home: Path, _: Walk) -> Source:
    members: dict[Split, Listing] = {split: _split(root, home, split) for split in SPLITS}
    gzipped = any(is_gzipped(root / name) for listing in members.values() for name in listing.containers)
    return Source(
        root=root,
        kind="mnist",
        classes=tuple(ClassRecord(wnid=str(digit), words=str(digit)) for digit in range(_CLASSES)),
        members=members,
        encoding="mnist",
        packed=gzipped,
        channels=1,
        size_px=MNIST_PX,
        label_order="the digit",
        description=f"MNIST, {_CLASSES} classes, {sizes_of(members)} grey images of 28x28 px; its test set is val",
        notes=published_notes("MNIST", members, _PUBLISHED),
    )


def _split(root: Path, home: Path, split: Split) -> Listing:
    images, labels = _file(home, IMAGES[split]), _file(home, LABELS[split])
    if images is None and labels is None:
        return Listing.of()
    if images is None or labels is None:
        lacks = LABELS[split] if labels is None else IMAGES[split]
        raise InputError(f"{home}: lacks {lacks} (or {lacks}.gz); put it beside the other files")
    count = _image_count(images)
    values = _labels(labels, count)
    container, first = images.relative_to(root).as_posix(), _IMAGE_HEADER.size
    return Listing.of(
        (label, container, [(f"{split}_{i:05d}".encode(), first + i * MNIST_BYTES, MNIST_BYTES)])
        for i, label in enumerate(values)
    )


def _image_count(path: Path) -> int:
    head = _bytes(path, _IMAGE_HEADER.size)
    magic, count, height, width = _IMAGE_HEADER.unpack(head) if len(head) == _IMAGE_HEADER.size else (0, 0, 0, 0)
    if (magic, height, width) != (_IMAGE_MAGIC, MNIST_PX, MNIST_PX):
        raise InputError(f"{path}: does not begin as an IDX file of 28x28 images; download it again")
    if not is_gzipped(path):
        _check_size(path, path.stat().st_size, count)
    if count > _MOST_IMAGES:
        raise InputError(f"{path}: claims {count:,} images, of {_MOST_IMAGES:,} at most; download it again")
    return int(count)


def _labels(path: Path, count: int) -> bytes:
    data = _bytes(path, _LABEL_HEADER.size + count + 1)
    if data[: _LABEL_HEADER.size] != _LABEL_HEADER.pack(_LABEL_MAGIC, count):
        raise InputError(f"{path}: does not begin as an IDX file of {count:,} labels; download it again")
    values = data[_LABEL_HEADER.size :]
    if len(values) != count or max(values, default=0) >= _CLASSES:
        raise InputError(f"{path}: does not hold {count:,} labels from 0 to 9; download it again")
    return values


def _check_size(path: Path, size: int, images: int) -> None:
    wanted = _IMAGE_HEADER.size + images * MNIST_BYTES
    if size != wanted:
        raise InputError(f"{path}: has {size:,} bytes where {images:,} images take {wanted:,}; download it again")


def _bytes(path: Path, count: int) -> bytes:
    with unpacked(path) as file:
        return file.read(count)


def _file(home: Path, name: str) -> Path | None:
    """Return an IDX file, gzipped or not, and also where a dot took the place of its last hyphen but one."""
    dotted = name.replace("-idx", ".idx")
    return next((home / form for form in (name, f"{name}.gz", dotted, f"{dotted}.gz") if (home / form).is_file()), None)
