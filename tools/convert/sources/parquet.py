"""Hugging Face's parquet files: a column of images, each the bytes of its file, and a column of numbers for labels.

Pages of a parquet file are compressed, so no image in it can be read by offset. The list counts as if a file's images
lay one after the other in a file of their own, and `_unpack` writes that file. Both read a few rows at a time.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from alexnet.shards.errors import InputError
from alexnet.shards.files import replacing
from alexnet.shards.manifest import Split
from alexnet.tools.convert.known import naming
from alexnet.tools.convert.listing import Listing, Rows, Source
from alexnet.tools.convert.source_files import changed
from alexnet.tools.convert.sources.first_bytes import what_is
from alexnet.tools.convert.sources.layout import Layout, Walk, unpacked_name
from alexnet.tools.convert.sources.names import left_out, without_label, wnid_on_way
from alexnet.tools.convert.sources.numbered import NumberedClasses, numbered_source
from alexnet.tools.convert.sources.parquet_files import ParquetFiles, find_files
from alexnet.tools.convert.sources.tables import word_files

_LABELS = ("label", "labels", "fine_label")  # columns, of which there must be one
_BATCH_ROWS = 32  # in memory at a time: of ImageNet 4 MB
_UNLABELLED = -1  # what images of a test set have


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Hold what a parquet file calls its columns, and the names of its classes, if it has any, by number."""

    image: str
    label: str
    has_paths: bool
    names: tuple[str, ...]


def find(root: Path) -> Layout | None:
    """Recognise parquet files by their names; what is in them is looked at when they are listed."""
    found = find_files(root)
    if found is None:
        return None
    files = (*(root / name for name in found.files), *word_files(root))
    return Layout(kind="parquet", root=root, files=files, read=partial(_read, root, found), unpack=_unpack)


def _read(root: Path, found: ParquetFiles, walk: Walk) -> Source:
    val = found.val
    notes = [naming("file is", "files are", " not read", found.unread)]
    notes.append(naming("file is", "files are", " missing, by the numbers of the others", left_out(found.files)))
    if val and found.val_is_test and _is_unlabelled(root, val):
        notes.append(f"{len(val):,} files of test images without labels (all {_UNLABELLED}) are left out: {val[0]}")
        val = ()
    with _open(root / found.train[0]) as file:
        classes = NumberedClasses(names := _columns(root / found.train[0], file).names)
    members: dict[Split, Listing] = {
        "train": _listing(root, "train", found.train, names, classes, walk).ordered(by_label=True),
        "val": _listing(root, "val", val, names, classes, walk).ordered(by_label=False),
    }
    for listing in members.values():
        _refuse_twice(root, listing)
    notes.append("" if val else "no validation images: no file is called validation")
    return replace(numbered_source("parquet files", root, "parquet", classes, members, notes), packed=True)


def _listing(
    root: Path, split: Split, files: Sequence[str], names: tuple[str, ...], classes: NumberedClasses, walk: Walk
) -> Listing:
    """List the rows of some files, in the order of these."""
    if files:
        walk.begin(split, "bytes", sum((root / name).stat().st_size for name in files))
    return Listing.of(row for name in files for row in _rows(root, split, name, names, classes, walk))


def _rows(
    root: Path, split: Split, container: str, names: tuple[str, ...], classes: NumberedClasses, walk: Walk
) -> Iterator[Rows]:
    """Yield the rows of one file as images that lie behind each other. Raises InputError for one that cannot be."""
    path = root / container
    row = at = told = 0
    size, stem = path.stat().st_size, container.removesuffix(".parquet").replace("/", "-")
    with _open(path) as file:
        columns = _columns(path, file)
        if columns.names != names:
            raise InputError(f"{path}: names other classes than the files before it; give files of one data set")
        for lengths, labels, paths in _batches(file, columns):
            for length, label, told_path in zip(lengths, labels, paths, strict=True):
                name = told_path or f"{stem}_{row:05d}"
                try:
                    if length is None:
                        raise ValueError("has no bytes of an image")
                    number = classes.add(label, wnid_on_way(name))
                except ValueError as error:
                    raise InputError(f"{path}: row {row:,}: {error}; mend the file, or download it again") from None
                yield number, container, [(without_label(os.fsencode(name.rpartition("/")[2])), at, length)]
                row, at = row + 1, at + length
            walk.advance(min(at, size) - told, len(lengths))
            told = min(at, size)
    walk.advance(size - told)


