"""Tars of images: one tar a class, as ImageNet-21k is distributed, or tars that splits, parts or the whole are in.

ImageNet-21k has 14 million images in 21,841 class tars. `tar_files.py` finds the tars, also those inside tars, names
tell what each is (`tar_labels.py`), and `image_tars.py` lists those that are no class tars.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import ClassRecord, Split
from alexnet.tools.convert.known import check_sorted_labels, count_notes, naming
from alexnet.tools.convert.listing import Entry, Listing, ListingBuilder, Source, sizes_of
from alexnet.tools.convert.sources.image_tars import Group, first_image, read_image_tars
from alexnet.tools.convert.sources.labels import WORD_FILES, class_records, printed, read_words
from alexnet.tools.convert.sources.layout import Layout
from alexnet.tools.convert.sources.split_folders import NO_CLASS
from alexnet.tools.convert.sources.split_names import split_names
from alexnet.tools.convert.sources.tar_files import FoundTars, find_tars, image_tars
from alexnet.tools.convert.sources.tar_labels import (
    MEND,
    WNID,
    ImageTar,
    Names,
    doubtful_folders,
    is_labelled,
    named_tars,
    wnid_in,
)
from alexnet.tools.convert.sources.tars import Passed, folder_names, list_tar
from alexnet.tools.convert.sources.walk import Stage, Walk

_COMPARED_BYTES = 1 << 20


def find(root: Path) -> Layout | None:
    """Recognise tars by images, or tars, at the beginning of some of them."""
    found = find_tars(root)
    if found is None:
        return None
    words = tuple(root / name for name in WORD_FILES if (root / name).is_file())
    files = (*(root / name for name in found.tars), *words)
    return Layout(kind="class-tars", root=root, files=files, read=partial(_read, found))


def _read(found: FoundTars, walk: Walk) -> Source:
    root, passed = found.root, Passed()
    tars, unread = _without_tests(named_tars(root, image_tars(found, passed, walk)))
    class_tars = _ClassTars(root, passed, walk)
    groups, more = read_image_tars(root, [tar for tar in tars if tar.wnid is None], passed, walk)
    groups += class_tars.groups(tars)
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
    unread += map(printed, found.beside)
    notes = [*_val_notes(val, kind), naming("thing is", "things are", " not read", unread), *passed.notes()]
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

    def __init__(self, root: Path, passed: Passed, walk: Walk) -> None:
        self._root, self._passed, self._walk = root, passed, walk
        self._doubtful: dict[Names, str] = {}  # folders that may be classes, and where
        self._in_names: dict[str, str] = {}  # WNIDs in files' names, and the class that they were met in

    def groups(self, tars: Sequence[ImageTar]) -> list[Group]:
        """Return a group for each class tar, to be listed when its turn comes: 14 million entries are a gigabyte."""
        return [
            Group(
                split=tar.split,
                wnid=tar.wnid,
                file=tar.file,
                load=partial(self._entries, tar, tar.wnid),
                length=tar.length,
            )
            for tar in tars
            if tar.wnid is not None
        ]

    def _entries(self, tar: ImageTar, wnid: str) -> list[Entry]:
        path, name = self._root / tar.file, f"{tar.names[-1]}.tar"
        with path.open("rb") as file:
            entries = list_tar(path, file, name, self._passed, tar.start, tar.length, self._walk.advance)
        where = f"{path}: {name}" if tar.start else str(path)
        paths = {entry[0][: entry[0].rfind(b"/") + 1] for entry in entries}
        doubtful = doubtful_folders(where, wnid, map(folder_names, paths))
        top = (entry for entry in entries if not folder_names(entry[0].rpartition(b"/")[0]))
        if doubtful and not first_image(path, top):
            self._doubtful |= dict.fromkeys(doubtful, where)
        self._check_names(where, wnid, entries)
        return entries

    def _check_names(self, where: str, wnid: str, entries: Sequence[Entry]) -> None:
        """Refuse images whose names carry other classes than the tar's: ends that are labels, or classes of others."""
        sure = WNID.fullmatch(wnid)  # ImageNet-21k's files may be called by another WNID than their class's
        for entry in entries:
            name = entry[0].rpartition(b"/")[2]
            other = wnid_in(name)
            if other in (None, wnid):
                continue
            if is_labelled(name) or (not sure and self._in_names.setdefault(other, wnid) != wnid):
                shown = name.decode("utf-8", "backslashreplace")
                raise InputError(f"{where}: its name says class {wnid}, and {shown!r} in it {other}; {MEND}")

    def refuse_doubtful(self, label_of: Mapping[str, int]) -> None:
        """Refuse folders in class tars that may be classes; one folder, the same in all tars, tells nothing."""
        if len(self._doubtful) > 1 or any(printed(name) in label_of for folder in self._doubtful for name in folder):
            folder, where = min(self._doubtful.items())
            raise InputError(
                f"{where}: its images lie in folders of other names than its own, such as {'/'.join(folder)!r}; {MEND}"
            )


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
    others += [name for name in names if NO_CLASS.fullmatch(name)]
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
    """List validation images by file name, whatever their classes. Raises InputError for a class without training."""
    unknown = next((group for group in groups if printed(group.wnid) not in label_of), None)
    if unknown:
        raise InputError(
            f"{root / unknown.file}: holds validation images of {printed(unknown.wnid)}, which is none of the "
            f"{len(label_of):,} classes of the training images; the two must belong together"
        )
    _begin(walk, "val", groups)
    by_label = _by_label(groups, label_of)
    rows = [(entry, label, file) for label, of_class in by_label for entry, file in _one_class(root, of_class)]
    builder = ListingBuilder()
    for entry, label, file in sorted(rows):
        builder.add(file, label, [entry])
    val = builder.finish()
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
                f"{root}: {file} and {other_file} hold the same image, {one[0].decode('utf-8', 'backslashreplace')!r}; "
                "it would count twice; if one is a copy of the other, move it away"
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


def _val_notes(val: Sequence[Group], kind: str) -> list[str]:
    if val:
        return [naming("tar has", "tars have", " the validation images", sorted({group.file for group in val}))]
    if kind == "class tars":
        return ["no validation images: class tars have none"]
    return ["no validation images: no tar, and no folder in one, is called val"]
