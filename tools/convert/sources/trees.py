"""Images in folders: ImageNet extracted, from Kaggle or as tiny-imagenet-200, or any folder with one folder a class.

`splits.py` chooses the splits, `class_folders.py` lists. Images all in one folder are labelled by table or devkit.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import ClassRecord, Split
from alexnet.tools.convert.known import DEVKIT_TAR, VAL_TAR, check_sorted_labels, count_notes
from alexnet.tools.convert.listing import Listing, Source, sizes_of
from alexnet.tools.convert.sources.class_folders import (
    class_folders,
    read_flat,
    read_train,
    read_val,
    refuse_linked,
    refuse_packed,
)
from alexnet.tools.convert.sources.first_bytes import spread
from alexnet.tools.convert.sources.folders import contents
from alexnet.tools.convert.sources.layout import Layout, Walk
from alexnet.tools.convert.sources.names import WNID, split_names
from alexnet.tools.convert.sources.official import read_val_tar
from alexnet.tools.convert.sources.splits import (
    SplitFolders,
    chosen_splits,
    find_splits,
    holds_images,
    refuse_what_is_no_class,
)
from alexnet.tools.convert.sources.tables import (
    ANNOTATIONS,
    SOLUTION,
    ValLabels,
    annotation_labels,
    class_records,
    devkit_files,
    find_devkit,
    kaggle_labels,
    read_devkit,
    read_words,
    word_files,
)

KAGGLE = Path("ILSVRC/Data/CLS-LOC")
_FOLDERS, _TREE, _FROM_KAGGLE = "image-folder", "ilsvrc2012-tree", "ilsvrc2012-kaggle"
_TITLES = {_FOLDERS: "image folder", _TREE: "extracted ILSVRC tree", _FROM_KAGGLE: "Kaggle's ILSVRC"}
_VAL_IMAGE = re.compile(r"ILSVRC2012_val_\d{8}\.")
_IMAGES = "images"  # the folder of a class, and of val, that tiny-imagenet-200 keeps them in

ValForm = Literal["class folders", "flat", "archive", "none"]


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Say where a tree's parts are: folders of images, and in `tables` what labels and names them."""

    root: Path
    base: Path
    splits: SplitFolders
    tables: Path
    kind: str
    said: str = ""

    @property
    def val(self) -> Path:
        """Return the folder of validation images, which need not be there."""
        return self.splits.val[0] if self.splits.val else self.base / "val"

    @property
    def annotations(self) -> Path:
        """Return tiny-imagenet's table of validation labels, which need not be there."""
        return self.val / ANNOTATIONS

    def official(self) -> list[Path]:
        """Return what lies beside the folders that is ImageNet's own: tables, the validation archive, the devkit."""
        kit, tables = find_devkit(self.tables), (self.tables / SOLUTION, self.tables / VAL_TAR, self.annotations)
        return [path for path in tables if path.is_file()] + list(devkit_files(kit) if kit else ())

    def layout(self) -> Layout:
        """Return what the list of this tree depends on, and how it is made."""
        files = word_files(self.tables)
        if self.kind != _FOLDERS:
            files += self.official()
        return Layout(
            kind=f"{self.kind} {self.said}".strip(),
            root=self.root,
            files=tuple(files),
            trees=(*self.splits.train, *self.splits.val),
            read=partial(_read, self),
        )


def find_imagenet(root: Path) -> Layout | None:
    """Recognise a tree by folders of training images with sub-folders that are all called by WNIDs.

    Kaggle's lies deeper, whether `root` is what holds `ILSVRC` or `ILSVRC` itself, with its tables beside `ILSVRC`.
    """
    for base, tables, kind in (
        (root / KAGGLE, root, _FROM_KAGGLE),
        (root / KAGGLE.relative_to("ILSVRC"), root.parent, _FROM_KAGGLE),
        (root, root, _TREE),
    ):
        splits = find_splits(base) if base.is_dir() else None
        if splits is not None:
            tree = Tree(root=root, base=base, splits=splits, tables=tables, kind=kind)
            if _is_imagenet(tree):
                return tree.layout()
    return None


