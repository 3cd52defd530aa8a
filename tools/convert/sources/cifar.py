"""CIFAR-10's python archive, as downloaded or extracted: five training batches and one that serves as validation.

A batch is a pickle of 10,000 images, so an image has no place in it that could be read by offset. The listing counts as
if a batch's pixels lay in a file of their own, and `_unpack` writes that file.

A pickle can call any function there is. These need five names: NumPy's array and dtype, what rebuilds them, and the
encoding of bytes. Each is answered by a harmless stand-in from this file; any other name is refused, so that a hostile
file can build dictionaries, lists, numbers and strings, and nothing else.
"""

import io
import itertools
import pickle
import pickletools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import ClassRecord, Split
from alexnet.tools.convert.image import CIFAR_BYTES, CIFAR_PX
from alexnet.tools.convert.known import published_notes
from alexnet.tools.convert.listing import Listing, Rows, Source, sizes_of
from alexnet.tools.convert.sources.layout import Layout, Walk, unpacked_name
from alexnet.tools.convert.sources.tar_headers import files_in

ARCHIVE = "cifar-10-python.tar.gz"
GUNZIPPED = "cifar-10-python.tar"  # browsers do that
FOLDER = "cifar-10-batches-py"
META = "batches.meta"
BATCHES: dict[str, Split] = {**{f"data_batch_{k}": "train" for k in range(1, 6)}, "test_batch": "val"}
_MOST_BYTES = 64_000_000  # of a file: a batch has 31 MB
_PUBLISHED: dict[Split, int] = {"train": 50_000, "val": 10_000}
_MOST_STEPS = 1_000_000
"""Of a pickle's program: a batch of CIFAR-10 takes 40,000, or 100,000 as newer Pythons write it; each can make an empty
dictionary, or double what is remembered."""


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
    rows: dict[Split, list[Rows]] = {"train": [], "val": []}
    for name, split in BATCHES.items():
        container = (home / name).relative_to(root).as_posix()
        for i, (stem, label) in enumerate(batches[name]):
            if label >= len(names):
                raise InputError(f"{home}: {name} has the label {label} of {len(names)} classes; download it again")
            rows[split].append((label, container, [(stem, i * CIFAR_BYTES, CIFAR_BYTES)]))
    members: dict[Split, Listing] = {split: Listing.of(found) for split, found in rows.items()}
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


def _unpack(home: Path, source: Source, folder: Path, on_bytes: Callable[[int], None]) -> None:
    """Write each batch's pixels into a file of their own in `folder`."""
    for name, data in _files(home):
        if name in BATCHES:
            target = unpacked_name((home / name).relative_to(source.root).as_posix())
            on_bytes((folder / target).write_bytes(_batch(home, name, data)[0].tobytes()))


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
        return load_plain(data)
    except pickle.UnpicklingError as error:
        raise InputError(f"{home}: {name} is no batch of CIFAR-10 ({error}); download it again") from None


def _files(home: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of the class list and the batches, one at a time (31 MB each), in any order.

    Raises InputError if one is missing.
    """
    missing = {META, *BATCHES}
    for name, data in files_in(home, missing.__contains__, _MOST_BYTES):
        missing.discard(name)
        yield name, data
    if missing:
        raise InputError(f"{home}: lacks {', '.join(sorted(missing))}; download it again")


class _DType:
    """Stand for numpy.dtype: note which type is wanted."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code

    def __setstate__(self, _: object) -> None:
        """Take byte order and the like, which bytes do not have."""


class _Array:
    """Stand for a NumPy array that is being rebuilt: note its shape and bytes."""

    def __init__(self, *_: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def to_numpy(self) -> npt.NDArray[np.uint8]:
        """Return the array. Raises UnpicklingError if it is not one of plain bytes in C order."""
        match self.state:
            case (int(), (int(rows), int(columns)), _DType(code="u1" | b"u1"), False | 0, bytes(data)) if (
                rows >= 0 and columns >= 0 and rows * columns == len(data)
            ):
                return np.frombuffer(data, np.uint8).reshape(rows, columns)
        raise pickle.UnpicklingError("an array that is not of rows of bytes")


class _Latin1:
    """Stand for _codecs.encode, by which newer Pythons write bytes for older ones; `left`: characters of a pickle."""

    left = 0

    def __new__(cls, text: object, encoding: object) -> bytes:  # type: ignore[misc]
        """Return the bytes themselves; an instance is never made."""
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
        _Latin1.left -= len(text)
        if _Latin1.left < 0:
            raise pickle.UnpicklingError("one text is made bytes again and again")
        return text.encode("latin1")

    def __setstate__(self, _: object) -> None:
        """Be here, so that a pickle cannot set attributes of the class."""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _Latin1,
}
_REMEMBER = ("PUT", "BINPUT", "LONG_BINPUT")  # under a number, as in a list


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"asks for {module}.{name}")
        return _ALLOWED[module, name]


def load_plain(data: bytes) -> dict[object, object]:
    """Return the dictionary of lists, numbers, texts (as bytes) and arrays that a pickle holds, else an empty one.

    Raises pickle.UnpicklingError if it asks for anything else or is damaged.
    """
    try:
        _check_steps(data)
        _Latin1.left = len(data)
        value = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        fields = value.items() if isinstance(value, dict) else ()
        return {
            key.decode("latin1") if isinstance(key, bytes) else key: item.to_numpy()
            if isinstance(item, _Array)
            else item
            for key, item in fields
        }
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged pickle raises whatever it trips over
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from None


def _check_steps(data: bytes) -> None:
    """Raise UnpicklingError for a pickle whose program takes much more memory than it has bytes."""
    for number, (step, argument, _) in enumerate(pickletools.genops(data)):
        if number > _MOST_STEPS or (step.name in _REMEMBER and int(argument or 0) > _MOST_STEPS):
            raise pickle.UnpicklingError(f"more than {_MOST_STEPS:,} steps")