def _batches(file: Any, columns: Columns) -> Iterator[tuple[list[Any], list[Any], list[Any]]]:
    """Yield lengths, labels and paths of some rows at a time; None where there is none."""
    import pyarrow.compute as pc

    wanted = [f"{columns.image}.bytes", columns.label, *([f"{columns.image}.path"] * columns.has_paths)]
    for batch in file.iter_batches(_BATCH_ROWS, columns=wanted):
        images = batch.column(columns.image)
        lengths = pc.binary_length(pc.struct_field(images, "bytes")).to_pylist()
        paths = pc.struct_field(images, "path").to_pylist() if columns.has_paths else [None] * len(lengths)
        yield lengths, batch.column(columns.label).to_pylist(), paths


def _unpack(source: Source, folder: Path, on_bytes: Callable[[int], None]) -> None:
    """Write the listed images of each file into one of their own, at their offsets; what is there is whole."""
    for listing in source.members.values():
        for number, container in enumerate(listing.containers):
            rows = listing.container == number
            places = zip(listing.offsets[rows].tolist(), listing.lengths[rows].tolist(), strict=True)
            wanted = {at: length for at, length in places if length}  # of an empty one there is nothing to write
            target = folder / unpacked_name(container)
            if rows.any() and not target.exists():
                with replacing(target) as partial_file:
                    _write_images(source.root / container, wanted, partial_file)
            on_bytes(sum(wanted.values()))


def _write_images(path: Path, wanted: dict[int, int], target: Path) -> None:
    """Write images at their offsets, of which `wanted` has the lengths. Raises SourceChangedError if one has another.

    Between them, where none of the chosen classes lie, the file has holes, which take no room.
    """
    import pyarrow.compute as pc

    at = found = 0
    with _open(path) as file, target.open("wb") as images:
        image = _columns(path, file).image
        for batch in file.iter_batches(_BATCH_ROWS, columns=[f"{image}.bytes"]):
            for value in pc.struct_field(batch.column(image), "bytes"):
                data = value.as_buffer() or b""
                if wanted.get(at) == len(data):
                    images.seek(at)
                    images.write(data)
                    found += 1
                at += len(data)
    if found != len(wanted):
        raise changed(path, "has other images than were listed")


def _is_unlabelled(root: Path, files: Sequence[str]) -> bool:
    """Say whether all images of some files lack a label. No image is read."""
    for name in files:
        with _open(root / name) as file:
            label = _columns(root / name, file).label
            for batch in file.iter_batches(columns=[label]):
                if set(batch.column(label).to_pylist()) - {_UNLABELLED, None}:
                    return False
    return True


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """Open a parquet file. Raises InputError if it is none, or damaged, also while it is read, or without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(
            f"{path}: parquet is read by pyarrow, which is not here: pip install 'alexnet[parquet]'"
        ) from None
    try:
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:  # so much of a column at a time
            yield file
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the disk's
            raise
        why = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: {what_is(path) or f'cannot be read as parquet ({why}); download it again'}"
        ) from None


def _columns(path: Path, file: Any) -> Columns:
    """Find the columns of images and labels. Raises InputError if there is not one of each."""
    import pyarrow as pa

    schema = file.schema_arrow
    images = [field for field in schema if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0]
    labels = [name for name in _LABELS if name in schema.names and pa.types.is_integer(schema.field(name).type)]
    if len(images) != 1 or len(labels) != 1:
        raise InputError(
            f"{path}: its columns are {', '.join(schema.names)}; wanted are one of images, as Hugging Face stores them "
            f"(bytes and path), and one of whole numbers called {', '.join(_LABELS)}"
        )
    names = _class_names(schema.metadata or {}, labels[0])
    has_paths = images[0].type.get_field_index("path") >= 0
    return Columns(image=images[0].name, label=labels[0], has_paths=has_paths, names=names)


def _class_names(metadata: dict[bytes, bytes], label: str) -> tuple[str, ...]:
    """Return the names that Hugging Face's own metadata have for the numbers of a column; none if it has none."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
        "".join(names).encode()  # which are texts, of whole characters
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    return tuple(names) if isinstance(names, list) else ()


def _refuse_twice(root: Path, listing: Listing) -> None:
    """Raise InputError for two images of one name, label and length."""
    for row in listing.alike():
        one, other = listing[row], listing[row + 1]
        raise InputError(
            f"{root}: {one.name} is in {one.file} and in {other.file}, with the same label and length; it would count "
            "twice; if one file is a copy of the other, move it away"
        )
