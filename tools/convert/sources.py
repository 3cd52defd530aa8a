"""Find every image of a source without extracting or decoding anything.

A source is a list of members: byte ranges in files. The official archives are read as they were downloaded; a class
tar inside the training tar is just a range of it, and an image inside that is a range again, so that any worker can
read any image with one seek.
"""

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from alexnet.shards.errors import InputError
from alexnet.tools.convert.devkit import Devkit, read_devkit
from alexnet.tools.convert.listing import Member, Source

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
DEVKIT_TAR = "ILSVRC2012_devkit_t12.tar.gz"
_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.")
_END_MARK = bytes(512)


def open_source(root: Path) -> Source:
    """Index a folder of the official ILSVRC-2012 files. Raises InputError that says what is missing or damaged."""
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "there is no such folder"
        raise InputError(f"{root}: {what}; give the folder that holds {TRAIN_TAR}, {VAL_TAR} and {DEVKIT_TAR}")
    missing = [name for name in (TRAIN_TAR, VAL_TAR, DEVKIT_TAR) if not (root / name).is_file()]
    if missing:
        raise InputError(f"{root}: lacks {', '.join(missing)}; put the files there under their official names")
    devkit = read_devkit(root / DEVKIT_TAR)
    return Source(
        root=root,
        kind="ilsvrc2012-archives",
        classes=devkit.classes,
        members={"train": _train_members(root, devkit), "val": _val_members(root, devkit)},
    )


def _train_members(root: Path, devkit: Devkit) -> tuple[Member, ...]:
    path = root / TRAIN_TAR
    labels = {record.wnid: label for label, record in enumerate(devkit.classes)}
    members: list[Member] = []
    with path.open("rb") as file:
        for class_tar in _entries(path, file, TRAIN_TAR):
            wnid = PurePosixPath(class_tar.name).stem
            if wnid not in labels:
                raise InputError(
                    f"{path}: {class_tar.name} is no class tar of this devkit ({len(labels)} classes); "
                    "the archive and the devkit must belong together"
                )
            inside = cast(IO[bytes], _Range(file, class_tar.offset_data, class_tar.size))
            for image in _entries(path, inside, class_tar.name):
                at = class_tar.offset_data + image.offset_data
                members.append(Member(TRAIN_TAR, image.name, at, image.size, labels[wnid]))
    if not members:
        raise InputError(f"{path}: holds no class tar with images; download it again")
    return tuple(sorted(members, key=lambda m: (m.label, m.name)))


def _val_members(root: Path, devkit: Devkit) -> tuple[Member, ...]:
    path = root / VAL_TAR
    members: list[Member] = []
    with path.open("rb") as file:
        for image in _entries(path, file, VAL_TAR):
            match = _VAL_NAME.match(PurePosixPath(image.name).name)
            line = int(match.group(1)) if match else 0
            if not 1 <= line <= len(devkit.val_labels):
                raise InputError(
                    f"{path}: {image.name} has no label: the devkit labels ILSVRC2012_val_00000001 to "
                    f"{len(devkit.val_labels):08d}; the archive and the devkit must belong together"
                )
            label = devkit.val_labels[line - 1]
            members.append(Member(VAL_TAR, image.name, image.offset_data, image.size, label))
    if len(members) != len(devkit.val_labels):
        raise InputError(
            f"{path}: holds {len(members):,} images where the devkit has {len(devkit.val_labels):,} labels; "
            "download it again"
        )
    return tuple(sorted(members, key=lambda m: m.name))


def _entries(path: Path, file: IO[bytes], name: str) -> Iterator[tarfile.TarInfo]:
    """Walk the regular files of a tar; links, devices and folders are passed over. Headers only are read."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isreg():
                    yield member
            # tarfile takes an archive that was cut at a header's edge for a whole one: the end mark tells.
            file.seek(tar.offset)
            whole = file.read(len(_END_MARK)) == _END_MARK
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{path}: {name} cannot be read as a tar ({error}); download it again") from None
    if not whole:
        raise InputError(f"{path}: {name} was cut short (no end mark at byte {tar.offset:,}); download it again")


class _Range(io.RawIOBase):
    """Show one byte range of an open file as a file: what `tarfile` needs to walk a tar inside a tar."""

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self._file, self._start, self._length, self._at = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._length)[whence]
        return self._at

    def read(self, count: int = -1) -> bytes:
        left = max(0, self._length - self._at)
        count = left if count < 0 else min(count, left)
        self._file.seek(self._start + self._at)
        data = self._file.read(count)
        self._at += len(data)
        return data