def _is_imagenet(tree: Tree) -> bool:
    """Say whether all classes are called by WNIDs. Raises InputError if they are but for one that lies astray."""
    classes = tree.splits.classes()
    stray = [name for name in classes if not WNID.fullmatch(name)]
    if stray and len(stray) < len(classes) and (tree.official() or _has_official_val(tree.val)):
        raise InputError(
            f"{tree.splits.train[0]}: {stray[0]} is no class of ImageNet, where the other {len(classes) - len(stray):,}"
            " folders are called by WNIDs; move it away"
        )
    return not stray


def _has_official_val(val: Path) -> bool:
    return val.is_dir() and any(map(_VAL_IMAGE.match, contents(val).files))


def find_folders(root: Path) -> Layout | None:
    """Recognise class folders by images in some of them."""
    for name, word in split_names(contents(root).folders).items():
        if word == "train":
            refuse_packed(root / name)
    splits = find_splits(root) or SplitFolders(train=(root,))
    if not any(holds_images(folder / name) for folder in splits.train for name in spread(contents(folder).folders)):
        return None
    for folder in splits.train:
        refuse_what_is_no_class(folder, splits.command(root))
    return _image_folder(root, splits).layout()


def chosen(root: Path, train: Sequence[str], val: Sequence[str]) -> Layout:
    """Take the folders that the user names, as paths from `root`, for those that hold the class folders."""
    return _image_folder(root, chosen_splits(root, train, val), f"{tuple(train)} {tuple(val)}").layout()


def _image_folder(root: Path, splits: SplitFolders, said: str = "") -> Tree:
    return Tree(root=root, base=root, splits=splits, tables=root, kind=_FOLDERS, said=said)


def _read(tree: Tree, walk: Walk) -> Source:
    is_imagenet = tree.kind != _FOLDERS
    form, labels = (_val_form(tree), _labels(tree)) if is_imagenet else (_val_of_folders(tree), None)
    if labels is None and form in ("flat", "archive"):
        where = tree.val if form == "flat" else VAL_TAR
        raise InputError(
            f"{tree.root}: the images of {where} have no labels; put {DEVKIT_TAR} or {SOLUTION} into {tree.tables}, "
            "or sort them into class folders"
        )
    classes = _classes(tree, form, labels)
    label_of = {record.wnid: label for label, record in enumerate(classes)}
    is_tiny = is_imagenet and _is_tiny(tree)
    train_folders = class_folders(tree.splits.train, label_of, _IMAGES if is_tiny else "")
    val_folders = class_folders(tree.splits.val if form == "class folders" else (), label_of)
    refuse_linked([*train_folders, *val_folders])
    train = read_train(tree.root, train_folders, walk)
    if labels is not None and form == "archive":
        val = read_val_tar(tree.tables, labels, walk)
    elif labels is not None and form == "flat":
        inner = _IMAGES if tree.annotations.is_file() else ""
        val = read_flat(tree.root, tree.val / inner, labels, walk)
    else:
        val = read_val(tree.root, val_folders, walk)
        check_sorted_labels(tree.val, tuple(label_of), val)
    members: dict[Split, Listing] = {"train": train, "val": val}
    title, of_what = "tiny-imagenet-200" if is_tiny else _TITLES[tree.kind], "WNID" if is_imagenet else "folder's name"
    notes = _notes(tree, form, labels, val) if is_imagenet else _folder_notes(tree)
    return Source(
        root=tree.root,
        kind=tree.kind,
        classes=classes,
        members=members,
        label_order=f"place of the {of_what} in sorted order",
        description=f"{title}, {len(classes):,} classes, {sizes_of(members)} files",
        notes=(*notes, *count_notes(tuple(label_of), train, val)),
        ignored=walk.ignored + tree.splits.ignored(),
    )


def _val_form(tree: Tree) -> ValForm:
    found = contents(tree.val) if tree.val.is_dir() else None
    if found is None or not (found.folders or found.files):
        return "archive" if (tree.tables / VAL_TAR).is_file() else "none"
    if tree.annotations.is_file() and _IMAGES in found.folders:
        if len(found.folders) > 1:
            raise InputError(
                f"{tree.val}: holds class folders beside {_IMAGES}: sorting them was interrupted; finish it, and "
                f"delete {_IMAGES}, or unpack the archive again"
            )
        return "flat"
    loose = sum(1 for name in found.files if _VAL_IMAGE.match(name))
    if found.folders and loose:
        raise InputError(
            f"{tree.val}: holds {len(found.folders):,} class folders and {loose:,} loose images; sorting them into "
            "folders was interrupted; finish it, or extract the archive again"
        )
    return "class folders" if found.folders else "flat"


