"""Classes that a source numbers: what each is called, as far as the source says so, and whether numbers can be right.

The numbers are the labels. Classes are called by names only where that gives the same order, as it does for ImageNet's
WNIDs: a name that says another label than the number would be a trap.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.shards.index import is_official
from alexnet.shards.manifest import ClassRecord, Split
from alexnet.tools.convert.known import check_sorted_labels, count_notes
from alexnet.tools.convert.listing import Listing, Source, sizes_of
from alexnet.tools.convert.opening import MAX_BYTES
from alexnet.tools.convert.source_files import SourceFiles
from alexnet.tools.convert.sources.names import WNID, printed
from alexnet.tools.convert.sources.tables import read_words

MOST_CLASSES = 100_000  # ImageNet-21k has 21,841; each takes a line of the manifest


class NumberedClasses:
    """Collect what images say of their classes: the number and, where there is one, a name.

    `listed`: names, or words, of all classes in the order of their numbers, where the source has such a list.
    """

    def __init__(self, listed: Sequence[str] = ()) -> None:
        self._listed = listed
        self._names: dict[int, str] = {k: name for k, name in enumerate(listed) if WNID.fullmatch(name)}
        self._numbers = {name: number for number, name in self._names.items()}
        self._last = len(listed) - 1

    def add(self, number: object, name: str | None) -> int:
        """Take the class of an image; return its number. Raises ValueError for what cannot be, or is told otherwise."""
        if not isinstance(number, int) or isinstance(number, bool):
            raise ValueError(f"its label is {str(number)[:40]!r}, which is no whole number")
        most = len(self._listed) or MOST_CLASSES
        if not 0 <= number < most:
            raise ValueError(f"its label is {number}, and must be from 0 to {most - 1:,}")
        self._last = max(self._last, number)
        if name is None:
            return number
        if self._names.setdefault(number, name) != name:
            raise ValueError(f"it says class {name}, and its label {number} is {self._names[number]} elsewhere")
        if self._numbers.setdefault(name, number) != number:
            raise ValueError(f"it says class {name}, whose label is {number} here and {self._numbers[name]} elsewhere")
        return number

    def records(self, root: Path, members: Mapping[Split, Listing]) -> tuple[tuple[ClassRecord, ...], str]:
        """Return the classes in the order of their numbers, and a note if they are called by these.

        `root`: where files of words may lie. Raises InputError if there is nothing to train on, or if numbers
        contradict ILSVRC-2012's as published, where the classes are its own.
        """
        if not len(members["train"]):
            raise InputError(f"{root}: holds no training images; give them, too, under names that begin with train")
        found = [self._names.get(number, "") for number in range(self._last + 1)]
        if is_official(found) and found != sorted(found):
            pairs = enumerate(zip(found, sorted(found), strict=True))
            at, (name, right) = next((k, pair) for k, pair in pairs if pair[0] != pair[1])
            raise InputError(
                f"{root}: gives {name} the label {at}, which is {right}'s in ILSVRC-2012; its labels are wrong, so "
                "nothing was written; put an original copy in its place"
            )
        listed, words = [printed(name) for name in self._listed], read_words(root)
        names, note = self._ids(found, listed)
        check_sorted_labels(root, names, members["val"])
        said = listed or [words.get(name) or name or names[number] for number, name in enumerate(found)]
        return tuple(ClassRecord(wnid=name, words=word) for name, word in zip(names, said, strict=True)), note

    def _ids(self, found: list[str], listed: list[str]) -> tuple[list[str], str]:
        """Return names in ascending order, and a note if they are numbers for want of others."""
        for names in (found, listed):
            if names and all(names) and _ascending(names):
                return names, ""
        if not (self._names or listed):
            why = "nothing names them"
        elif not (all(found) or listed):
            why = f"nothing names class {found.index('')}"
        else:
            why = "the order of their names is another"
        digits = len(str(len(found) - 1))
        ids = [f"{number:0{digits}d}" for number in range(len(found))]
        return ids, f"classes are called by their numbers, {ids[0]} to {ids[-1]}, as {why}"


def _ascending(names: Sequence[str]) -> bool:
    return all(one < other for one, other in pairwise(names))


def numbered_source(
    what: str, root: Path, kind: str, classes: NumberedClasses, members: dict[Split, Listing], notes: Sequence[str]
) -> Source:
    """Return a source whose labels are its own numbers. `what`: it is, for people. `notes`: empty ones are left out."""
    records, note = classes.records(root, members)
    wnids = [record.wnid for record in records]
    return Source(
        root=root,
        kind=kind,
        classes=records,
        members=members,
        label_order=f"the source's own numbers, {wnids[0]} 0 to {wnids[-1]} {len(wnids) - 1}",
        description=f"{what}, {len(records):,} classes, {sizes_of(members)} images",
        notes=(*filter(None, (*notes, note)), *count_notes(wnids, members["train"], members["val"])),
    )


def refuse_twice(root: Path, listing: Listing) -> None:
    """Raise InputError for an image that lies in two places under one name: the same bytes, neighbours in a listing."""
    with SourceFiles(root) as files:
        for row in listing.alike():
            one, other = listing[row], listing[row + 1]
            if one.length <= MAX_BYTES and files.read(one) == files.read(other):
                raise InputError(
                    f"{root}: {one.file} and {other.file} hold the same image, {printed(one.name)!r}; it would "
                    "count twice; if one is a copy of the other, move it away"
                )
