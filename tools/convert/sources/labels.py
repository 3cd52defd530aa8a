"""Which classes there are, and which class each validation image has, as the devkit or Kaggle's table say.

Both are turned into WNIDs at once: a WNID is the only key that means the same everywhere. Words are not unique.
"""

import csv
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import ClassRecord
from alexnet.tools.convert.devkit import Devkit
from alexnet.tools.convert.known import check_labels

SOLUTION = "LOC_val_solution.csv"
WORD_FILES = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")
"""Files of lines `WNID words`, as Kaggle, Caffe and WordNet give them."""


@dataclass(frozen=True, kw_only=True)
class ValLabels:
    """Hold the WNID of each validation image by its stem, and the file that says so.

    `classes`: all that the file speaks of, sorted by WNID.
    """

    where: Path
    wnids: Mapping[str, str]
    classes: tuple[ClassRecord, ...]

    def wnid_of(self, path: Path, name: str) -> str:
        """Return the class of an image called `name` in `path`. Raises InputError if it has none."""
        stem = PurePosixPath(name).name.split(".")[0]
        if stem not in self.wnids:
            raise InputError(
                f"{path}: {name} has no label: {self.where.name} labels {len(self.wnids):,} images, "
                f"{min(self.wnids, default='none')} to {max(self.wnids, default='none')}; the two must belong "
                "together; if it is no image, move it away"
            )
        return self.wnids[stem]


def devkit_labels(path: Path, devkit: Devkit) -> ValLabels:
    """Return a devkit's labels by file stem."""
    wnids = {
        f"ILSVRC2012_val_{number:08d}": devkit.classes[label].wnid
        for number, label in enumerate(devkit.val_labels, start=1)
    }
    return ValLabels(where=path, wnids=wnids, classes=devkit.classes)


def kaggle_labels(path: Path, words: Mapping[str, str]) -> ValLabels:
    """Read Kaggle's LOC_val_solution.csv: `ImageId,PredictionString`, the latter a WNID and a box, once or more.

    Raises InputError if it has another form or contradicts the published labels.
    """
    wnids: dict[str, str] = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        try:
            for row in csv.DictReader(file):
                image, answer = row.get("ImageId"), (row.get("PredictionString") or "").split()
                if not image or not answer:
                    raise csv.Error("has not the columns ImageId,PredictionString")
                wnids[image] = answer[0]
        except csv.Error as error:  # also a stray quotation mark, which makes one field of all that follows
            raise InputError(f"{path}: line {len(wnids) + 2}: {error}; download it again") from None
    classes = class_records(set(wnids.values()), words)
    labels = {record.wnid: label for label, record in enumerate(classes)}
    numbers = {stem: stem.rpartition("_")[2] for stem in wnids}
    by_number = {int(number): labels[wnids[stem]] for stem, number in numbers.items() if number.isdecimal()}
    check_labels(path, tuple(labels), by_number)
    return ValLabels(where=path, wnids=wnids, classes=classes)


def class_records(names: Iterable[str], words: Mapping[str, str]) -> tuple[ClassRecord, ...]:
    """Return the classes of some names, sorted; a class without words gets its name for them.

    Raises InputError if two names cannot be told apart in print.
    """
    printable = sorted(printed(name) for name in names)
    for one, other in pairwise(printable):
        if one == other:
            raise InputError(f"two classes are called {one!r} once their names are made printable; rename one")
    return tuple(ClassRecord(wnid=name, words=words.get(name, name)) for name in printable)


def printed(name: str) -> str:
    r"""Return a file's name as text: bytes that are no UTF-8 become `\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def read_words(root: Path) -> dict[str, str]:
    """Return class words by WNID from the first of the usual files that is there; empty if none is."""
    path = next((root / name for name in WORD_FILES if (root / name).is_file()), None)
    lines = path.read_text("utf-8", "replace").splitlines() if path else []
    pairs = [line.split(None, 1) for line in lines]
    return {pair[0]: pair[1].lstrip(": ").strip() for pair in pairs if len(pair) == 2}
