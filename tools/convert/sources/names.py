"""What names say: which class and which split the images below a folder or a tar have. Nothing is opened here.

A split that is taken for a class trains a network on its own test images, and nothing says so. A name alone is no
proof, though: `bullet_train` and `test_tube` are classes. So names are judged beside their neighbours, and where they
leave it open, the answer is a refusal.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import takewhile
from typing import Literal

from alexnet.shards.errors import InputError

SplitWord = Literal["train", "val", "test"]
Names = tuple[str, ...]
"""Names on the way to something: folders and tars without `.tar`, the outermost first."""

WNID = re.compile(r"n\d{8}")
NO_CLASS = re.compile("(jpeg)?images?|imgs?|annotations?|labels?|masks?", re.IGNORECASE)
"""Names of what lies beside or above classes."""
_WORDS: dict[str, SplitWord] = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_THING = r"(data|dataset|set|images?|imgs?|pics|pictures|photos|folder|dir|files?|split|jpe?gs?|pngs?)"
_GLUED = re.compile(rf"{_THING}?({'|'.join(_WORDS)})({_THING}|[a-z]?)")  # trainset, imgtest, testA
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_PART = re.compile(r"parts?|batch|chunk|shard|piece|fold|vol|volume|archive|tar")
_NUMBERED = re.compile(r"(.*?)([0-9]{1,18})([^0-9]*)", re.DOTALL)  # the last number in a name
_LABEL_AT_END = re.compile(rb"(?:.*[_-])?(n\d{8})\.[^.]*")  # n01440764_10026_n01440764.JPEG
_LABEL_APPENDED = re.compile(rb"(.+)_n\d{8}(\.[^.]*)")
_LABEL_BEFORE_NUMBER = re.compile(rb"(n\d{8})_\d+\.[^.]*")  # n01440764_10026.JPEG


def printed(name: str) -> str:
    r"""Return a file's name as text: composed letters (NFC), as not every system has; no UTF-8 becomes `\xNN`."""
    return unicodedata.normalize("NFC", shown(os.fsencode(name)))


def shown(name: bytes) -> str:
    """Return a name's bytes as text for messages."""
    return name.decode("utf-8", "backslashreplace")


def few(names: Sequence[str], most: int = 5) -> str:
    """Return the first few of some names, for people."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def split_names(names: Iterable[str]) -> dict[str, SplitWord]:
    """Return which of some names that stand side by side are those of splits, and of which.

    Case, numbers, single letters and words such as `set` or `images` do not count. Where a name says more, as
    `seg_train` does, another has to say the same of another split. A `Train` among classes is returned, too.
    """
    found = {name: parted for name in names if (parted := _parted(name))}
    sides: dict[Names, set[SplitWord]] = defaultdict(set)
    for split, rest in found.values():
        sides[rest].add(split)
    return {name: split for name, (split, rest) in found.items() if not rest or len(sides[rest]) > 1}


def split_word(name: str) -> SplitWord | None:
    """Return the split that a name alone speaks of; `split_names` is surer, as it sees the names beside it."""
    parted = _parted(name)
    return parted[0] if parted else None


def _parted(name: str) -> tuple[SplitWord, Names] | None:
    """Return the split that a name speaks of, and the rest of its words in lower case; None if it speaks of none."""
    parts = [part.lower() for part in _PARTS.findall(name)]
    for at, part in enumerate(parts):
        if match := _GLUED.fullmatch(part):
            rest = parts[:at] + parts[at + 1 :]
            return _WORDS[match[2]], tuple(word for word in rest if not re.fullmatch(f"{_THING}|.", word))
    return None


def are_parts(stems: Collection[str]) -> bool:
    """Say whether names of tars are those of numbered parts of one thing: `part1`, `images_0`, `imagenet-part-2`."""
    words = [re.findall("[a-z]+", stem.lower()) for stem in stems]
    rest = {tuple(word for word in every if not _tells_nothing(word)) for every in words}
    if len(rest) != 1 or not all(words) or any(WNID.search(stem) for stem in stems):
        return False
    return rest == {()} or all(any(_PART.fullmatch(word) or split_word(word) for word in every) for every in words)


def _tells_nothing(word: str) -> bool:
    """Say whether a word in a tar's name is about tars or images, and not about what is in them."""
    return bool(_PART.fullmatch(word) or split_word(word) or (len(word) > 1 and split_names([f"train {word}"])))


def is_about_images(name: str) -> bool:
    """Say whether all words of a folder's name are about images as such; a number is a class's name."""
    words = re.findall("[a-z]+", name.lower())
    return bool(words) and all(map(_tells_nothing, words))