def _val_of_folders(tree: Tree) -> ValForm:
    train, val = tree.splits.train, tree.splits.val
    for folder in val:
        if not contents(folder).folders:
            raise InputError(f"{folder}: its images have no labels; sort them into class folders as in {train[0]}")
    return "class folders" if val else "none"


def _labels(tree: Tree) -> ValLabels | None:
    """Read what labels validation images: tiny-imagenet's table, the devkit or, where there is none, Kaggle's table."""
    kit, solution = find_devkit(tree.tables), tree.tables / SOLUTION
    if tree.annotations.is_file():
        return annotation_labels(tree.annotations, read_words(tree.tables))
    if kit:
        return read_devkit(kit)
    return kaggle_labels(solution, read_words(tree.tables)) if solution.is_file() else None


def _classes(tree: Tree, form: ValForm, labels: ValLabels | None) -> tuple[ClassRecord, ...]:
    """Return the classes: those of the training folders or, for images labelled by a table, all of the table's.

    A user who kept 100 class folders wants 100 classes; a flat set, though, has images of every class of its table.
    """
    folders = tree.splits.classes()
    if labels is None:
        return class_records(folders, read_words(tree.tables))
    words = {record.wnid: record.words for record in labels.classes}
    if form not in ("flat", "archive"):
        return class_records(folders, words)
    unknown = sorted(set(folders) - set(words))
    if unknown:
        raise InputError(
            f"{tree.splits.train[0]}: {unknown[0]} is no class of {labels.where.name}; the two must belong "
            "together; move the folder away"
        )
    return labels.classes


def _is_tiny(tree: Tree) -> bool:
    """Recognise tiny-imagenet-200 by `nXXXXXXXX_boxes.txt` beside a folder `images` in a class folder."""
    first = tree.splits.train[0] / contents(tree.splits.train[0]).folders[0]
    return (first / _IMAGES).is_dir() and (first / f"{first.name}_boxes.txt").is_file()


def _notes(tree: Tree, form: ValForm, labels: ValLabels | None, val: Listing) -> list[str]:
    notes = tree.splits.notes()
    if form == "none":
        notes.append(f"no validation images: {tree.val} is not there or empty")
    if form == "archive":
        notes.append(f"validation images are read from {VAL_TAR}")
    if labels is not None and form == "flat" and len(val) != len(labels.wnids):
        notes.append(f"{labels.where.name} labels {len(labels.wnids):,} images, {len(val):,} are in {tree.val}")
    folders = len(tree.splits.classes())
    if labels is not None and folders < len(labels.classes):
        notes.append(f"{labels.where.name} has {len(labels.classes):,} classes, {folders:,} have a training folder")
    return notes


def _folder_notes(tree: Tree) -> list[str]:
    """Say why there are no validation images, and which classes are called like splits or hold folders of their own."""
    classes = [folder / name for folder in tree.splits.train for name in spread(contents(folder).folders)]
    deep = [path for path in classes if len(contents(path).folders) > 1 and not holds_images(path, depth=0)]
    notes = ([] if tree.splits.val else _without_val(tree.root, tree.splits.train)) + tree.splits.notes()
    if deep:
        below = ", ".join(contents(deep[0]).folders[:3])
        notes.append(f"each class is taken with all folders below it: {deep[0].name} with {below}")
    return notes


def _without_val(root: Path, train: tuple[Path, ...]) -> list[str]:
    none = "no validation images:"
    if root not in train:
        return [f"{none} there is no folder val with class folders beside {train[0].name} in {root}"]
    beside = split_names(contents(root.parent).folders) if split_names([root.name]) else {}
    val = [name for name, word in beside.items() if word != "train" and contents(root.parent / name).folders]
    if val:
        return [f"{none} give {root.parent} to have those of {val[0]}, too"]
    taken = split_names(contents(root).folders)
    called = [f"taken for classes: {', '.join(taken)}"] if taken else []
    return [f"{none} there is no folder val beside a folder train in {root}", *called]
