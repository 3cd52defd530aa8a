"""Tell which class, and which split, the images of a tar have, by the names of tars and of the folders in them.

Names only: nothing is opened here. A tar may be a class, a split, a numbered part of one, or all there is. Where names
leave it open, the answer is a refusal: a wrong label costs a training run, and nothing would say so.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.tools.convert.sources.labels import printed
from alexnet.tools.convert.sources.split_names import SplitWord, split_names, split_word

WNID = re.compile(r"n\d{8}")
Names = tuple[str, ...]
"""Names on the way to something: folders and tars without `.tar`, the outermost first."""

_IN_NAME = re.compile(rb"(?:.*[_-])?(n\d{8})\.[^.]*")  # n01440764_10026_n01440764.JPEG, ILSVRC2012_val_1_n01751748.JPEG
_BEFORE_NUMBER = re.compile(rb"(n\d{8})_\d+\.[^.]*")  # n01440764_10026.JPEG
MEND = (
    "if what is in the tars says the classes, call them train_1.tar, train_2.tar and so on; else unpack each into a "
    "folder of its class's name"
)
_PART = re.compile(r"parts?|batch|chunk|shard|piece|fold|vol|volume|archive|tar")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTar:
    """Say where a tar of images lies: in which file, from which byte, how long; and what its name says.

    `wnid`: its class, None if that is to be found in the tar. `split`: None if no name on the way to it says one.
    """

    names: Names
    file: str
    start: int
    length: int
    wnid: str | None = None
    split: SplitWord | None = None


def named_tars(root: Path, tars: Sequence[ImageTar]) -> list[ImageTar]:
    """Return the tars with the classes and splits that their names say.

    A tar is a class if others beside it have other names that are neither splits' nor numbered parts', or if it is
    called by a WNID. Raises InputError if one is no split and others are.
    """
    said = part_splits(str(root), {tar.names for tar in tars})
    own = {tar.names for tar in tars if len(tar.names) - 1 in said[tar.names][1]}  # the tar's own name says no split
    stems = {names[-1] for names in own}
    classes = set() if len(stems) == 1 or are_parts(stems) else stems
    named = []
    for tar in tars:
        stem = tar.names[-1]
        is_class = tar.names in own and (stem in classes or WNID.fullmatch(stem))
        named.append(replace(tar, wnid=stem if is_class else None, split=said[tar.names][0]))
    if len({tar.split is None for tar in named}) > 1:
        other = next("/".join(tar.names) for tar in named if tar.split is None)
        raise InputError(
            f"{root}: {other}.tar is neither training nor validation, as tars beside it are by their names; rename it, "
            "to train_2.tar for instance, or move it away"
        )
    return named


def are_parts(stems: Collection[str]) -> bool:
    """Say whether names of tars are those of numbered parts of one thing: `part1`, `images_0`, `imagenet-part-2`."""
    if any(WNID.search(stem) for stem in stems):
        return False
    words = [re.findall("[a-z]+", stem.lower()) for stem in stems]
    rest = {tuple(word for word in every if not _tells_nothing(word)) for every in words}
    if len(rest) != 1 or not all(words):
        return False
    return rest == {()} or all(any(_PART.fullmatch(word) or split_word(word) for word in every) for every in words)


def _tells_nothing(word: str) -> bool:
    """Say whether a word in a tar's name is about tars or pictures, and not about what is in them."""
    return bool(_PART.fullmatch(word) or split_word(word) or (len(word) > 1 and split_names([f"train {word}"])))


def part_splits(where: str, paths: Iterable[Names]) -> dict[Names, tuple[SplitWord | None, tuple[int, ...]]]:
    """Return which split each path belongs to, and the depths of the names that do not say so.

    Names are those of splits where several splits lie side by side, or where nothing else does. Raises InputError if
    a path is in two splits.
    """
    beside: dict[Names, set[str]] = {}
    paths = list(paths)
    for path in paths:
        for depth, name in enumerate(path):
            beside.setdefault(path[:depth], set()).add(name)
    sure: dict[Names, SplitWord] = {}  # by the path down to the name
    weak: dict[Names, SplitWord] = {}
    for above, names in beside.items():
        found = split_names(names)
        if len(set(found.values())) > 1:
            sure |= {(*above, name): word for name, word in found.items()}
        elif len(found) == len(names):
            weak |= {(*above, name): word for name, word in found.items()}
    parted = {}
    for path in paths:
        ways = [path[: depth + 1] for depth in range(len(path))]
        words = {sure[way] for way in ways if way in sure} or {weak[way] for way in ways if way in weak}
        if len(words) > 1:
            raise InputError(f"{where}: {'/'.join(path)} is in two splits ({' and '.join(sorted(words))}); unpack it")
        others = tuple(depth for depth, way in enumerate(ways) if way not in sure and way not in weak)
        parted[path] = (words.pop() if words else None, others)
    return parted


