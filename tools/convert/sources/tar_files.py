"""Find tars of images in a folder, and tars inside tars, and refuse what would be missed beside them."""

import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from alexnet.shards.errors import InputError
from alexnet.tools.convert.known import TRAIN_TAR, VAL_TAR
from alexnet.tools.convert.sources.folders import Contents, contents
from alexnet.tools.convert.sources.labels import printed
from alexnet.tools.convert.sources.not_a_tar import HEAD_BYTES, is_compressed, what_instead, what_is
from alexnet.tools.convert.sources.sniff import is_image, spread
from alexnet.tools.convert.sources.split_folders import holds_images
from alexnet.tools.convert.sources.split_names import split_names
from alexnet.tools.convert.sources.tar_labels import WNID, ImageTar, are_parts
from alexnet.tools.convert.sources.tars import Passed, folder_names, is_junk_path, list_tar
from alexnet.tools.convert.sources.walk import Walk
from alexnet.tools.convert.tar_headers import open_tar

_SIDECARS = {".cls", ".json", ".txt"}
_FIRST_MEMBERS = 8
_DEEPEST = 32  # a tar in a folder in a tar in ...
_OTHERWISE = re.compile(r".*(\.TAR|\.Tar|\.tar\.(part|partial|crdownload|download|aria2|tmp|filepart))")
_ARCHIVES = (".zip", ".7z", ".rar")
_PACKED = re.compile(r"(.+)\.(tar\.(gz|bz2|xz|zst|lz4)|tgz|tbz2|txz)")


@dataclass(frozen=True, kw_only=True)
class FoundTars:
    """Name the tars of a folder, as paths from it, and what lies beside them and is not read."""

    root: Path
    tars: tuple[str, ...]
    beside: tuple[str, ...] = ()


def find_tars(root: Path) -> FoundTars | None:
    """Find tars in a folder or, where it has none, in its sub-folders for training and validation.

    None is returned if none of up to 32 begins with images. Raises InputError if images beside them would be missed.
    """
    inside = contents(root)
    tars = _tars_of(inside)
    below: dict[str, Contents] = {}
    if not tars:
        splits = split_names(inside.folders)
        below = {name: contents(root / name) for name in splits}
        below = {name: found for name, found in below.items() if splits[name] != "test" or _tars_of(found)}
        if any(found.folders or not _tars_of(found) for found in below.values()):
            return None
        tars = [f"{name}/{tar}" for name, found in below.items() for tar in _tars_of(found)]
    if not any(_begins_with_images(root / name) for name in spread(tars)):
        return None
    beside = [name for name in inside.folders if name not in below]
    if not below:
        beside = _unread(root, beside, tars)
    for name, found in (below or {"": inside}).items():
        beside += _compressed(root / name, found)
    return FoundTars(root=root, tars=tuple(tars), beside=tuple(beside))


def _tars_of(inside: Contents) -> list[str]:
    return [name for name in inside.files if name.endswith(".tar") and name not in (TRAIN_TAR, VAL_TAR)]


def _compressed(folder: Path, inside: Contents) -> list[str]:
    """Return the compressed tars beside others. Raises InputError if one is of their kind."""
    stems = [name.removesuffix(".tar") for name in _tars_of(inside)]
    packed = {match[1]: match[0] for match in map(_PACKED.fullmatch, inside.files) if match}
    left = [stem for stem in packed if stem not in stems]
    splits = split_names([*left, *stems])
    unfinished = [name for name in inside.files if _OTHERWISE.fullmatch(name)]
    if stems and unfinished:
        raise InputError(
            f"{folder / unfinished[0]}: looks like a tar under another name, or one not downloaded to the end, "
            f"and its images would be missed beside {len(stems):,} tars; finish it, call it .tar, or move it away"
        )
    for stem in left:
        if WNID.fullmatch(stem) or splits.get(stem, "test") != "test" or are_parts([stem, *stems]):
            path = folder / packed[stem]
            said = what_is(path) or "cannot be read; unpack it"
            raise InputError(f"{path}: {said}; there are {len(stems):,} tars beside it, and its images would be missed")
    return [*(packed[stem] for stem in left), *(name for name in inside.files if name.endswith(_ARCHIVES))]


