"""Any folder of images: one sub-folder a class, perhaps below folders for training and validation."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Split
from alexnet.tools.convert.known import count_notes
from alexnet.tools.convert.listing import Listing, Source, sizes_of
from alexnet.tools.convert.sources.class_folders import (
    class_folders,
    read_train_folders,
    read_val_folders,
    refuse_linked,
    refuse_packed,
)
from alexnet.tools.convert.sources.folders import contents
from alexnet.tools.convert.sources.labels import WORD_FILES, class_records, read_words
from alexnet.tools.convert.sources.layout import Layout
from alexnet.tools.convert.sources.sniff import spread
from alexnet.tools.convert.sources.split_folders import SplitFolders, find_splits, holds_images, refuse_what_is_no_class
from alexnet.tools.convert.sources.split_names import split_names
from alexnet.tools.convert.sources.walk import Walk


def find(root: Path) -> Layout | None:
    """Recognise class folders by images in some of them."""
    for name, word in split_names(contents(root).folders).items():
        if word == "train":
            refuse_packed(root / name)
    splits = find_splits(root) or SplitFolders(train=(root,))
    if not any(holds_images(folder / name) for folder in splits.train for name in spread(contents(folder).folders)):
        return None
    for folder in splits.train:
        refuse_what_is_no_class(folder, splits.command(root))
    return _layout(root, splits)


def chosen(root: Path, train: Sequence[str], val: Sequence[str]) -> Layout:
    """Take the folders that the user names, as paths from `root`, for those that hold the class folders.

    Raises InputError for one that is not below `root`, has no class folders or is named twice.
    """
    options = [("--train", name) for name in train] + [("--val", name) for name in val]
    if not train:
        raise InputError(f"--val {val[0]}: say where the training images are, too, such as --train train")
    folders = [root / name for _, name in options]
    for (option, name), folder in zip(options, folders, strict=True):
        if not folder.is_dir():
            raise InputError(f"{option} {name}: there is no folder {folder}; give it as a path from {root}")
        if not folder.resolve().is_relative_to(root.resolve()):
            raise InputError(f"{option} {name}: lies outside of {root}; give a SOURCE that holds all folders")
        if not contents(folder).folders:
            raise InputError(f"{option} {name}: holds no class folders; sort its images into one folder a class")
        inside = [
            other for other in folders if other is not folder and other.resolve().is_relative_to(folder.resolve())
        ]
        if inside:
            raise InputError(f"{option} {name}: {inside[0]} lies inside it and would be read twice; give folders apart")
    folders = [root / folder.resolve().relative_to(root.resolve()) for folder in folders]
    at = len(train)
    return _layout(root, SplitFolders(train=tuple(folders[:at]), val=tuple(folders[at:])), " ".join(map(str, options)))


def _layout(root: Path, splits: SplitFolders, said: str = "") -> Layout:
    files = tuple(root / name for name in WORD_FILES if (root / name).is_file())
    trees = (*splits.train, *splits.val)
    kind = f"image-folder {said}".strip()
    return Layout(kind=kind, root=root, files=files, trees=trees, read=partial(_read, root, splits))


def _read(root: Path, splits: SplitFolders, walk: Walk) -> Source:
    names = {name for folder in splits.train for name in contents(folder).folders}
    classes = class_records(names, read_words(root))
    label_of = {record.wnid: label for label, record in enumerate(classes)}
    for folder in splits.val:
        if not contents(folder).folders:
            raise InputError(
                f"{folder}: its images have no labels; sort them into class folders as in {splits.train[0]}"
            )
    train_folders, val_folders = (class_folders(folders, label_of) for folders in (splits.train, splits.val))
    refuse_linked([*train_folders, *val_folders])
    train, ignored = read_train_folders(root, train_folders, walk)
    val, more = read_val_folders(root, val_folders, walk)
    members: dict[Split, Listing] = {"train": train, "val": val}
    return Source(
        root=root,
        kind="image-folder",
        classes=classes,
        members=members,
        label_order="place of the folder's name in sorted order",
        description=f"image folder, {len(classes):,} classes, {sizes_of(members)} files",
        notes=(*_notes(root, splits), *splits.notes(), *_deep_notes(splits), *count_notes(tuple(label_of), train, val)),
        ignored=ignored + more + splits.ignored(),
    )


def _notes(root: Path, splits: SplitFolders) -> list[str]:
    """Say why there are no validation images, and which classes are called like splits."""
    if splits.val:
        return []
    if root not in splits.train:
        return [
            f"no validation images: there is no folder val with class folders beside {splits.train[0].name} in {root}"
        ]
    beside = split_names(contents(root.parent).folders) if root.name in split_names([root.name]) else {}
    val = [name for name, word in beside.items() if word != "train" and contents(root.parent / name).folders]
    if val:
        return [f"no validation images: give {root.parent} to have those of {val[0]}, too"]
    notes = [f"no validation images: there is no folder val beside a folder train in {root}"]
    taken = split_names(contents(root).folders)
    return [*notes, f"taken for classes: {', '.join(taken)}"] if taken else notes


def _deep_notes(splits: SplitFolders) -> list[str]:
    """Say where classes hold all their images in several folders of their own, which might be the classes."""
    folders = [folder / name for folder in splits.train for name in spread(contents(folder).folders)]
    deep = [path for path in folders if len(contents(path).folders) > 1 and not holds_images(path, depth=0)]
    below = ", ".join(contents(deep[0]).folders[:3]) if deep else ""
    return [f"each class is taken with all folders below it: {deep[0].name} with {below}"] if deep else []
