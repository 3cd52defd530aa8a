"""Tell names of splits, such as `Training_Set`, `val.X1` or `seg_test`, from names of classes.

People give splits many names, and a split that is taken for a class puts test pictures into training. A name alone is
no proof, though: `bullet_train` and `test_tube` are classes. So names are judged beside their neighbours, and whoever
asks has to look at what lies in the folder or archive, too.
"""

import re
from collections.abc import Iterable
from typing import Literal

SplitWord = Literal["train", "val", "test"]

_WORDS: dict[str, SplitWord] = {
    "train": "train",
    "training": "train",
    "trainval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
_KIND_OF_THING = r"(data|dataset|set|images?|imgs?|pics|pictures|photos|folder|dir|files?|split|jpe?gs?|pngs?)"
_GLUED = re.compile(rf"{_KIND_OF_THING}?({'|'.join(_WORDS)})({_KIND_OF_THING}|[a-z]?)")  # trainset, imgtest, testA
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def split_names(names: Iterable[str]) -> dict[str, SplitWord]:
    """Return which of some names that stand side by side are those of splits, and of which.

    Case, numbers, single letters and words such as `set` or `images` do not count. Where a name says more, as
    `seg_train` does, another has to say the same of another split. A `Train` among classes is returned, too.
    """
    found = {name: parted for name in names if (parted := _parted(name))}
    sides: dict[tuple[str, ...], set[SplitWord]] = {}
    for split, rest in found.values():
        sides.setdefault(rest, set()).add(split)
    return {name: split for name, (split, rest) in found.items() if not rest or len(sides[rest]) > 1}


def split_word(name: str) -> SplitWord | None:
    """Return the split that a name speaks of, were it alone; a name says less than names side by side."""
    parted = _parted(name)
    return parted[0] if parted else None


def _parted(name: str) -> tuple[SplitWord, tuple[str, ...]] | None:
    """Return the split that a name speaks of, and the rest of its words in lower case; None if it speaks of none."""
    parts = [part.lower() for part in _PARTS.findall(name)]
    words = [match and _WORDS[match[2]] for match in map(_GLUED.fullmatch, parts)]
    at = next((i for i, word in enumerate(words) if word), None)
    if at is None:
        return None
    rest = (part for i, part in enumerate(parts) if i != at and not re.fullmatch(f"{_KIND_OF_THING}|.", part))
    return words[at], tuple(rest)  # type: ignore[return-value]  # at is where one is
