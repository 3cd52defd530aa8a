"""Tars that are no class tars: images in class folders, or with WNIDs in their names, all in one tar or in several.

Every file is given a class and a split by names alone, or the tar is refused: nothing is sampled.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.tools.convert.known import TRAIN_TAR, VAL_TAR
from alexnet.tools.convert.listing import Entry
from alexnet.tools.convert.sources.sniff import is_image
from alexnet.tools.convert.sources.split_names import SplitWord
from alexnet.tools.convert.sources.tar_labels import (
    ImageTar,
    Names,
    folder_classes,
    is_labelled,
    part_splits,
    wnid_in,
)
from alexnet.tools.convert.sources.tars import Passed, folder_names, list_tar
from alexnet.tools.convert.sources.walk import Walk

_ARCHIVES = (b".tar", b".tar.gz", b".tgz", b".zip", b".7z", b".rar")


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Hold files of one class in one tar. `split`: None where none is named.

    `load` lists them, if a tar is still to be walked: one of `length` bytes, else 0.
    """

    split: SplitWord | None
    wnid: str
    file: str
    load: Callable[[], list[Entry]]
    length: int = 0


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Hold the files of one split in one tar, by the names of folders without those that say the split."""

    root: Path
    tar: ImageTar
    split: SplitWord | None
    folders: dict[Names, list[Entry]]

    @property
    def where(self) -> str:
        """Name the tar for people, and the one that it is in."""
        return f"{self.root / self.tar.file}" + (f": {self.tar.names[-1]}.tar" if self.tar.start else "")

    @property
    def entries(self) -> Iterator[Entry]:
        """Yield the files of all folders."""
        return chain.from_iterable(self.folders.values())


def read_image_tars(root: Path, tars: Sequence[ImageTar], passed: Passed, walk: Walk) -> tuple[list[Group], list[str]]:
    """List tars by class and split; and name what holds images and is not read.

    Raises InputError where an image has no class, or may have several; test images without labels are not read.
    """
    if tars:
        training = any(tar.split in (None, "train") for tar in tars)
        walk.begin("train" if training else "val", "bytes", sum(tar.length for tar in tars))
    parts = [part for tar in tars for part in _parts(root, tar, passed, walk)]
    _refuse_contradiction(parts)
    splits_only = any(part.split for part in parts)
    groups: list[Group] = []
    unread: list[str] = []
    seen: dict[bytes, str] = {}
    for part in parts:
        classes = _by_class(part) if part.split or not splits_only else {}
        groups += [
            Group(split=part.split, wnid=wnid, file=part.tar.file, load=partial(list, entries))
            for wnid, entries in classes.items()
        ]
        if part.split != "test":
            _refuse_second(part, seen)
        missing = sum(map(len, part.folders.values())) - sum(map(len, classes.values()))
        passed.ignored += missing
        if missing and not classes and first_image(root / part.tar.file, part.entries):
            unread.append(f"{part.tar.file} ({missing:,} {f'{part.split} images' if part.split else 'other files'})")
    return groups, unread


def _refuse_second(part: _Part, seen: dict[bytes, str]) -> None:
    """Refuse a name that ends in its label, and so means one image, where it was seen before: name to its tar."""
    for name in filter(is_labelled, map(_file_name, part.entries)):
        if seen.setdefault(name, part.where) != part.where:
            shown = name.decode("utf-8", "backslashreplace")
            raise InputError(
                f"{part.where}: {shown!r} is in {seen[name]}, too: an image must not be there twice; move one of the "
                "tars away"
            )


def first_image(path: Path, entries: Iterable[Entry]) -> bytes | None:
    """Return the name of the first of some files in a tar that is an image, or None."""
    with path.open("rb") as file:
        for name, at, _ in entries:
            file.seek(at)
            if is_image(file):
                return name
    return None


def _parts(root: Path, tar: ImageTar, passed: Passed, walk: Walk) -> list[_Part]:
    """List a tar, by split and folder."""
    folders: dict[Names, list[Entry]] = defaultdict(list)
    path = root / tar.file
    with path.open("rb") as file:
        entries = list_tar(path, file, f"{tar.names[-1]}.tar", passed, tar.start, tar.length, walk.advance)
    for entry in entries:
        if entry[0].endswith(_ARCHIVES):
            name = entry[0].decode("utf-8", "backslashreplace")
            raise InputError(f"{path}: holds {name!r} beside images, which would be missed; unpack both")
        folders[folder_names(entry[0].rpartition(b"/")[0])].append(entry)
    parts: dict[SplitWord | None, _Part] = {}
    for folder, (split, depths) in part_splits(str(path), folders).items():
        part = parts.setdefault(split, _Part(root=root, tar=tar, split=split or tar.split, folders=defaultdict(list)))
        part.folders[tuple(folder[depth] for depth in depths)] += folders[folder]
    return list(parts.values())


def _refuse_contradiction(parts: Sequence[_Part]) -> None:
    """Refuse a tar called `train` beside one called `val` that holds a folder `val`."""
    if len({part.tar.split for part in parts}) > 1:
        for part in parts:
            if part.split != part.tar.split:
                raise InputError(
                    f"{part.where}: its name says {part.tar.split}, and a folder in it {part.split}; unpack it, and "
                    "sort its images into train/CLASS and val/CLASS"
                )


def _by_class(part: _Part) -> dict[str, list[Entry]]:
    """Return the files of one split in one tar by class: by folders or, where all lie in one, by their own names.

    Their names then begin below the class's folder. Nothing is returned for test images without labels.
    """
    path = part.root / part.tar.file
    found = folder_classes(part.where, part.folders, lambda folder: first_image(path, part.folders[folder]) is not None)
    by_class: dict[str, list[Entry]] = defaultdict(list)
    if len({wnid for wnid, _ in found.values()}) > 1 or (found and not all(map(_is_labelled, part.entries))):
        for folder, (wnid, depth) in found.items():
            by_class[wnid] += [_below(folder[depth:], entry) for entry in part.folders[folder]]
        return by_class
    for entry in part.entries:
        named = wnid_in(_file_name(entry))
        by_class[named or ""].append(_below((), entry) if named else entry)
    unlabelled = first_image(path, by_class.pop("", ()))
    if unlabelled is None:
        return by_class
    if part.split == "test":
        return {}
    hint = ""
    if unlabelled.startswith(b"ILSVRC2012_val_"):
        hint = f"; if it is the official archive, call it {VAL_TAR}, that for training {TRAIN_TAR}, and add the devkit"
    raise InputError(
        f"{part.where}: {unlabelled.decode('utf-8', 'backslashreplace')!r} has no label: it lies in no class folder, "
        f"and no WNID is in its name; unpack the tar, and sort its images into one folder a class{hint}"
    )


def _below(folder: Names, entry: Entry) -> Entry:
    """Return an entry named by the folders below its class's."""
    prefix = "".join(f"{name}/" for name in folder).encode("utf-8", "surrogateescape")
    return (prefix + _file_name(entry), *entry[1:])


def _file_name(entry: Entry) -> bytes:
    return entry[0].rpartition(b"/")[2]


def _is_labelled(entry: Entry) -> bool:
    return is_labelled(_file_name(entry))
