"""Find the parquet files of a data set by their names, as Hugging Face calls them, and tell which split each is of."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from alexnet.shards.errors import InputError
from alexnet.tools.convert.sources.folders import contents
from alexnet.tools.convert.sources.names import SplitWord, few, printed, split_of_paths, split_word

_ENDING = ".parquet"
_NUMBERED = re.compile(r"(.*?)[-_.]?(\d+)(?:-of-(\d+)(?:-[0-9a-f]{16})?)?")  # train-00000-of-00294, 0000


@dataclass(frozen=True, kw_only=True)
class ParquetFiles:
    """Hold the files to read, as paths from the source's folder, and those beside them.

    `val_is_test`: there is no split for validation, and that for tests serves as one.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    unread: tuple[str, ...]
    val_is_test: bool

    @property
    def files(self) -> tuple[str, ...]:
        """Return all that are read."""
        return (*self.train, *self.val)


def find_files(root: Path) -> ParquetFiles | None:
    """Find parquet files in a folder, or in one folder below it, perhaps in folders of splits; None if there is none.

    Raises InputError if several data sets lie there, if a name says no split where others do, or if parts are missing.
    """
    names = _names(root)
    if not names:
        return None
    of_split: dict[SplitWord | None, list[str]] = defaultdict(list)
    for name, split in _splits(root, names).items():
        of_split[split].append(name)
    train, val, test = ((of_split[None] or of_split["train"]), of_split["val"], of_split["test"])
    if not train:
        raise InputError(f"{root}: holds no parquet files of training images; give them, too, called train-*{_ENDING}")
    read_val = val or test
    for part in (train, read_val):
        _refuse_missing(root, part)
    unread = tuple(test) if val else ()
    return ParquetFiles(train=tuple(train), val=tuple(read_val), unread=unread, val_is_test=bool(test and not val))


def _names(root: Path) -> list[str]:
    """Return the paths of the files of the one data set that lies in a folder."""
    folders = [".", *(name for name in contents(root).folders if not split_word(name))]
    sets = {name: found for name in folders if (found := _inside(root, PurePosixPath(name)))}
    if len(sets) > 1:
        raise InputError(f"{root}: holds several sets of parquet files, {few(sorted(map(printed, sets)))}; give one")
    return next(iter(sets.values()), [])


def _inside(root: Path, folder: PurePosixPath) -> list[str]:
    """Return the parquet files in a folder, and in those of its folders that are called as splits."""
    inside = contents(root / folder)
    places = [folder, *(folder / name for name in inside.folders if split_word(name))]
    return [str(place / name) for place in places for name in contents(root / place).files if name.endswith(_ENDING)]


def _splits(root: Path, names: Sequence[str]) -> dict[str, SplitWord | None]:
    """Return which split each file is of; None for all if no name says one."""
    ways = {}
    for name in names:
        path = PurePosixPath(name.removesuffix(_ENDING))
        match = _NUMBERED.fullmatch(path.name)
        ways[name] = tuple(filter(None, (*path.parts[:-1], match[1] if match else path.name)))
    said = split_of_paths(str(root), set(ways.values()))
    splits = {name: said[way][0] or split_word(way[-1] if way else "") for name, way in ways.items()}
    silent = [name for name, split in splits.items() if split is None]
    if silent and len(silent) < len(names):
        raise InputError(
            f"{root}: {printed(silent[0])} is neither training nor validation, as files beside it are by their names; "
            "rename it, or move it away"
        )
    return splits


def _refuse_missing(root: Path, names: Sequence[str]) -> None:
    """Raise InputError if files that say how many there are (`-of-00294`) are not all there, or are of two sets."""
    totals: dict[tuple[str, str], set[int]] = defaultdict(set)
    counts: dict[str, int] = defaultdict(int)
    for name in names:
        match = _NUMBERED.fullmatch(name.removesuffix(_ENDING))
        if match and match[3]:
            totals[match[1], match[3]].add(int(match[2]))
            counts[match[1]] += 1
    for (beginning, total), numbers in totals.items():
        missing = sorted(set(range(min(int(total), len(names) + 1))) - numbers)
        if missing:
            first = f"{beginning}-{missing[0]:0{len(total)}d}-of-{total}{_ENDING}"
            raise InputError(
                f"{root}: lacks {printed(first)}, and {int(total) - len(numbers):,} of {int(total):,} files in all; "
                "download the rest"
            )
        if counts[beginning] != len(numbers):
            raise InputError(
                f"{root}: of {printed(beginning)} there are {counts[beginning]:,} files where {int(total):,} are all; "
                "they are of several versions; move those of the older one away"
            )
