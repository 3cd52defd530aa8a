"""Which classes there are, and which class each validation image has, as the devkit or Kaggle's table say.

Both are turned into WNIDs at once: a WNID is the only key that means the same everywhere. Words are not unique.
"""

import csv
import io
import os
import re
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from alexnet.shards.errors import InputError
from alexnet.shards.files import read_bytes
from alexnet.shards.manifest import ClassRecord
from alexnet.tools.convert.devkit import Devkit
from alexnet.tools.convert.known import check_labels

SOLUTION = "LOC_val_solution.csv"
ANNOTATIONS = "val_annotations.txt"  # of tiny-imagenet-200
_MOST_BYTES = 1 << 23  # WordNet's words and Kaggle's labels have 3 MB; as objects a table takes 30 times as much
_COPY = re.compile(r"(.+?)( \(\d\d?\)| \(copy( \d+)?\)| - Copy( \(\d+\))?| copy( \d+)?)")  # as file managers name them
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
    text = table_text(path)
    delimiter = next((mark for mark in ",;\t" if mark in text.partition("\n")[0]), ",")  # spreadsheets take their own
    try:
        for row in csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter):
            image, answer = row.get("ImageId"), (row.get("PredictionString") or "").split()
            if not (image or answer or any(row.values())) and "ImageId" in row:
                continue  # as spreadsheets leave behind
            if not image or not answer:
                raise csv.Error("has not the columns ImageId,PredictionString")
            if wnids.setdefault(image, answer[0]) != answer[0]:
                raise csv.Error(f"gives {image} a second label, {answer[0]} after {wnids[image]}")
    except csv.Error as error:  # also a stray quotation mark, which makes one field of all that follows
        raise InputError(f"{path}: line {len(wnids) + 2}: {error}; download it again") from None
    classes = class_records(set(wnids.values()), words)
    labels = {record.wnid: label for label, record in enumerate(classes)}
    numbers = {stem: stem.rpartition("_")[2] for stem in wnids}
    by_number = {int(number): labels[wnids[stem]] for stem, number in numbers.items() if number.isdecimal()}
    check_labels(path, tuple(labels), by_number)
    return ValLabels(where=path, wnids=wnids, classes=classes)


def annotation_labels(path: Path, words: Mapping[str, str]) -> ValLabels:
    """Read tiny-imagenet's val_annotations.txt: a line of file name, WNID and a box for each image, tabs between.

    Raises InputError if a line has another form.
    """
    wnids: dict[str, str] = {}
    for number, line in enumerate(table_text(path).splitlines(), start=1):
        name, _, rest = line.partition("\t")
        stem, wnid = PurePosixPath(name).stem, rest.split("\t")[0].strip()
        if not line.strip():
            continue
        if not wnid or wnids.setdefault(stem, wnid) != wnid:
            what = "gives an image a second label" if wnid else "is no file name and WNID with a tab between"
            raise InputError(f"{path}: line {number} {what}; download it again")
    return ValLabels(where=path, wnids=wnids, classes=class_records(set(wnids.values()), words))


def class_records(names: Iterable[str], words: Mapping[str, str]) -> tuple[ClassRecord, ...]:
    """Return the classes of some names, sorted; a class without words gets its name for them.

    Raises InputError if two names cannot be told apart in print.
    """
    alike: dict[str, str] = {}
    names = set(names)
    for name in sorted(names):
        seen = " ".join("".join(c for c in printed(name) if unicodedata.category(c) != "Cf").split())
        if alike.setdefault(seen, name) != name:
            raise InputError(
                f"two classes are called {seen!r} as far as print shows: {alike[seen]!a} and {name!a}; "
                "rename one, or put their images into one folder"
            )
    copies = [name for name in names if (copy := _COPY.fullmatch(name)) and copy[1] in names]
    if copies:
        raise InputError(
            f"{min(copies)!r} looks like a copy of the class beside it, and its images would count twice, as another "
            "class; move it away, or rename it"
        )
    return tuple(ClassRecord(wnid=name, words=words.get(name, name)) for name in sorted(map(printed, alike.values())))


def printed(name: str) -> str:
    r"""Return a file's name as text: composed letters (NFC), as not every system has; no UTF-8 becomes `\xNN`."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def table_text(path: Path) -> str:
    """Return the text of a table, also of one that a spreadsheet saved: with a byte-order mark, or in UTF-16.

    Raises OSError, and InputError if it is too large for one.
    """
    try:
        data = read_bytes(path, _MOST_BYTES)
    except ValueError as error:
        raise InputError(f"{path}: {error}; it is no table of labels or words") from None
    return data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig", "replace")


def read_words(root: Path) -> dict[str, str]:
    """Return class words by WNID from the first of the usual files that is there; empty if none is."""
    path = next((root / name for name in WORD_FILES if (root / name).is_file()), None)
    lines = table_text(path).splitlines() if path else []
    pairs = [line.split(None, 1) for line in lines]
    return {pair[0]: pair[1].lstrip(": ").strip() for pair in pairs if len(pair) == 2}
