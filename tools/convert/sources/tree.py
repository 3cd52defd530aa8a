"""The extracted tree: `train/nXXXXXXXX/`, and `val/` with class folders, or flat with something that labels it.

Kaggle's download is such a tree, too, in a deeper folder: `kaggle.py` says where, and this file reads both. So is
tiny-imagenet-200, whose images lie one folder deeper, beside tables of boxes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import ClassRecord, Split
from alexnet.tools.convert.devkit import devkit_files, find_devkit, read_devkit
from alexnet.tools.convert.known import DEVKIT_TAR, VAL_TAR, check_sorted_labels, count_notes
from alexnet.tools.convert.listing import Listing, Source, sizes_of
from alexnet.tools.convert.sources.class_folders import (
    class_folders,
    read_flat_folder,
    read_train_folders,
    read_val_folders,
    refuse_linked,
)
from alexnet.tools.convert.sources.folders import contents
from alexnet.tools.convert.sources.labels import (
    ANNOTATIONS,
    SOLUTION,
    WORD_FILES,
    ValLabels,
    annotation_labels,
    class_records,
    devkit_labels,
    kaggle_labels,
    read_words,
)
from alexnet.tools.convert.sources.layout import Layout
from alexnet.tools.convert.sources.official import read_val_tar
from alexnet.tools.convert.sources.split_folders import SplitFolders, find_splits
from alexnet.tools.convert.sources.tars import Passed
from alexnet.tools.convert.sources.walk import Walk

_WNID = re.compile(r"n\d{8}")
_VAL_IMAGE = re.compile(r"ILSVRC2012_val_\d{8}\.")
_IMAGES = "images"  # the folder of a class, and of val, that tiny-imagenet-200 keeps them in

ValForm = Literal["class folders", "flat", "archive", "none"]


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Say where a tree's parts are: folders of images below `base`, and in `tables` what labels and names them."""

    root: Path
    base: Path
    splits: SplitFolders
    tables: Path
    kind: str
    title: str

    @property
    def val(self) -> Path:
        """Return the folder of validation images, which need not be there."""
        return self.splits.val[0] if self.splits.val else self.base / "val"

    @property
    def annotations(self) -> Path:
        """Return tiny-imagenet's table of validation labels, which need not be there."""
        return self.val / ANNOTATIONS

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the training folders."""
        return tuple(sorted({name for folder in self.splits.train for name in contents(folder).folders}))

    def layout(self) -> Layout:
        """Return what the list of this tree depends on, and how it is made."""
        kit = find_devkit(self.tables)
        tables = [*(self.tables / name for name in (SOLUTION, VAL_TAR, *WORD_FILES)), self.annotations]
        files = (*(path for path in tables if path.is_file()), *(devkit_files(kit) if kit else ()))
        trees = (*self.splits.train, *self.splits.val)
        return Layout(kind=self.kind, root=self.root, files=files, trees=trees, read=partial(_read, self))


def find(root: Path) -> Layout | None:
    """Recognise a tree by folders of training images with sub-folders that are all called by WNIDs."""
    tree = tree_at(root, root, root, "ilsvrc2012-tree", "extracted ILSVRC tree")
    return tree.layout() if tree else None


def tree_at(root: Path, base: Path, tables: Path, kind: str, title: str) -> Tree | None:
    """Return the tree whose split folders lie in `base`; None if there is none.

    Raises InputError if it is one but for a folder that lies astray among its class folders.
    """
    splits = find_splits(base) if base.is_dir() else None
    if splits is None:
        return None
    tree = Tree(root=root, base=base, splits=splits, tables=tables, kind=kind, title=title)
    stray = [name for name in tree.classes if not _WNID.fullmatch(name)]
    if not stray:
        return tree
    if len(stray) == len(tree.classes) or not _is_official(tree):
        return None
    raise InputError(
        f"{splits.train[0]}: {stray[0]} is no class of ImageNet, where the other {len(tree.classes) - len(stray):,} "
        "folders are called by WNIDs; move it away"
    )


def _is_official(tree: Tree) -> bool:
    """Say whether something beside the class folders is ImageNet's own, so that nothing but WNIDs can be a class."""
    tables = [tree.tables / SOLUTION, tree.tables / VAL_TAR, tree.annotations]
    val = contents(tree.val).files if tree.val.is_dir() else ()
    return bool(find_devkit(tree.tables)) or any(map(Path.is_file, tables)) or any(map(_VAL_IMAGE.match, val))