def left_out(files: Collection[str]) -> list[str]:
    """Return the names that are missing among numbered ones, where fewer are than are there: `a-1` of `a-0`, `a-2`."""
    numbers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for match in filter(None, map(_NUMBERED.fullmatch, files)):
        numbers[match[1], match[3]].add(match[2])
    names = []
    for (before, after), texts in numbers.items():
        there, digits = set(map(int, texts)), min(map(len, texts))
        if max(there) - min(there) < 2 * len(there):
            absent = sorted(set(range(min(there), max(there))) - there)
            names += [printed(f"{before}{number:0{digits}d}{after}") for number in absent]
    return names


def split_of_paths(where: str, paths: Collection[Names]) -> dict[Names, tuple[SplitWord | None, tuple[int, ...]]]:
    """Return which split each path belongs to, and the depths of the names that do not say so.

    Names are those of splits where several splits lie side by side, or where nothing else does. Raises InputError if
    a path is in two splits.
    """
    beside: dict[Names, set[str]] = defaultdict(set)
    for path in paths:
        for depth, name in enumerate(path):
            beside[path[:depth]].add(name)
    sure: dict[Names, SplitWord] = {}  # by the path down to the name
    weak: dict[Names, SplitWord] = {}
    for above, names in beside.items():
        found = split_names(names)
        if len(set(found.values())) > 1 or len(found) == len(names):
            certain = sure if len(set(found.values())) > 1 else weak
            certain |= {(*above, name): word for name, word in found.items()}
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
    """Return class, and depth of the class's folder, of the folders with files in a tar; the innermost WNID counts.

    Folders around all others are left out: they have no class. Raises InputError where images lie in one, or where
    classes may lie on two levels; before that, folders without images are left out.
    """
    inner = set(folders)
    while len(inner) > 1 and (around := _common(inner)) in inner and not any(map(WNID.fullmatch, around)):
        inner.remove(around)
    inner.discard(())
    wnids = {folder: [depth for depth, name in enumerate(folder) if WNID.fullmatch(name)] for folder in inner}
    if inner and all(wnids.values()):
        for folder, depths in wnids.items():
            if len({folder[depth] for depth in depths}) > 1:
                path = "/".join(folder)
                raise InputError(f"{where}: {path!r} names two classes; unpack it, and sort its images into one")
        return {folder: (folder[depths[-1]], depths[-1] + 1) for folder, depths in wnids.items()}
    tops = _tops(inner)
    if len({top[:-1] for top in tops}) > 1:
        some = {folder for folder in folders if holds_images(folder)}
        if some and len(some) < len(folders):
            return folder_classes(where, some, holds_images)
        one, *_, other = sorted(tops, key=lambda top: (top[:-1], top))
        raise _unclear(where, one, other)
    loose = [folder for folder in folders if folder not in inner and holds_images(folder)] if tops else []
    if loose:
        raise _unclear(where, loose[0], min(tops))
    depth_of = {folder: next((d for d in range(1, len(folder) + 1) if folder[:d] in tops), 0) for folder in inner}
    return {folder: (folder[depth - 1], depth) for folder, depth in depth_of.items() if depth}


def _common(folders: Collection[Names]) -> Names:
    """Return the names that all paths begin with."""
    same = takewhile(lambda names: len(set(names)) == 1, zip(min(folders), max(folders), strict=False))
    return tuple(one for one, _ in same)


def _tops(folders: Collection[Names]) -> set[Names]:
    """Return the class folders: the outermost with files, without last names that tell nothing: `cat/images`."""
    cut = 0
    while folders and all(len(folder) > cut and is_about_images(folder[-1 - cut]) for folder in folders):
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


def wnid_in(name: bytes) -> str | None:
    """Return the WNID that a file's name carries: the last before its ending, or the one before its number."""
    match = _LABEL_AT_END.fullmatch(name) or _LABEL_BEFORE_NUMBER.fullmatch(name)
    return match[1].decode() if match else None


def wnid_on_way(path: str) -> str | None:
    """Return the WNID that the last folder on the way to a file has for its name, or else the file's name carries."""
    folder, _, name = path.rpartition("/")
    above = folder.rpartition("/")[2]
    return above if WNID.fullmatch(above) else wnid_in(os.fsencode(name))


def without_label(name: bytes) -> bytes:
    """Return a file's name without the WNID that was appended to it: n01440764_10026.JPEG."""
    match = _LABEL_APPENDED.fullmatch(name)
    return match[1] + match[2] if match else name


def is_labelled(name: bytes) -> bool:
    """Say whether a file's name ends in a WNID, which is there for nothing but the label."""
    return bool(_LABEL_AT_END.fullmatch(name))
