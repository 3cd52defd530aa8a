"""Tars of images: one tar a class, as ImageNet-21k is distributed, or tars that splits, parts or the whole are in.

ImageNet-21k has 14 million images in 21,841 class tars: `tar_files.py` finds them, and they are listed one class at a
time. In other tars every file is given a class and a split by names alone, or the tar is refused: nothing is sampled.
A wrong label costs a training run, and nothing would say so.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import ClassRecord, Split
from alexnet.tools.convert.known import TRAIN_TAR, VAL_TAR, check_sorted_labels, count_notes, naming
from alexnet.tools.convert.listing import Entry, Listing, ListingBuilder, Source, in_name_order, sizes_of
from alexnet.tools.convert.sources.first_bytes import is_image
from alexnet.tools.convert.sources.layout import Layout, Stage, Walk
from alexnet.tools.convert.sources.names import (
    NO_CLASS,
    WNID,
    Names,
    SplitWord,
    folder_classes,
    is_about_images,
    is_labelled,
    printed,
    shown,
    split_names,
    split_of_paths,
    wnid_in,
)
from alexnet.tools.convert.sources.tables import class_records, read_words, word_files
from alexnet.tools.convert.sources.tar_files import ImageTar, find_tars, image_tars
from alexnet.tools.convert.sources.tars import Passed, folder_names, list_tar

_COMPARED_BYTES = 1 << 20
_ARCHIVES = (b".tar", b".tar.gz", b".tgz", b".zip", b".7z", b".rar")
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """Hold the files of one split in one tar, by the names of folders without those that say the split."""

    tar: ImageTar
    split: SplitWord | None
    folders: dict[Names, list[Entry]]

    def entries(self) -> list[Entry]:
        """Return the files of all folders."""
        return list(chain.from_iterable(self.folders.values()))


def find(root: Path) -> Layout | None:
    """Recognise tars by images, or tars, at the beginning of some of them."""
    found = find_tars(root)
    if found is None:
        return None
    tars, beside = found
    files = (*(root / name for name in tars), *word_files(root))
    return Layout(kind="class-tars", root=root, files=files, read=partial(_read, root, tars, beside))


def _read(root: Path, files: Sequence[str], beside: Sequence[str], walk: Walk) -> Source:
    passed = Passed()
    tars, unread = _without_tests(image_tars(root, files, passed, walk))
    class_tars = _ClassTars(passed, walk)
    groups, more = _read_image_tars([tar for tar in tars if tar.wnid is None], passed, walk)
    groups += [class_tars.group(tar, tar.wnid) for tar in tars if tar.wnid is not None]
    train = [group for group in groups if group.split in (None, "train")]
    val_word = "val" if any(group.split == "val" for group in groups) else "test"
    val = [group for group in groups if group.split == val_word]
    unread += more + sorted({f"{group.file} (test images)" for group in groups if group.split == "test" != val_word})
    classes = _classes(root, train)
    label_of = {record.wnid: label for label, record in enumerate(classes)}
    members: dict[Split, Listing] = {
        "train": _train_listing(root, train, label_of, walk),
        "val": _val_listing(root, val, label_of, walk),
    }
    class_tars.refuse_doubtful(label_of)
    kind = "class tars" if any(tar.wnid for tar in tars) else "tars of images"
    unread += map(printed, beside)
    notes = [_val_note(val, kind), naming("thing is", "things are", " not read", unread), *passed.notes()]
    return Source(
        root=root,
        kind=kind.replace(" ", "-"),
        classes=classes,
        members=members,
        label_order="place of the class's name in sorted order",
        description=f"{kind}, {len(classes):,} classes, {sizes_of(members)} entries",
        notes=(*filter(None, notes), *count_notes(tuple(label_of), members["train"], members["val"])),
        ignored=passed.ignored,
    )


def _without_tests(tars: Sequence[ImageTar]) -> tuple[list[ImageTar], list[str]]:
    """Leave out tars of test images where there are others for validation; and name them."""
    tests = [tar for tar in tars if tar.split == "test"] if any(tar.split == "val" for tar in tars) else []
    return [tar for tar in tars if tar not in tests], sorted({f"{tar.file} (test images)" for tar in tests})


class _ClassTars:
    """List class tars one at a time, and check that nothing in them speaks of other classes."""

    def __init__(self, passed: Passed, walk: Walk) -> None:
        self._passed, self._walk = passed, walk
        self._doubtful: dict[Names, str] = {}  # folders that may be classes, and where
        self._in_names: dict[str, str] = {}  # WNIDs in files' names, and the class that they were met in

    def group(self, tar: ImageTar, wnid: str) -> Group:
        """Return a class tar's files, to be listed when its turn comes: 14 million entries are a gigabyte."""
        return Group(split=tar.split, wnid=wnid, file=tar.file, load=partial(self._load, tar, wnid), length=tar.length)

    def _load(self, tar: ImageTar, wnid: str) -> list[Entry]:
        entries = list_tar(tar, self._passed, self._walk.advance)
        paths = {entry[0][: entry[0].rfind(b"/") + 1] for entry in entries}
        doubtful = _doubtful(tar.where, wnid, map(folder_names, paths))
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


