"""A folder of class tars, one tar a class, as ImageNet-21k is distributed: 14 million images in 21,841 of them.

A tar that holds class tars itself, as ImageNet-21k's one big download does, is read in place, too.
"""

import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Split
from alexnet.tools.convert.known import TRAIN_TAR, VAL_TAR, count_notes
from alexnet.tools.convert.listing import Listing, ListingBuilder, Source, sizes_of
from alexnet.tools.convert.sources.folders import contents, is_junk
from alexnet.tools.convert.sources.labels import WORD_FILES, class_records, printed, read_words
from alexnet.tools.convert.sources.layout import Layout
from alexnet.tools.convert.sources.sniff import is_image, spread
from alexnet.tools.convert.sources.tars import list_tar
from alexnet.tools.convert.sources.walk import Walk

_SIDECARS = {".cls", ".json", ".txt"}
_FIRST_MEMBERS = 8
_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True, kw_only=True)
class ClassTar:
    """Say where a class tar lies: in which file, from which byte, and how long it is."""

    name: str
    file: str
    start: int
    length: int


def find(root: Path) -> Layout | None:
    """Recognise class tars by images, or tars, at the beginning of some of them."""
    inside = contents(root)
    names = [name for name in inside.files if name.endswith(".tar") and name not in (TRAIN_TAR, VAL_TAR)]
    if not names or not any(_holds_images(root / name) for name in spread(names)):
        return None
    unpacked = [name for name in inside.folders if _WNID.fullmatch(name) and f"{name}.tar" not in names]
    if unpacked:
        raise InputError(
            f"{root}: holds class tars, and folders of other classes, {unpacked[0]} the first of {len(unpacked):,}; "
            "unpack the tars into such folders, too, or move the folders away"
        )
    words = tuple(root / name for name in WORD_FILES if (root / name).is_file())
    files = (*(root / name for name in names), *words)
    return Layout(kind="class-tars", root=root, files=files, read=partial(_read, root, names))


def _holds_images(path: Path) -> bool:
    """Look at a tar's first members. Raises InputError if they are a WebDataset shard's."""
    with path.open("rb") as file:
        try:
            members = _first_members(file)
        except (tarfile.TarError, OSError, EOFError):
            return True  # to be listed, and so named as damaged, rather than passed over
        if any(PurePosixPath(member.name).suffix in _SIDECARS for member in members):
            raise InputError(f"{path}: is a WebDataset shard, with labels beside its images, and no class tar")
        for member in members:
            file.seek(member.offset_data)
            if member.name.endswith(".tar") or is_image(file):
                return True
    return False


def _first_members(file: IO[bytes]) -> list[tarfile.TarInfo]:
    """Return the first few regular files of a tar."""
    members: list[tarfile.TarInfo] = []
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while len(members) < _FIRST_MEMBERS and (member := tar.next()) is not None:
            if member.isreg() and not is_junk(PurePosixPath(member.name).name):
                members.append(member)
    return members


def _read(root: Path, names: Sequence[str], walk: Walk) -> Source:
    class_tars, ignored = _class_tars(root, names, walk)
    classes = class_records({tar.name for tar in class_tars}, read_words(root))
    label_of = {record.wnid: label for label, record in enumerate(classes)}
    builder = ListingBuilder()
    walk.begin("train", "bytes", sum(tar.length for tar in class_tars))
    for tar in sorted(class_tars, key=lambda tar: (label_of[printed(tar.name)], tar.file, tar.start)):
        path = root / tar.file
        with path.open("rb") as file:
            images = list_tar(path, file, f"{tar.name}.tar", tar.start, tar.length, walk.advance)
        builder.add(tar.file, label_of[printed(tar.name)], images.entries)
        ignored += images.ignored
    train = builder.finish()
    if not len(train):
        raise InputError(f"{root}: its class tars hold no files; give tars with images")
    members: dict[Split, Listing] = {"train": train, "val": Listing.of(())}
    return Source(
        root=root,
        kind="class-tars",
        classes=classes,
        members=members,
        label_order="place of the tar's name (the WNID) in sorted order",
        description=f"class tars, {len(classes):,} classes, {sizes_of(members)} entries",
        notes=("no validation images: class tars have none", *count_notes(tuple(label_of), train, members["val"])),
        ignored=ignored,
    )


def _class_tars(root: Path, names: Sequence[str], walk: Walk) -> tuple[list[ClassTar], int]:
    """Find the class tars: files, or members of files that hold tars; and count what is ignored."""
    found: list[ClassTar] = []
    ignored = 0
    walk.begin("class tars", "files", len(names))
    for name in names:
        path = root / name
        walk.advance(1)
        with path.open("rb") as file:
            if not _holds_tars(file):
                length = path.stat().st_size
                found.append(ClassTar(name=name.removesuffix(".tar"), file=name, start=0, length=length))
                continue
            outer = list_tar(path, file, name, on_entries=lambda _, entries: walk.advance(0, entries))
        ignored += outer.ignored
        for inner, start, length in outer.entries:
            inner_name = PurePosixPath(os.fsdecode(inner))
            if inner_name.suffix != ".tar":
                raise InputError(f"{path}: holds class tars and {inner_name}, which is none; take it out")
            found.append(ClassTar(name=inner_name.stem, file=name, start=start, length=length))
    return found, ignored


def _holds_tars(file: IO[bytes]) -> bool:
    try:
        return any(member.name.endswith(".tar") for member in _first_members(file))
    except (tarfile.TarError, OSError, EOFError):
        return False
