"""Find the tars of images in a folder, also inside other tars, and tell by names which class or split each one is.

A tar may be a class, a split, a numbered part of one, or all there is. What would be missed beside them is refused.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from alexnet.shards.adopted import sample_key
from alexnet.shards.errors import InputError
from alexnet.tools.convert.known import TRAIN_TAR, VAL_TAR
from alexnet.tools.convert.sources.first_bytes import (
    HEAD_BYTES,
    NO_TARS,
    PACKED_TARS,
    is_compressed,
    is_image,
    spread,
    what_instead,
    what_is,
)
from alexnet.tools.convert.sources.folders import Contents, contents
from alexnet.tools.convert.sources.layout import Walk
from alexnet.tools.convert.sources.names import (
    WNID,
    Names,
    SplitWord,
    are_parts,
    printed,
    split_names,
    split_of_paths,
)
from alexnet.tools.convert.sources.splits import holds_images
from alexnet.tools.convert.sources.tars import Tar, first_members, folder_names, list_tar

_SIDECARS = (".cls", ".json", ".txt")
_FIRST_MEMBERS = 8
_DEEPEST = 32  # a tar in a folder in a tar in ...
_OTHERWISE = re.compile(r".*(\.TAR|\.Tar|\.tar\.(part|partial|crdownload|download|aria2|tmp|filepart))")
_TARS = (".tar", *PACKED_TARS)
_PACKED = re.compile(rf"(.+)({'|'.join(map(re.escape, PACKED_TARS))})")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTar(Tar):
    """Say where a tar of images lies, by which names one comes there from the source's folder, and what they say.

    `file`: as a path from there. `wnid`: its class, None if that is to be found in the tar. `split`: None if no name
    says one.
    """

    names: Names
    file: str
    wnid: str | None = None
    split: SplitWord | None = None


def find_tars(root: Path) -> tuple[list[str], list[str]] | None:
    """Find tars in a folder or, where it has none, in its sub-folders for training and validation.

    Returned are paths from `root`, and names of what lies beside them and is not read; None if none of up to 32 begins
    with images. Raises InputError if images beside them would be missed.
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
    if not any(_begins_with_images(Tar.of(root / name)) for name in spread(tars)):
        return None
    beside = [name for name in inside.folders if name not in below] if below else _unread(root, inside.folders, tars)
    for name, found in (below or {"": inside}).items():
        beside += _compressed(root / name, found)
    return tars, beside


def _tars_of(inside: Contents) -> list[str]:
    return [name for name in inside.files if name.endswith(".tar") and name not in (TRAIN_TAR, VAL_TAR)]


def _begins_with_images(tar: Tar) -> bool:
    members = first_members(tar, _FIRST_MEMBERS)
    if members is None:
        return True  # to be listed, and so named as damaged, rather than passed over
    with tar.path.open("rb") as file:
        return any(
            member.name.endswith(_TARS) or (file.seek(member.offset_data) and is_image(file)) for member in members
        )


def begins_with_samples(tar: Tar) -> bool:
    """Say whether a tar's first members are those of a WebDataset shard, with labels or the like beside images."""
    names = [member.name for member in first_members(tar, _FIRST_MEMBERS) or ()]
    keys = Counter(map(sample_key, names))
    return any(name.lower().endswith(_SIDECARS) and keys[sample_key(name)] > 1 for name in names)


def _unread(root: Path, folders: Sequence[str], tars: Sequence[str]) -> list[str]:
    """Return the folders of images, or of tars, beside tars. Raises InputError if they may be what is to be read."""
    folders = [name for name in folders if f"{name}.tar" not in tars]
    unpacked = [name for name in folders if WNID.fullmatch(name)]
    if unpacked:
        raise InputError(
            f"{root}: holds class tars, and folders of other classes, {unpacked[0]} the first of {len(unpacked):,}; "
            "unpack the tars into such folders, too, or move the folders away"
        )
    images = [name for name in spread(folders) if holds_images(root / name) or _tars_of(contents(root / name))]
    if images and not all(WNID.fullmatch(name.removesuffix(".tar")) for name in tars):
        raise InputError(
            f"{root}: holds tars, such as {printed(tars[0])}, and folders of images or tars that are in none of "
            f"them, such as {printed(images[0])}; move the ones or the others away"
        )
    return images