def _read_image_tars(tars: Sequence[ImageTar], passed: Passed, walk: Walk) -> tuple[list[Group], list[str]]:
    """List tars by class and split; and name what holds images and is not read.

    Raises InputError where an image has no class, or may have several; test images without labels are not read.
    """
    if tars:
        training = any(tar.split in (None, "train") for tar in tars)
        walk.begin("train" if training else "val", "bytes", sum(tar.length for tar in tars))
    parts = [part for tar in tars for part in _parts(tar, passed, walk)]
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
        if missing and not classes and _first_image(part.tar.path, part.entries()):
            unread.append(f"{part.tar.file} ({missing:,} {f'{part.split} images' if part.split else 'other files'})")
    return groups, unread


def _parts(tar: ImageTar, passed: Passed, walk: Walk) -> list[_Part]:
    """List a tar, by split and folder."""
    folders: dict[Names, list[Entry]] = defaultdict(list)
    for entry in list_tar(tar, passed, walk.advance):
        if entry[0].endswith(_ARCHIVES):
            name = shown(entry[0])
            raise InputError(f"{tar.path}: holds {name!r} beside images, which would be missed; unpack both")
        folders[folder_names(entry[0].rpartition(b"/")[0])].append(entry)
    parts: dict[SplitWord | None, _Part] = {}
    for folder, (split, depths) in split_of_paths(str(tar.path), folders).items():
        part = parts.setdefault(split, _Part(tar=tar, split=split or tar.split, folders=defaultdict(list)))
        part.folders[tuple(folder[depth] for depth in depths)] += folders[folder]
    return list(parts.values())


def _refuse_contradiction(parts: Sequence[_Part]) -> None:
    """Refuse a tar called `train` beside one called `val` that holds a folder `val`."""
    other = next((part for part in parts if part.split != part.tar.split), None)
    if other and len({part.tar.split for part in parts}) > 1:
        raise InputError(
            f"{other.tar.where}: its name says {other.tar.split}, and a folder in it {other.split}; unpack it, and "
            "sort its images into train/CLASS and val/CLASS"
        )


def _refuse_second(part: _Part, seen: dict[bytes, str]) -> None:
    """Refuse a name that ends in its label, and so means one image, where it was seen before: name to its tar."""
    where = part.tar.where
    for name in filter(is_labelled, map(_file_name, part.entries())):
        if seen.setdefault(name, where) != where:
            raise InputError(
                f"{where}: {shown(name)!r} is in {seen[name]}, too: an image must not be there twice; move one of the "
                "tars away"
            )


def _by_class(part: _Part) -> dict[str, list[Entry]]:
    """Return the files of one split in one tar by class: by folders or, where all lie in one, by their own names.

    Their names then begin below the class's folder. Nothing is returned for test images without labels.
    """
    path, where = part.tar.path, part.tar.where
    found = folder_classes(where, part.folders, lambda folder: _first_image(path, part.folders[folder]) is not None)
    by_class: dict[str, list[Entry]] = defaultdict(list)
    if len({wnid for wnid, _ in found.values()}) > 1 or (
        found and not all(is_labelled(_file_name(entry)) for entry in part.entries())
    ):
        for folder, (wnid, depth) in found.items():
            by_class[wnid] += [_below(folder[depth:], entry) for entry in part.folders[folder]]
        return by_class
    for entry in part.entries():
        name = wnid_in(_file_name(entry))
        by_class[name or ""].append(_below((), entry) if name else entry)
    unlabelled = _first_image(path, by_class.pop("", ()))
    if unlabelled is None or part.split == "test":
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