def _read(tree: Tree, walk: Walk) -> Source:
    form = _val_form(tree)
    labels = _labels(tree)
    if labels is None and form in ("flat", "archive"):
        where = tree.val if form == "flat" else VAL_TAR
        raise InputError(
            f"{tree.root}: the images of {where} have no labels; put {DEVKIT_TAR} or {SOLUTION} into {tree.tables}, "
            "or sort them into class folders"
        )
    classes = _classes(tree, form, labels)
    label_of = {record.wnid: label for label, record in enumerate(classes)}
    tiny = _is_tiny(tree)
    train_folders = class_folders(tree.splits.train, label_of, _IMAGES if tiny else "")
    refuse_linked([*train_folders, *(class_folders(tree.splits.val, label_of) if form == "class folders" else ())])
    train, ignored = read_train_folders(tree.root, train_folders, walk)
    val, more = _read_val(tree, form, labels, label_of, walk)
    members: dict[Split, Listing] = {"train": train, "val": val}
    title = "tiny-imagenet-200" if tiny else tree.title
    return Source(
        root=tree.root,
        kind=tree.kind,
        classes=classes,
        members=members,
        description=f"{title}, {len(classes):,} classes, {sizes_of(members)} files",
        notes=(*_notes(tree, form, labels, val), *count_notes(tuple(label_of), train, val)),
        ignored=ignored + more + tree.splits.ignored(),
    )


def _is_tiny(tree: Tree) -> bool:
    """Recognise tiny-imagenet-200 by `nXXXXXXXX_boxes.txt` beside a folder `images` in a class folder."""
    first = tree.splits.train[0] / contents(tree.splits.train[0]).folders[0]
    return (first / _IMAGES).is_dir() and (first / f"{first.name}_boxes.txt").is_file()


def _val_form(tree: Tree) -> ValForm:
    found = contents(tree.val) if tree.val.is_dir() else None
    if tree.annotations.is_file() and found is not None and _IMAGES in found.folders:
        if len(found.folders) > 1:
            raise InputError(
                f"{tree.val}: holds class folders beside {_IMAGES}: sorting them was interrupted; finish it, and "
                f"delete {_IMAGES}, or unpack the archive again"
            )
        return "flat"
    if found is None or not (found.folders or found.files):
        return "archive" if (tree.tables / VAL_TAR).is_file() else "none"
    loose = sum(1 for name in found.files if _VAL_IMAGE.match(name))
    if found.folders and loose:
        raise InputError(
            f"{tree.val}: holds {len(found.folders):,} class folders and {loose:,} loose images; sorting them into "
            "folders was interrupted; finish it, or extract the archive again"
        )
    return "class folders" if found.folders else "flat"


def _labels(tree: Tree) -> ValLabels | None:
    """Read what labels validation images: tiny-imagenet's table, the devkit or, where there is none, Kaggle's table."""
    if tree.annotations.is_file():
        return annotation_labels(tree.annotations, read_words(tree.tables))
    kit = find_devkit(tree.tables)
    if kit:
        return devkit_labels(kit, read_devkit(kit))
    solution = tree.tables / SOLUTION
    return kaggle_labels(solution, read_words(tree.tables)) if solution.is_file() else None


def _classes(tree: Tree, form: ValForm, labels: ValLabels | None) -> tuple[ClassRecord, ...]:
    """Return the classes: those of the training folders or, for images labelled by a table, all of the table's.

    A user who kept 100 class folders wants 100 classes; a flat set, though, has images of every class of its table.
    """
    folders = tree.classes
    words = {record.wnid: record.words for record in labels.classes} if labels else read_words(tree.tables)
    if labels is None or form not in ("flat", "archive"):
        return class_records(folders, words)
    unknown = sorted(set(folders) - set(words))
    if unknown:
        raise InputError(
            f"{tree.splits.train[0]}: {unknown[0]} is no class of {labels.where.name}; the two must belong "
            "together; move the folder away"
        )
    return labels.classes


def _read_val(
    tree: Tree, form: ValForm, labels: ValLabels | None, label_of: Mapping[str, int], walk: Walk
) -> tuple[Listing, int]:
    if form == "class folders":
        val, ignored = read_val_folders(tree.root, class_folders(tree.splits.val, label_of), walk)
        check_sorted_labels(tree.val, tuple(label_of), val)
        return val, ignored
    if form == "flat" and labels is not None:
        folder = tree.val / _IMAGES if tree.annotations.is_file() else tree.val
        return read_flat_folder(tree.root, folder, labels, label_of, walk)
    if form == "archive" and labels is not None:
        passed = Passed()
        return read_val_tar(tree.tables, labels, label_of, passed, walk), passed.ignored
    return Listing.of(()), 0


def _notes(tree: Tree, form: ValForm, labels: ValLabels | None, val: Listing) -> list[str]:
    notes = tree.splits.notes()
    if form == "none":
        notes.append(f"no validation images: {tree.val} is not there or empty")
    if form == "archive":
        notes.append(f"validation images are read from {VAL_TAR}")
    if labels is not None and form == "flat" and len(val) != len(labels.wnids):
        notes.append(f"{labels.where.name} labels {len(labels.wnids):,} images, {len(val):,} are in {tree.val}")
    folders = len(tree.classes)
    if labels is not None and folders < len(labels.classes):
        notes.append(f"{labels.where.name} has {len(labels.classes):,} classes, {folders:,} have a training folder")
    return notes