def folder_classes(
    where: str, folders: Collection[Names], holds_images: Callable[[Names], bool]
) -> dict[Names, tuple[str, int]]:
    """Return class, and depth of the class's folder, of the folders with files in a tar; the innermost folder counts.

    Folders around all others are left out: they have no class. Raises InputError where images lie in one, or where
    classes may lie on two levels; before that, folders without images are left out.
    """
    inner = set(folders)
    while len(inner) > 1 and (around := _common(inner)) in inner and not any(map(WNID.fullmatch, around)):
        inner.remove(around)
    inner.discard(())
    by_wnid = {folder: [depth for depth, name in enumerate(folder) if WNID.fullmatch(name)] for folder in inner}
    if inner and all(by_wnid.values()):
        _refuse_two_wnids(where, by_wnid)
        return {folder: (folder[depths[-1]], depths[-1] + 1) for folder, depths in by_wnid.items()}
    tops = _tops(inner)
    if len({top[:-1] for top in tops}) > 1:
        some = {folder for folder in folders if holds_images(folder)}
        if some and len(some) < len(folders):
            return folder_classes(where, some, holds_images)
        one, other = sorted(tops, key=lambda top: (top[:-1], top))[:: len(tops) - 1]
        raise _unclear(where, one, other)
    loose = [folder for folder in folders if folder not in inner and holds_images(folder)] if tops else []
    if loose:
        raise _unclear(where, loose[0], min(tops))
    depth_of = {folder: next((d for d in range(1, len(folder) + 1) if folder[:d] in tops), 0) for folder in inner}
    return {folder: (folder[depth - 1], depth) for folder, depth in depth_of.items() if depth}


def _common(folders: Collection[Names]) -> Names:
    """Return the names that all paths begin with."""
    one, other = min(folders), max(folders)
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return one[:same]


def _tops(folders: Collection[Names]) -> set[Names]:
    """Return the class folders: the outermost with files, without last names that tell nothing: `cat/images`."""
    cut = 0
    while folders and all(len(folder) > cut and _tells_nothing_at_all(folder[-1 - cut]) for folder in folders):
        cut += 1
    tops: set[Names] = set()
    for folder in sorted(folders):  # a folder comes before those in it
        names = folder[: len(folder) - cut]
        if names and not any(names[:depth] in tops for depth in range(len(names))):
            tops.add(names)
    return tops


def _unclear(where: str, one: Names, other: Names) -> InputError:
    return InputError(
        f"{where}: its classes may be on several levels of folders, as in {'/'.join(one) or '.'!r} and "
        f"{'/'.join(other)!r}; unpack it, and give the folder that holds one sub-folder a class"
    )


def _refuse_two_wnids(where: str, by_wnid: Mapping[Names, Sequence[int]]) -> None:
    for folder, depths in by_wnid.items():
        if len({folder[depth] for depth in depths}) > 1:
            raise InputError(
                f"{where}: {'/'.join(folder)!r} names two classes; unpack it, and sort its images into one"
            )


def _tells_nothing_at_all(name: str) -> bool:
    """Say whether all words of a folder's name are about pictures as such; a number is a class's name."""
    words = re.findall("[a-z]+", name.lower())
    return bool(words) and all(map(_tells_nothing, words))


def doubtful_folders(where: str, wnid: str, folders: Iterable[Names]) -> set[Names]:
    """Return the folders in a class's tar that may be classes themselves. Raises InputError for another WNID.

    The class's own name among them is a good sign; words such as `images`, and anything in a tar that is called by a
    WNID, tell nothing.
    """
    own = printed(wnid).casefold()
    others = [folder for folder in folders if not any(printed(name).casefold() == own for name in folder)]
    for name in (name for folder in others for name in folder):
        if WNID.fullmatch(name):
            raise InputError(f"{where}: holds a folder {name}, and its own name says class {wnid}; {MEND}")
    return set() if WNID.fullmatch(wnid) else {f for f in others if not all(map(_tells_nothing_at_all, f))}


def wnid_in(name: bytes) -> str | None:
    """Return the WNID that a file's name carries: the last before its ending, or the one before its number."""
    match = _IN_NAME.fullmatch(name) or _BEFORE_NUMBER.fullmatch(name)
    return match[1].decode() if match else None


def is_labelled(name: bytes) -> bool:
    """Say whether a file's name ends in a WNID, which is there for nothing but the label."""
    return bool(_IN_NAME.fullmatch(name))