def _compressed(folder: Path, inside: Contents) -> list[str]:
    """Return the compressed tars beside others. Raises InputError if one is of their kind."""
    stems = [name.removesuffix(".tar") for name in _tars_of(inside)]
    packed = {match[1]: match[0] for match in map(_PACKED.fullmatch, inside.files) if match}
    left = [stem for stem in packed if stem not in stems]
    splits, numbered = split_names([*left, *stems]), set(map(_without_numbers, stems))
    unfinished = [name for name in inside.files if _OTHERWISE.fullmatch(name)]
    if stems and unfinished:
        raise InputError(
            f"{folder / unfinished[0]}: looks like a tar under another name, or one not downloaded to the end, "
            f"and its images would be missed beside {len(stems):,} tars; finish it, call it .tar, or move it away"
        )
    for stem in left:
        is_part = _without_numbers(stem) in numbered or are_parts([stem, *stems])
        if is_part or WNID.fullmatch(stem) or splits.get(stem, "test") != "test":
            path = folder / packed[stem]
            said = what_is(path) or "cannot be read; unpack it"
            raise InputError(f"{path}: {said}; there are {len(stems):,} tars beside it, and its images would be missed")
    return [*(packed[stem] for stem in left), *(name for name in inside.files if name.endswith(NO_TARS))]


def _without_numbers(stem: str) -> str:
    return re.sub(r"\d+", "0", stem)


def image_tars(root: Path, files: Sequence[str], walk: Walk) -> list[ImageTar]:
    """Return the tars of images, files or members of files, as `named`."""
    tars: list[ImageTar] = []
    walk.begin("class tars", "files", len(files))
    for name in files:
        whole = Tar.of(root / name)
        walk.advance(1)
        names = PurePosixPath(name.removesuffix(".tar")).parts
        tar = ImageTar(path=whole.path, length=whole.length, name=whole.name, names=names, file=name)
        tars += _inner_tars(tar, walk)
    return named(root, tars)


def _inner_tars(tar: ImageTar, walk: Walk) -> Iterator[ImageTar]:
    """Yield the tars that a tar holds, at any depth, or the tar itself if it holds none."""
    is_inner_class = tar.start and WNID.fullmatch(tar.names[-1])  # not looked at: 21,841 times eight headers
    members = None if is_inner_class else first_members(tar, _FIRST_MEMBERS)
    if not any(member.name.endswith(_TARS) for member in members or ()):
        yield tar
        return
    if len(tar.names) > _DEEPEST:
        raise InputError(f"{tar.path}: holds tars in tars, more than {_DEEPEST} deep; unpack it")
    for name, start, length in list_tar(tar, walk, in_bytes=False):
        path = PurePosixPath(name.decode("utf-8", "surrogateescape"))
        if path.suffix != ".tar":
            raise _no_inner_tar(tar, path, start, length)
        names = (*tar.names, *folder_names(os.fsencode(path.with_suffix(""))))
        inner = replace(tar, start=start, length=length, name=f"{names[-1]}.tar", names=names)
        yield from _inner_tars(inner, walk)


def _no_inner_tar(tar: ImageTar, member: PurePosixPath, start: int, length: int) -> InputError:
    with tar.path.open("rb") as file:
        file.seek(start)
        head = file.read(min(length, HEAD_BYTES))
    said = what_instead(head, tar.path, str(member)) if is_compressed(head) else None
    other = f"holds tars and {member}, which is none; take it out"
    return InputError(f"{tar.path}: {member} {said}" if said else f"{tar.path}: {other}")


def named(root: Path, tars: Sequence[ImageTar]) -> list[ImageTar]:
    """Return tars with the classes and splits that their names say.

    A tar is a class if others beside it have other names that are neither splits' nor numbered parts', or if it is
    called by a WNID. Raises InputError if one is no split and others are.
    """
    said = split_of_paths(str(root), {tar.names for tar in tars})
    own = {tar.names for tar in tars if len(tar.names) - 1 in said[tar.names][1]}  # the tar's own name says no split
    stems = {names[-1] for names in own}
    classes = set() if len(stems) == 1 or are_parts(stems) else stems
    above: dict[str, set[str]] = defaultdict(set)
    for names in sorted(own):
        if len(names) > 1 and not said[names][0]:
            above[names[-1]].add(names[-2])
    twice = next((stem for stem, parents in above.items() if len(parents) > 1 and not are_parts(parents)), None)
    if twice is not None:
        raise InputError(
            f"{root}: {twice}.tar is in {' and in '.join(sorted(above[twice]))}, which may be splits; call these train "
            "and val, or unpack them"
        )
    found = []
    for tar in tars:
        stem, split = tar.names[-1], said[tar.names][0]
        is_class = tar.names in own and (stem in classes or WNID.fullmatch(stem))
        found.append(replace(tar, wnid=stem if is_class else None, split=split))
    if len({tar.split is None for tar in found}) > 1:
        other = next("/".join(tar.names) for tar in found if tar.split is None)
        raise InputError(
            f"{root}: {other}.tar is neither training nor validation, as tars beside it are by their names; rename it, "
            "to train_2.tar for instance, or move it away"
        )
    return found


def without_tests(tars: Sequence[ImageTar]) -> tuple[list[ImageTar], list[str]]:
    """Leave out tars of test images where there are others for validation; and name them."""
    tests = [tar for tar in tars if tar.split == "test"] if any(tar.split == "val" for tar in tars) else []
    return [tar for tar in tars if tar not in tests], sorted({f"{tar.file} (test images)" for tar in tests})
