"""CIFAR-10's python archive, as downloaded or extracted: five training batches and one that serves as validation.

A batch is a pickle of 10,000 images, so an image has no place in it that could be read by offset. The listing counts as
if a batch's pixels lay in a file of their own, and `_unpack` writes that file. `pickles.py` reads the pickles.
"""

import itertools
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alexnet.shards.errors import InputError
from alexnet.shards.files import read_bytes
from alexnet.shards.manifest import ClassRecord, Split
from alexnet.tools.convert.image import CIFAR_BYTES, CIFAR_PX
from alexnet.tools.convert.known import published_notes
from alexnet.tools.convert.listing import Listing, ListingBuilder, Source, sizes_of
from alexnet.tools.convert.sources.layout import Layout, Walk
from alexnet.tools.convert.sources.pickles import load_plain
from alexnet.tools.convert.sources.tar_headers import files_in

ARCHIVE = "cifar-10-python.tar.gz"
GUNZIPPED = "cifar-10-python.tar"  # browsers do that
FOLDER = "cifar-10-batches-py"
META = "batches.meta"
BATCHES: dict[str, Split] = {**{f"data_batch_{k}": "train" for k in range(1, 6)}, "test_batch": "val"}
_MOST_BYTES = 64_000_000  # of a file: a batch has 31 MB
_PUBLISHED: dict[Split, int] = {"train": 50_000, "val": 10_000}


def find(root: Path) -> Layout | None:
    """Recognise the archive, the extracted folder, or that folder itself."""
    home = _home(root)
    if home is None:
        return None
    files = (home,) if home.is_file() else tuple(home / name for name in (META, *BATCHES))
    return Layout(
        kind="cifar10",
        root=root,
        files=files,
        read=partial(_read, root, home),
        size_px=CIFAR_PX,
        unpack=partial(_unpack, home),
    )


def _home(root: Path) -> Path | None:
    """Return what holds the batches: a folder or the archive."""
    extracted = (folder for folder in (root / FOLDER, root) if (folder / META).is_file())
    archives = (root / name for name in (ARCHIVE, GUNZIPPED) if (root / name).is_file())
    return next(itertools.chain(extracted, archives), None)


def _read(root: Path, home: Path, walk: Walk) -> Source:
    walk.begin("train", "files", len(BATCHES) + 1)
    names, batches = _contents(home, walk)
    builders: dict[Split, ListingBuilder] = {"train": ListingBuilder(), "val": ListingBuilder()}
    for name, split in BATCHES.items():
        container = (home / name).relative_to(root).as_posix()
        for i, (stem, label) in enumerate(batches[name]):
            if label >= len(names):
                raise InputError(f"{home}: {name} has the label {label} of {len(names)} classes; download it again")
            builders[split].add(container, label, [(stem, i * CIFAR_BYTES, CIFAR_BYTES)])
    members: dict[Split, Listing] = {split: builder.finish() for split, builder in builders.items()}
    return Source(
        root=root,
        kind="cifar10",
        classes=tuple(ClassRecord(wnid=name, words=name) for name in names),
        members=members,
        encoding="cifar10",
        packed=True,
        size_px=CIFAR_PX,
        label_order=f"CIFAR-10's own numbers, {names[0]} 0 to {names[-1]} {len(names) - 1}",
        description=f"CIFAR-10, {len(names)} classes, {sizes_of(members)} images of 32x32 px; its test set is val",
        notes=published_notes("CIFAR-10", members, _PUBLISHED),
    )


def _unpack(home: Path, _: Source, folder: Path) -> None:
    """Write each batch's pixels into a file of its name in `folder`."""
    for name, data in _files(home):
        if name in BATCHES:
            (folder / name).write_bytes(_batch(home, name, data)[0].tobytes())


def _contents(home: Path, walk: Walk) -> tuple[list[str], dict[str, list[tuple[bytes, int]]]]:
    """Return the class names, and name and label of every image of every batch; pixels are dropped on the way."""
    names: list[str] = []
    batches = {}
    for name, data in _files(home):
        if name == META:
            found = _load(home, name, data).get("label_names")
            if not isinstance(found, list) or not found or not all(isinstance(word, bytes) for word in found):
                raise InputError(f"{home}: {META} has no label_names; download CIFAR-10 again")
            names = [word.decode("utf-8", "backslashreplace") for word in found]
        else:
            batches[name] = _batch(home, name, data)[1]
        walk.advance(1, len(batches.get(name, ())))
    return names, batches


def _batch(home: Path, name: str, data: bytes) -> tuple[npt.NDArray[np.uint8], list[tuple[bytes, int]]]:
    """Return pixels, uint8 (n, 3072), planar RGB, and name and label of each image of one batch.

    Raises InputError if they do not fit each other.
    """
    fields = _load(home, name, data)
    pixels, labels, names = fields.get("data"), fields.get("labels"), fields.get("filenames")
    if not (isinstance(pixels, np.ndarray) and isinstance(labels, list) and isinstance(names, list)):
        raise InputError(f"{home}: {name} lacks data, labels or filenames; download CIFAR-10 again")
    fits = pixels.shape == (len(labels), CIFAR_BYTES) and len(names) == len(labels)
    whole = all(isinstance(label, int) and label >= 0 for label in labels)
    if not (fits and whole and all(isinstance(stem, bytes) for stem in names)):
        raise InputError(f"{home}: {name} has images, labels and names that do not fit; download CIFAR-10 again")
    return pixels, list(zip(names, labels, strict=True))


def _load(home: Path, name: str, data: bytes) -> dict[object, object]:
    """Unpickle one file, safely. Raises InputError if it is damaged or asks for more than data."""
    try:
        fields = load_plain(data)
    except pickle.UnpicklingError as error:
        raise InputError(f"{home}: {name} is no batch of CIFAR-10 ({error}); download it again") from None
    return fields if isinstance(fields, dict) else {}


def _files(home: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of the class list and the batches, one at a time (31 MB each), in any order.

    Raises InputError if one is missing.
    """
    missing = {META, *BATCHES}
    for name, data in files_in(home, missing.__contains__, _MOST_BYTES) if home.is_file() else _extracted(home):
        missing.discard(name)
        yield name, data
    if missing:
        raise InputError(f"{home}: lacks {', '.join(sorted(missing))}; download it again")


def _extracted(home: Path) -> Iterator[tuple[str, bytes]]:
    for path in (path for name in sorted((META, *BATCHES)) if (path := home / name).is_file()):
        try:
            yield path.name, read_bytes(path, _MOST_BYTES)
        except ValueError as error:
            raise InputError(f"{path}: {error}; download it again") from None
