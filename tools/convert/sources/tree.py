"""The extracted tree: `train/nXXXXXXXX/`, and `val/` with class folders, or flat with something that labels it.

Kaggle's download is such a tree, too, in a deeper folder: `kaggle.py` says where, and this file reads both.
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
from alexnet.tools.convert.sources.class_folders import read_flat_folder, read_train_folders, read_val_folders
from alexnet.tools.convert.sources.folders import contents
from alexnet.tools.convert.sources.labels import (
    SOLUTION,
    WORD_FILES,
    ValLabels,
    class_records,
    devkit_labels,
    kaggle_labels,
    read_words,
)
from alexnet.tools.convert.sources.layout import Layout
from alexnet.tools.convert.sources.official import read_val_tar
from alexnet.tools.convert.sources.walk import Walk

_WNID = re.compile(r"n\d{8}")
_VAL_IMAGE = re.compile(r"ILSVRC2012_val_\d{8}\.")

ValForm = Literal["class folders", "flat", "archive", "none"]


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Say where a tree's parts are: `base` holds `train` and `val`, `tables` what labels and names them."""

    root: Path
    base: Path
    tables: Path
    kind: str
    title: str

    @property
    def train(self) -> Path:
        """Return the folder of training images."""
        return self.base / "train"

    @property
    def val(self) -> Path:
        """Return the folder of validation images, which need not be there."""
        return self.base / "val"

    def layout(self) -> Layout:
        """Return what the list of this tree depends on, and how it is made."""
        kit = find_devkit(self.tables)
        tables = [self.tables / name for name in (SOLUTION, VAL_TAR, *WORD_FILES)]
        files = (*(path for path in tables if path.is_file()), *(devkit_files(kit) if kit else ()))
        trees = tuple(folder for folder in (self.train, self.val) if folder.is_dir())
        return Layout(kind=self.kind, root=self.root, files=files, trees=trees, read=partial(_read, self))


def find(root: Path) -> Layout | None:
    """Recognise a tree by `train` with sub-folders that are all called by WNIDs."""
    if not has_wnid_folders(root / "train"):
        return None
    return Tree(root=root, base=root, tables=root, kind="ilsvrc2012-tree", title="extracted ILSVRC tree").layout()


def has_wnid_folders(folder: Path) -> bool:
    """Say whether a folder has sub-folders and all of them are called by WNIDs."""
    names = contents(folder).folders if folder.is_dir() else ()
    return bool(names) and all(_WNID.fullmatch(name) for name in names)


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
    train, ignored = read_train_folders(tree.root, tree.train, label_of, walk)
    val, more = _read_val(tree, form, labels, label_of, walk)
    members: dict[Split, Listing] = {"train": train, "val": val}
    return Source(
        root=tree.root,
        kind=tree.kind,
        classes=classes,
        members=members,
        description=f"{tree.title}, {len(classes):,} classes, {sizes_of(members)} files",
        notes=(*_notes(tree, form, labels, val), *count_notes(tuple(label_of), train, val)),
        ignored=ignored + more,
    )


def _val_form(tree: Tree) -> ValForm:
    found = contents(tree.val) if tree.val.is_dir() else None
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
    """Read what labels validation images: the devkit or, where there is none, Kaggle's table."""
    kit = find_devkit(tree.tables)
    if kit:
        return devkit_labels(kit, read_devkit(kit))
    solution = tree.tables / SOLUTION
    return kaggle_labels(solution, read_words(tree.tables)) if solution.is_file() else None


def _classes(tree: Tree, form: ValForm, labels: ValLabels | None) -> tuple[ClassRecord, ...]:
    """Return the classes: those of the training folders or, for images labelled by a table, all of the table's.

    A user who kept 100 class folders wants 100 classes; a flat set, though, has images of every class of its table.
    """
    folders = contents(tree.train).folders
    words = {record.wnid: record.words for record in labels.classes} if labels else read_words(tree.tables)
    if labels is None or form not in ("flat", "archive"):
        return class_records(folders, words)
    unknown = sorted(set(folders) - set(words))
    if unknown:
        raise InputError(
            f"{tree.train}: {unknown[0]} is no class of {labels.where.name}; the two must belong together; move the "
            "folder away"
        )
    return labels.classes


def _read_val(
    tree: Tree, form: ValForm, labels: ValLabels | None, label_of: Mapping[str, int], walk: Walk
) -> tuple[Listing, int]:
    if form == "class folders":
        val, ignored = read_val_folders(tree.root, tree.val, label_of, walk)
        check_sorted_labels(tree.val, tuple(label_of), val)
        return val, ignored
    if form == "flat" and labels is not None:
        return read_flat_folder(tree.root, tree.val, labels, label_of, walk)
    if form == "archive" and labels is not None:
        return read_val_tar(tree.tables, labels, label_of, walk)
    return Listing.of(()), 0


def _notes(tree: Tree, form: ValForm, labels: ValLabels | None, val: Listing) -> list[str]:
    notes = []
    if form == "none":
        notes.append(f"no validation images: {tree.val} is not there or empty")
    if form == "archive":
        notes.append(f"validation images are read from {VAL_TAR}")
    if labels is not None and form == "flat" and len(val) != len(labels.wnids):
        notes.append(f"{labels.where.name} labels {len(labels.wnids):,} images, {len(val):,} are in {tree.val}")
    folders = len(contents(tree.train).folders)
    if labels is not None and folders < len(labels.classes):
        notes.append(f"{labels.where.name} has {len(labels.classes):,} classes, {folders:,} have a training folder")
    return notes
