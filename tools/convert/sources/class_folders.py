"""List images in folders: one folder a class, in the order that every layout has, or all in one with a table."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.tools.convert.listing import Listing, Rows, in_name_order
from alexnet.tools.convert.sources.folders import contents, list_folder
from alexnet.tools.convert.sources.layout import Stage, Walk
from alexnet.tools.convert.sources.names import WNID, printed
from alexnet.tools.convert.sources.tables import ValLabels

ClassFolders = list[tuple[int, Path]]
"""Label and path of folders with images of one class, sorted."""


def class_folders(parents: Iterable[Path], label_of: Mapping[str, int], below: str = "") -> ClassFolders:
    """Return the class folders of some folders by label; `below` is a folder in each that holds the images.

    Raises InputError if a folder is called like no class, or a class is still packed.
    """
    found = []
    for parent in parents:
        refuse_packed(parent)
        for name in contents(parent).folders:
            if printed(name) not in label_of:
                raise InputError(
                    f"{parent}: {printed(name)} is none of the {len(label_of):,} classes; move it away, or add "
                    "the class"
                )
            found.append((label_of[printed(name)], parent / name / below))
    return sorted(found)


def refuse_packed(folder: Path) -> None:
    """Refuse a training folder that lacks classes because their tars were not unpacked, or not all of them."""
    found = contents(folder)
    tars = (name for name in found.files if name.endswith(".tar") and WNID.fullmatch(name[:-4]))
    packed = [name for name in tars if name[:-4] not in found.folders]
    if packed:
        or_as_it_is = "" if found.folders else f", or give {folder} itself, as class tars are read where they are"
        raise InputError(
            f"{folder}: class tars are not unpacked, {packed[0]} the first of {len(packed):,}; unpack each into a "
            f"folder of its name{or_as_it_is}"
        )


def refuse_linked(folders: ClassFolders) -> None:
    """Refuse a folder that is there twice, by a link: as two classes, or for training and validation."""
    seen: dict[tuple[int, int], Path] = {}
    for _, path in folders:
        state = path.stat()
        other = seen.setdefault((state.st_dev, state.st_ino), path)
        if other != path:
            raise InputError(f"{path}: is {other}, by a link, and would be read twice; delete the link")


def read_train(root: Path, folders: ClassFolders, walk: Walk) -> Listing:
    """List class folders by label, then name. Raises InputError if there is no image."""
    train = Listing.of(_files(root, folders, walk, "train"), in_folders=True)
    if not len(train):
        raise InputError(f"{folders[0][1].parent}: its class folders hold no files; give a folder with images")
    return train


def read_val(root: Path, folders: ClassFolders, walk: Walk) -> Listing:
    """List the class folders of a validation set in the order of file names, as if they lay in one folder."""
    return in_name_order(_files(root, folders, walk, "val") if folders else (), in_folders=True)


def _files(root: Path, folders: ClassFolders, walk: Walk, stage: Stage) -> Iterator[Rows]:
    """Yield the files of each class folder."""
    walk.begin(stage, "folders", len(folders))
    for label, path in folders:
        entries, ignored = list_folder(path, lambda found: walk.advance(0, found))
        walk.ignored += ignored
        walk.advance(1)
        yield label, _relative(root, path), entries


def read_flat(root: Path, folder: Path, labels: ValLabels, walk: Walk) -> Listing:
    """List a folder of validation images in the order of file names, labelled by a table."""
    walk.begin("val", "files")
    entries, ignored = list_folder(folder, lambda found: walk.advance(found, found))
    walk.ignored += ignored
    rows: list[Rows] = []
    seen: dict[str, str] = {}
    for entry in entries:
        name = os.fsdecode(entry[0])
        rows.append((labels.label_of(folder, name), _relative(root, folder), [entry]))
        other = seen.setdefault(name.split(".")[0], name)
        if other != name:
            raise InputError(f"{folder}: {other} and {name} are one image by their names; move one away")
    return in_name_order(rows, in_folders=True)


def _relative(root: Path, folder: Path) -> str:
    return "" if folder == root else folder.relative_to(root).as_posix()
