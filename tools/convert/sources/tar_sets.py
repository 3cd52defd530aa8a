"""Tars of images: one a class, as ImageNet-21k is distributed; one a split, or a numbered part of one; or one of all.

ImageNet-21k has 14 million images in 21,841 class tars: `tar_files.py` finds the tars, `tar_classes.py` tells the class
and split of each file, and they are listed one class at a time. A wrong label costs a training run, and nothing would
say so.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import ClassRecord, Split
from alexnet.tools.convert.known import check_sorted_labels, count_notes, naming
from alexnet.tools.convert.listing import Entry, Listing, Rows, Source, in_name_order, sizes_of
from alexnet.tools.convert.sources.layout import Layout, Stage, Walk
from alexnet.tools.convert.sources.names import (
    NO_CLASS,
    WNID,
    printed,
    shown,
    split_names,
)
from alexnet.tools.convert.sources.tables import class_records, read_words, word_files
from alexnet.tools.convert.sources.tar_classes import ClassTars, Group, read_image_tars
from alexnet.tools.convert.sources.tar_files import find_tars, image_tars, without_tests

_COMPARED_BYTES = 1 << 20


def find(root: Path) -> Layout | None:
    """Recognise tars by images, or tars, at the beginning of some of them."""
    found = find_tars(root)
    if found is None:
        return None
    tars, beside = found
    files = (*(root / name for name in tars), *word_files(root))
    return Layout(kind="class-tars", root=root, files=files, read=partial(_read, root, tars, beside))


def _read(root: Path, files: Sequence[str], beside: Sequence[str], walk: Walk) -> Source:
    tars, unread = without_tests(image_tars(root, files, walk))
    class_tars = ClassTars(walk)
    groups, more = read_image_tars([tar for tar in tars if tar.wnid is None], walk)
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
    notes = [_val_note(val, kind), naming("thing is", "things are", " not read", unread), *walk.notes()]
    return Source(
        root=root,
        kind=kind.replace(" ", "-"),
        classes=classes,
        members=members,
        label_order="place of the class's name in sorted order",
        description=f"{kind}, {len(classes):,} classes, {sizes_of(members)} entries",
        notes=(*filter(None, notes), *count_notes(tuple(label_of), members["train"], members["val"])),
        ignored=walk.ignored,
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
    others += filter(NO_CLASS.fullmatch, names)
    if others:
        raise InputError(
            f"{root}: not taken for a class: {printed(min(others))!r}, a name of splits or of things, beside "
            f"{len(names) - 1:,} others; move it away, or unpack the tars and sort the images into one folder a class"
        )
    return class_records(names, read_words(root))


def _train_listing(root: Path, groups: Sequence[Group], label_of: Mapping[str, int], walk: Walk) -> Listing:
    """List training images by label, then name."""

    def rows() -> Iterator[Rows]:
        for label, of_class in _by_label(groups, label_of):
            if len(of_class) == 1:
                yield label, of_class[0].file, of_class[0].load()
            else:
                yield from ((label, file, [entry]) for entry, file in _one_class(root, of_class))

    _begin(walk, "train", groups)
    return Listing.of(rows())


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
        (label, file, [entry]) for label, of_class in by_label for entry, file in _one_class(root, of_class)
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