def _unread(root: Path, folders: Sequence[str], tars: Sequence[str]) -> list[str]:
    """Return the folders of images beside tars. Raises InputError if they may be what is to be read."""
    folders = [name for name in folders if f"{name}.tar" not in tars]
    unpacked = [name for name in folders if WNID.fullmatch(name)]
    if unpacked:
        raise InputError(
            f"{root}: holds class tars, and folders of other classes, {unpacked[0]} the first of {len(unpacked):,}; "
            "unpack the tars into such folders, too, or move the folders away"
        )
    images = [name for name in spread(folders) if holds_images(root / name)]
    if images and not all(WNID.fullmatch(name.removesuffix(".tar")) for name in tars):
        raise InputError(
            f"{root}: holds tars, such as {printed(tars[0])}, and folders of images that are in none of them, such as "
            f"{printed(images[0])}; move the ones or the others away"
        )
    return images


def _begins_with_images(path: Path) -> bool:
    """Look at a tar's first members. Raises InputError if they are a WebDataset shard's."""
    with path.open("rb") as file:
        members = _first_members(file, 0)
        if members is None:
            return True  # to be listed, and so named as damaged, rather than passed over
        names = [PurePosixPath(member.name) for member in members]
        keys = Counter(name.parent / name.name.split(".")[0] for name in names)
        if any(name.suffix in _SIDECARS and keys[name.parent / name.name.split(".")[0]] > 1 for name in names):
            raise InputError(f"{path}: is a WebDataset shard, with labels beside its images, and no class tar")
        for member in members:
            file.seek(member.offset_data)
            if _is_tar(member.name) or is_image(file):
                return True
    return False


def _is_tar(name: str) -> bool:
    return name.endswith(".tar") or _PACKED.fullmatch(name) is not None


def _first_members(file: IO[bytes], start: int) -> list[tarfile.TarInfo] | None:
    """Return the first few regular files of a tar, or None if it cannot be read."""
    members: list[tarfile.TarInfo] = []
    file.seek(start)
    try:
        with open_tar(file) as tar:
            while len(members) < _FIRST_MEMBERS and (member := tar.next()) is not None:
                if member.isreg() and not is_junk_path(member.name):
                    members.append(member)
    except (tarfile.TarError, OSError):
        return None
    return members


def image_tars(found: FoundTars, passed: Passed, walk: Walk) -> list[ImageTar]:
    """Find the tars of images: files, or members of files that hold tars; and count what is ignored."""
    tars: list[ImageTar] = []
    walk.begin("class tars", "files", len(found.tars))
    for name in found.tars:
        path = found.root / name
        walk.advance(1)
        names = PurePosixPath(name.removesuffix(".tar")).parts
        with path.open("rb") as file:
            whole = ImageTar(names=names, file=name, start=0, length=path.stat().st_size)
            tars += _inner_tars(path, file, whole, passed, walk)
    return tars


def _inner_tars(path: Path, file: IO[bytes], tar: ImageTar, passed: Passed, walk: Walk) -> Iterator[ImageTar]:
    """Yield the tars that a tar holds, at any depth, or the tar itself if it holds none."""
    is_inner_class = tar.start and WNID.fullmatch(tar.names[-1])  # not looked at: 21,841 times eight headers
    members = None if is_inner_class else _first_members(file, tar.start)
    if not any(_is_tar(member.name) for member in members or ()):
        yield tar
        return
    if len(tar.names) > _DEEPEST:
        raise InputError(f"{path}: holds tars in tars, more than {_DEEPEST} deep; unpack it")
    name = f"{tar.names[-1]}.tar"
    entries = list_tar(path, file, name, passed, tar.start, tar.length, lambda _, found: walk.advance(0, found))
    for inner, start, length in entries:
        inner_name = PurePosixPath(inner.decode("utf-8", "surrogateescape"))
        if inner_name.suffix != ".tar":
            file.seek(start)
            head = file.read(min(length, HEAD_BYTES))
            said = what_instead(head, path, str(inner_name)) if is_compressed(head) else None
            raise InputError(
                f"{path}: {inner_name} {said}"
                if said
                else f"{path}: holds tars and {inner_name}, which is none; take it out"
            )
        names = (*tar.names, *folder_names(os.fsencode(inner_name.with_suffix(""))))
        yield from _inner_tars(
            path, file, ImageTar(names=names, file=tar.file, start=start, length=length), passed, walk
        )
