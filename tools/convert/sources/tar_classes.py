"""Which class and which split each file of a tar has, by names alone; or a refusal: nothing is sampled.

A tar that is one class is listed when its turn comes, and what is in it must not speak of other classes. In other tars
the folders say the classes, or WNIDs in the names of files do.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.tools.convert.known import TRAIN_TAR, VAL_TAR
from alexnet.tools.convert.listing import Entry
from alexnet.tools.convert.sources.first_bytes import ARCHIVES, is_image
from alexnet.tools.convert.sources.layout import Walk
from alexnet.tools.convert.sources.names import (
    WNID,
    Names,
    SplitWord,
    folder_classes,
    is_about_images,
    is_labelled,
    printed,
    shown,
    split_of_paths,
    wnid_in,
)
from alexnet.tools.convert.sources.tar_files import ImageTar
from alexnet.tools.convert.sources.tars import folder_names, list_tar

_ARCHIVES = tuple(map(str.encode, ARCHIVES))
_MEND = (
    "if what is in the tars says the classes, call them train_1.tar, train_2.tar and so on; else unpack each into a "
    "folder of its class's name"
)


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


Folders = dict[Names, list[Entry]]
"""The files of one split in one tar, by the names of folders without those that say the split."""


class ClassTars:
    """List class tars one at a time, and check that nothing in them speaks of other classes."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._doubtful: dict[Names, str] = {}  # folders that may be classes, and where
        self._in_names: dict[str, str] = {}  # WNIDs in files' names, and the class that they were met in

    def group(self, tar: ImageTar, wnid: str) -> Group:
        """Return a class tar's files, to be listed when its turn comes: 14 million entries are a gigabyte."""
        return Group(split=tar.split, wnid=wnid, file=tar.file, load=partial(self._load, tar, wnid), length=tar.length)

    def _load(self, tar: ImageTar, wnid: str) -> list[Entry]:
        entries = list_tar(tar, self._walk)
        paths = {entry[0][: entry[0].rfind(b"/") + 1] for entry in entries}
        doubtful = _doubtful(tar.where, wnid, map(folder_names, sorted(paths)))
        top = (entry for entry in entries if not folder_names(entry[0].rpartition(b"/")[0]))
        if doubtful and not _first_image(tar.path, top):
            self._doubtful |= dict.fromkeys(doubtful, tar.where)
        self._check_names(tar.where, wnid, entries)
        return entries

    def _check_names(self, where: str, wnid: str, entries: Sequence[Entry]) -> None:
        """Refuse images whose names carry other classes than the tar's: ends that are labels, or classes of others."""
        sure = WNID.fullmatch(wnid)  # ImageNet-21k's files may be called by another WNID than their class's
        for name in map(_file_name, entries):
            other = wnid_in(name)
            if other in (None, wnid):
                continue
            if is_labelled(name) or (not sure and self._in_names.setdefault(other, wnid) != wnid):
                raise InputError(f"{where}: its name says class {wnid}, and {shown(name)!r} in it {other}; {_MEND}")

    def refuse_doubtful(self, label_of: Mapping[str, int]) -> None:
        """Refuse folders in class tars that may be classes; one folder, the same in all tars, tells nothing."""
        if len(self._doubtful) > 1 or any(printed(name) in label_of for folder in self._doubtful for name in folder):
            folder, where = min(self._doubtful.items())
            names = "/".join(folder)
            raise InputError(
                f"{where}: its images lie in folders of other names than its own, such as {names!r}; {_MEND}"
            )


def _doubtful(where: str, wnid: str, folders: Iterable[Names]) -> set[Names]:
    """Return the folders in a class's tar that may be classes themselves. Raises InputError for another WNID.

    The class's own name among them is a good sign; words such as `images`, and anything in a tar that is called by a
    WNID, tell nothing.
    """
    own = printed(wnid).casefold()
    others = [folder for folder in folders if not any(printed(name).casefold() == own for name in folder)]
    for name in filter(WNID.fullmatch, chain.from_iterable(others)):
        raise InputError(f"{where}: holds a folder {name}, and its own name says class {wnid}; {_MEND}")
    return set() if WNID.fullmatch(wnid) else {folder for folder in others if not all(map(is_about_images, folder))}


