"""Images in folders: one folder a class for training, and validation images in class folders or all in one."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.tools.convert.listing import Entry, Listing, ListingBuilder
from alexnet.tools.convert.sources.folders import contents, list_folder
from alexnet.tools.convert.sources.labels import ValLabels, printed
from alexnet.tools.convert.sources.walk import Stage, Walk

_CLASS_TAR = re.compile(r"n\d{8}\.tar")


def refuse_packed(folder: Path) -> None:
    """Refuse a training folder that lacks classes because their tars were not unpacked, or not all of them."""
    found = contents(folder)
    packed = [name for name in found.files if _CLASS_TAR.fullmatch(name) and name[:-4] not in found.folders]
    if packed:
        or_as_it_is = "" if found.folders else f", or give {folder} itself, as class tars are read where they are"
        raise InputError(
            f"{folder}: class tars are not unpacked, {packed[0]} the first of {len(packed):,}; unpack each into a "
            f"folder of its name{or_as_it_is}"
        )


@dataclass(frozen=True, kw_only=True)
class ClassFolder:
    """Name a folder with images of one class."""

    label: int
    path: Path


def class_folders(parents: Iterable[Path], label_of: Mapping[str, int], below: str = "") -> list[ClassFolder]:
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
            found.append(ClassFolder(label=label_of[printed(name)], path=parent / name / below))
    return sorted(found, key=lambda folder: (folder.label, folder.path))


def refuse_linked(folders: Iterable[ClassFolder]) -> None:
    """Refuse a folder that is there twice, by a link: as two classes, or for training and validation."""
    seen: dict[tuple[int, int], Path] = {}
    for folder in folders:
        state = folder.path.stat()
        other = seen.setdefault((state.st_dev, state.st_ino), folder.path)
        if other != folder.path:
            raise InputError(f"{folder.path}: is {other}, by a link, and would be read twice; delete the link")


def read_train_folders(root: Path, folders: Sequence[ClassFolder], walk: Walk) -> tuple[Listing, int]:
    """List class folders by label, then name; and count what is ignored. Raises InputError if there is no image."""
    builder = ListingBuilder(in_folders=True)
    ignored = 0
    for label, container, entries, more in _files(root, folders, walk, "train"):
        builder.add(container, label, entries)
        ignored += more
    train = builder.finish()
    if not len(train):
        raise InputError(f"{folders[0].path.parent}: its class folders hold no files; give a folder with images")
    return train, ignored


def read_val_folders(root: Path, folders: Sequence[ClassFolder], walk: Walk) -> tuple[Listing, int]:
    """List the class folders of a validation set in the order of file names, as if they lay in one folder."""
    rows: list[tuple[Entry, int, str]] = []
    ignored = 0
    for label, container, entries, more in _files(root, folders, walk, "val"):
        rows += [(entry, label, container) for entry in entries]
        ignored += more
    return _in_order(rows), ignored


def read_flat_folder(
    root: Path, folder: Path, labels: ValLabels, label_of: Mapping[str, int], walk: Walk
) -> tuple[Listing, int]:
    """List a folder of validation images in the order of file names, labelled by a table."""
    walk.begin("val", "files")
    entries, ignored = list_folder(folder, lambda found: walk.advance(found, found))
    container = _relative(root, folder)
    rows = []
    seen: dict[str, str] = {}
    for entry in entries:
        name = os.fsdecode(entry[0])
        wnid, stem = labels.wnid_of(folder, name), name.split(".")[0]
        if seen.setdefault(stem, name) != name:
            raise InputError(f"{folder}: {seen[stem]} and {name} are one image by their names; move one away")
        rows.append((entry, label_of[wnid], container))
    return _in_order(rows), ignored


def _files(
    root: Path, folders: Sequence[ClassFolder], walk: Walk, stage: Stage
) -> Iterator[tuple[int, str, list[Entry], int]]:
    """Yield label, path from the root, files and ignored of each class folder."""
    walk.begin(stage, "folders", len(folders))
    for folder in folders:
        entries, ignored = list_folder(folder.path, lambda found: walk.advance(0, found))
        walk.advance(1)
        yield folder.label, _relative(root, folder.path), entries, ignored


def _in_order(rows: list[tuple[Entry, int, str]]) -> Listing:
    builder = ListingBuilder(in_folders=True)
    for entry, label, container in sorted(rows):
        builder.add(container, label, [entry])
    return builder.finish()


def _relative(root: Path, folder: Path) -> str:
    relative = folder.relative_to(root).as_posix()
    return "" if relative == "." else relative
