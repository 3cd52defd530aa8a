"""Any folder of images: one sub-folder a class, perhaps below `train` and `val`."""

from functools import partial
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Split
from alexnet.tools.convert.known import count_notes
from alexnet.tools.convert.listing import Listing, Source, sizes_of
from alexnet.tools.convert.sources.class_folders import read_train_folders, read_val_folders, refuse_packed
from alexnet.tools.convert.sources.folders import Contents, contents
from alexnet.tools.convert.sources.labels import WORD_FILES, class_records, printed, read_words
from alexnet.tools.convert.sources.layout import Layout
from alexnet.tools.convert.sources.sniff import is_image, spread
from alexnet.tools.convert.sources.walk import Walk

VAL_NAMES = ("val", "valid", "validation", "test")
_FILES_A_CLASS = 3


def find(root: Path) -> Layout | None:
    """Recognise class folders by images in some of them."""
    inside = contents(root)
    train, val = root, None
    if "train" in inside.folders:
        refuse_packed(root / "train")
    if "train" in inside.folders and contents(root / "train").folders:
        train = root / "train"
        val = _val_folder(root, inside)
    classes = contents(train).folders
    if not any(_holds_images(train / name) for name in spread(classes)):
        return None
    if len(classes) == 1 and not contents(train / classes[0]).files:
        raise InputError(
            f"{train}: holds one folder, {printed(classes[0])}, with folders in it; its classes may be further down: "
            f"give the folder that holds one sub-folder a class, such as {train / classes[0]}"
        )
    files = tuple(root / name for name in WORD_FILES if (root / name).is_file())
    trees = tuple(folder for folder in (train, val) if folder is not None)
    return Layout(kind="image-folder", root=root, files=files, trees=trees, read=partial(_read, root, train, val))


def _val_folder(root: Path, inside: Contents) -> Path | None:
    """Choose the folder of validation images; one called `test` only if it has labels, which test sets often lack."""
    names = [name for name in VAL_NAMES if name in inside.folders]
    return next((root / name for name in names if name != "test" or contents(root / name).folders), None)


def _holds_images(folder: Path, depth: int = 3) -> bool:
    """Look at the first files of a folder, or of its first sub-folder that has any."""
    inside = contents(folder)
    for name in inside.files[:_FILES_A_CLASS]:
        try:
            with (folder / name).open("rb") as file:
                if is_image(file):
                    return True
        except PermissionError:
            return True  # to be listed, and so rejected by name, rather than stop all others
    return depth > 0 and any(_holds_images(folder / name, depth - 1) for name in inside.folders[:_FILES_A_CLASS])


def _read(root: Path, train_folder: Path, val_folder: Path | None, walk: Walk) -> Source:
    classes = class_records(contents(train_folder).folders, read_words(root))
    label_of = {record.wnid: label for label, record in enumerate(classes)}
    train, ignored = read_train_folders(root, train_folder, label_of, walk)
    val, more = Listing.of(()), 0
    if val_folder is not None:
        if not contents(val_folder).folders:
            raise InputError(
                f"{val_folder}: its images have no labels; sort them into class folders as in {train_folder}"
            )
        val, more = read_val_folders(root, val_folder, label_of, walk)
    members: dict[Split, Listing] = {"train": train, "val": val}
    return Source(
        root=root,
        kind="image-folder",
        classes=classes,
        members=members,
        label_order="place of the folder's name in sorted order",
        description=f"image folder, {len(classes):,} classes, {sizes_of(members)} files",
        notes=(*_notes(root, train_folder, val_folder), *count_notes(tuple(label_of), train, val)),
        ignored=ignored + more,
    )


def _notes(root: Path, train: Path, val: Path | None) -> list[str]:
    if val is not None:
        return [f"validation images are read from {val.name}"]
    beside = next((root.parent / name for name in VAL_NAMES if (root.parent / name).is_dir()), None)
    if train == root and root.name == "train" and beside is not None:
        return [f"no validation images: give {root.parent} to have those of {beside.name}, too"]
    folders = contents(root).folders
    others = [name for name in folders if name != train.name] if train != root else []
    unread = f"; not read: {', '.join(others[:5])}" if others else ""
    notes = [f"no validation images: there is no folder val beside a folder train in {root}{unread}"]
    taken = [name for name in folders if name in ("train", *VAL_NAMES)] if train == root else []
    return [*notes, f"taken for classes: {', '.join(taken)}"] if taken else notes