def read_image_tars(tars: Sequence[ImageTar], walk: Walk) -> tuple[list[Group], list[str]]:
    """List tars by class and split; and name what holds images and is not read.

    Raises InputError where an image has no class, or may have several; test images without labels are not read.
    """
    if tars:
        training = any(tar.split in (None, "train") for tar in tars)
        walk.begin("train" if training else "val", "bytes", sum(tar.length for tar in tars))
    parts = [(tar, split, folders) for tar in tars for split, folders in _parts(tar, walk)]
    _refuse_contradiction(parts)
    splits_only = any(split for _, split, _ in parts)
    groups: list[Group] = []
    unread: list[str] = []
    seen: dict[bytes, str] = {}
    for tar, split, folders in parts:
        every = list(chain.from_iterable(folders.values()))
        classes = _by_class(tar, split, folders, every) if split or not splits_only else {}
        groups += [
            Group(split=split, wnid=wnid, file=tar.file, load=partial(list, entries))
            for wnid, entries in classes.items()
        ]
        if split != "test":
            _refuse_second(tar.where, every, seen)
        missing = len(every) - sum(map(len, classes.values()))
        walk.ignored += missing
        if missing and not classes and _first_image(tar.path, every):
            unread.append(f"{tar.file} ({missing:,} {f'{split} images' if split else 'other files'})")
    return groups, unread


def _parts(tar: ImageTar, walk: Walk) -> list[tuple[SplitWord | None, Folders]]:
    """List a tar, by split and folder."""
    folders: Folders = defaultdict(list)
    for entry in list_tar(tar, walk):
        if entry[0].endswith(_ARCHIVES):
            name = shown(entry[0])
            raise InputError(f"{tar.path}: holds {name!r} beside images, which would be missed; unpack both")
        folders[folder_names(entry[0].rpartition(b"/")[0])].append(entry)
    parts: dict[SplitWord | None, Folders] = defaultdict(lambda: defaultdict(list))
    for folder, (split, depths) in split_of_paths(str(tar.path), folders).items():
        parts[split][tuple(folder[depth] for depth in depths)] += folders[folder]
    return [(split or tar.split, folders) for split, folders in parts.items()]


def _refuse_contradiction(parts: Sequence[tuple[ImageTar, SplitWord | None, Folders]]) -> None:
    """Refuse a tar called `train` beside one called `val` that holds a folder `val`."""
    other = next(((tar, split) for tar, split, _ in parts if split != tar.split), None)
    if other and len({tar.split for tar, _, _ in parts}) > 1:
        raise InputError(
            f"{other[0].where}: its name says {other[0].split}, and a folder in it {other[1]}; unpack it, and "
            "sort its images into train/CLASS and val/CLASS"
        )


def _refuse_second(where: str, entries: Sequence[Entry], seen: dict[bytes, str]) -> None:
    """Refuse a name that ends in its label, and so means one image, where it was seen before: name to its tar."""
    for name in filter(is_labelled, map(_file_name, entries)):
        if seen.setdefault(name, where) != where:
            raise InputError(
                f"{where}: {shown(name)!r} is in {seen[name]}, too: an image must not be there twice; move one of the "
                "tars away"
            )


def _by_class(
    tar: ImageTar, split: SplitWord | None, folders: Folders, every: Sequence[Entry]
) -> dict[str, list[Entry]]:
    """Return the files of one split in one tar by class: by folders or, where all lie in one, by their own names.

    Their names then begin below the class's folder. Nothing is returned for test images without labels.
    """
    path, where = tar.path, tar.where
    found = folder_classes(where, folders, lambda folder: _first_image(path, folders[folder]) is not None)
    by_class: dict[str, list[Entry]] = defaultdict(list)
    if len({wnid for wnid, _ in found.values()}) > 1 or (
        found and not all(is_labelled(_file_name(entry)) for entry in every)
    ):
        for folder, (wnid, depth) in found.items():
            by_class[wnid] += [_below(folder[depth:], entry) for entry in folders[folder]]
        return by_class
    for entry in every:
        name = wnid_in(_file_name(entry))
        by_class[name or ""].append(_below((), entry) if name else entry)
    unlabelled = _first_image(path, by_class.pop("", ()))
    if unlabelled is None or split == "test":
        return by_class if unlabelled is None else {}
    hint = ""
    if unlabelled.startswith(b"ILSVRC2012_val_"):
        hint = f"; if it is the official archive, call it {VAL_TAR}, that for training {TRAIN_TAR}, and add the devkit"
    raise InputError(
        f"{where}: {shown(unlabelled)!r} has no label: it lies in no class folder, and no WNID is in its name; unpack "
        f"the tar, and sort its images into one folder a class{hint}"
    )


def _below(folder: Names, entry: Entry) -> Entry:
    """Return an entry named by the folders below its class's."""
    prefix = "".join(f"{name}/" for name in folder).encode("utf-8", "surrogateescape")
    return (prefix + _file_name(entry), *entry[1:])


def _file_name(entry: Entry) -> bytes:
    return entry[0].rpartition(b"/")[2]


def _first_image(path: Path, entries: Iterable[Entry]) -> bytes | None:
    """Return the name of the first of some files in a tar that is an image, or None."""
    with path.open("rb") as file:
        return next((name for name, at, _ in entries if file.seek(at) and is_image(file)), None)