def _classes(root: Path, train: Sequence[Group]) -> tuple[ClassRecord, ...]:
    """Return the classes that have training images. Raises InputError for none, and for one that may be no class."""
    names = {group.wnid for group in train}
    if not names:
        raise InputError(f"{root}: its tars hold no training images; give them, too, or call their tar train.tar")
    if len(names) == 1 and not WNID.fullmatch(min(names)):
        raise InputError(
            f"{root}: its tars hold one class only, {printed(min(names))!r}, which may be no class at all; unpack "
            "them, and sort the images into one folder a class"
        )
    others = [name for name, word in split_names(names).items() if word != "train" and name != "valid"]
    others += filter(NO_CLASS.fullmatch, names)
    if others:
        raise InputError(
            f"{root}: not taken for a class: {printed(min(others))!r}, a name of splits or of things, beside "
            f"{len(names) - 1:,} others; move it away, or unpack the tars and sort the images into one folder a class"
        )
    return class_records(names, read_words(root))


def _train_listing(root: Path, groups: Sequence[Group], label_of: Mapping[str, int], walk: Walk) -> Listing:
    """List training images by label, then name."""
    _begin(walk, "train", groups)
    builder = ListingBuilder()
    for label, of_class in _by_label(groups, label_of):
        if len(of_class) == 1:
            builder.add(of_class[0].file, label, of_class[0].load())
        else:
            for entry, file in _one_class(root, of_class):
                builder.add(file, label, [entry])
    return builder.finish()


def _val_listing(root: Path, groups: Sequence[Group], label_of: Mapping[str, int], walk: Walk) -> Listing:
    """List validation images by file name. Raises InputError for a class without training."""
    unknown = next((group for group in groups if printed(group.wnid) not in label_of), None)
    if unknown:
        raise InputError(
            f"{root / unknown.file}: holds validation images of {printed(unknown.wnid)}, which is none of the "
            f"{len(label_of):,} classes of the training images; the two must belong together"
        )
    _begin(walk, "val", groups)
    by_label = _by_label(groups, label_of)
    val = in_name_order(
        (entry, label, file) for label, of_class in by_label for entry, file in _one_class(root, of_class)
    )
    check_sorted_labels(root, tuple(label_of), val)
    return val


def _by_label(groups: Sequence[Group], label_of: Mapping[str, int]) -> list[tuple[int, list[Group]]]:
    by_label: dict[int, list[Group]] = defaultdict(list)
    for group in groups:
        by_label[label_of[printed(group.wnid)]].append(group)
    return sorted(by_label.items())


def _one_class(root: Path, groups: Sequence[Group]) -> list[tuple[Entry, str]]:
    """List the files of one class by name, each with the file that it is in. Raises InputError if one is there twice.

    Two of one name are the same image if their bytes are; else parts count anew, and both are read.
    """
    rows = sorted((entry, group.file) for group in groups for entry in group.load())
    for (one, file), (other, other_file) in pairwise(rows):
        apart = (file, one[1]) != (other_file, other[1])
        same = apart and one[0] == other[0] and 0 < one[2] == other[2]
        if same and _data(root / file, one) == _data(root / other_file, other):
            raise InputError(
                f"{root}: {file} and {other_file} hold the same image, {shown(one[0])!r}; it would count twice; if one "
                "is a copy of the other, move it away"
            )
    return rows


def _data(path: Path, entry: Entry) -> bytes:
    with path.open("rb") as file:
        file.seek(entry[1])
        return file.read(min(entry[2], _COMPARED_BYTES))


def _begin(walk: Walk, stage: Stage, groups: Sequence[Group]) -> None:
    total = sum(group.length for group in groups)
    if total:
        walk.begin(stage, "bytes", total)


def _val_note(val: Sequence[Group], kind: str) -> str:
    if val:
        return naming("tar has", "tars have", " the validation images", sorted({group.file for group in val}))
    none = "class tars have none" if kind == "class tars" else "no tar, and no folder in one, is called val"
    return f"no validation images: {none}"
