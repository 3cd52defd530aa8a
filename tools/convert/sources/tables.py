"""Which classes there are, what they are called, and which class each validation image has, as tables say.

The devkit speaks in `ILSVRC2012_ID`s, which are not labels: those are places in the sorted list of WNIDs, as in Caffe,
PyTorch and every published checkpoint. All tables are turned into WNIDs at once: they are the only key that means the
same everywhere. Words are not unique. Tables that contradict the published labels are refused.
"""

import csv
import io
import re
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from alexnet.shards.errors import InputError
from alexnet.shards.files import read_bytes
from alexnet.shards.manifest import ClassRecord
from alexnet.tools.convert.known import DEVKIT_TAR, check_labels
from alexnet.tools.convert.sources.mat_file import read_records
from alexnet.tools.convert.sources.names import printed
from alexnet.tools.convert.sources.tar_headers import files_in

META = "meta.mat"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
SOLUTION = "LOC_val_solution.csv"
ANNOTATIONS = "val_annotations.txt"  # of tiny-imagenet-200
WORD_FILES = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")
"""Files of lines `WNID words`, as Kaggle, Caffe and WordNet give them."""

_MOST_DEVKIT_BYTES = 1 << 24  # of a file in it; META has less than a megabyte
_MOST_BYTES = 1 << 23  # WordNet's words and Kaggle's labels have 3 MB; as objects a table takes 30 times as much
_ID_DIGITS = 9  # more than any has; Python refuses to read thousands, as of a file that lost its line breaks
_DEVKIT_FOLDER = DEVKIT_TAR.removesuffix(".tar.gz")
_COPY = re.compile(r"(.+?)( \(\d\d?\)| \(copy( \d+)?\)| - Copy( \(\d+\))?| copy( \d+)?)")  # as file managers name them


@dataclass(frozen=True)
class ValLabels:
    """Hold the file that labels validation images, the WNID of each by its stem, and all its classes, sorted."""

    where: Path
    wnids: Mapping[str, str]
    classes: tuple[ClassRecord, ...]

    @cached_property
    def labels(self) -> dict[str, int]:
        """Return the label of each class by its WNID."""
        return {record.wnid: label for label, record in enumerate(self.classes)}

    def label_of(self, path: Path, name: str) -> int:
        """Return the label of an image called `name` in `path`. Raises InputError if it has none."""
        stem = PurePosixPath(name).name.split(".")[0]
        if stem not in self.wnids:
            raise InputError(
                f"{path}: {name} has no label: {self.where.name} labels {len(self.wnids):,} images, "
                f"{min(self.wnids, default='none')} to {max(self.wnids, default='none')}; the two must belong "
                "together; if it is no image, move it away"
            )
        return self.labels[self.wnids[stem]]


def find_devkit(root: Path) -> Path | None:
    """Return a folder's devkit in whichever form it is there: gzipped, gunzipped or extracted."""
    forms = (DEVKIT_TAR, f"{_DEVKIT_FOLDER}.tar", _DEVKIT_FOLDER)
    return next((root / form for form in forms if (root / form).exists()), None)


def devkit_files(path: Path) -> tuple[Path, ...]:
    """Return the files that are read from a devkit: the archive, or the two in the extracted folder."""
    return tuple(path / "data" / name for name in (META, GROUND_TRUTH)) if path.is_dir() else (path,)


def read_devkit(path: Path) -> ValLabels:
    """Read a devkit. Raises InputError if it is unreadable, or contradicts itself or the published labels."""
    inside = path / "data" if path.is_dir() else path
    files = dict(files_in(inside, (META, GROUND_TRUTH).__contains__, _MOST_DEVKIT_BYTES))
    for name in (META, GROUND_TRUTH):
        if name not in files:
            raise InputError(f"{path}: holds no {name}; give the devkit of tasks 1 and 2 (devkit_t12)")
    wnid_of, classes = _leaf_classes(path, files[META])
    ids = []
    for line, text in enumerate(files[GROUND_TRUTH].decode("utf-8-sig", "replace").split(), start=1):
        if not (text.isdecimal() and len(text) <= _ID_DIGITS and int(text) in wnid_of):
            raise InputError(f"{path}: line {line} of {GROUND_TRUTH} says {text[:20]!r}, which is no class of {META}")
        ids.append(int(text))
    wnids = {f"ILSVRC2012_val_{number:08d}": wnid_of[i] for number, i in enumerate(ids, start=1)}
    return _checked(ValLabels(path, wnids, classes), dict(enumerate(ids, start=1)))


def _leaf_classes(path: Path, meta: bytes) -> tuple[dict[int, str], tuple[ClassRecord, ...]]:
    """Return WNID by ILSVRC2012_ID for the leaf synsets (those without children), and the classes sorted by WNID."""
    try:
        leaves = [synset for synset in read_records(meta, "synsets") if int(synset["num_children"]) == 0]
        wnid_of = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in leaves}
        records = [ClassRecord(wnid=str(synset["WNID"]), words=str(synset["words"])) for synset in leaves]
    except (ValueError, KeyError, TypeError, OverflowError) as error:  # of fields: one lacks, is no number, is infinite
        raise InputError(f"{path}: {META} cannot be read ({error!r}); download the devkit again") from None
    if len({record.wnid for record in records}) != len(records):
        raise InputError(f"{path}: {META} gives one WNID to two classes; download the devkit again")
    return wnid_of, tuple(sorted(records, key=lambda record: record.wnid))


def _checked(found: ValLabels, ids: Mapping[int, int] | None = None) -> ValLabels:
    """Refuse labels that contradict the published ones."""
    numbers = ((stem.rpartition("_")[2], wnid) for stem, wnid in found.wnids.items())
    by_number = {int(number): found.labels[wnid] for number, wnid in numbers if number.isdecimal()}
    check_labels(found.where, tuple(found.labels), by_number, ids)
    return found


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
    return _checked(ValLabels(path, wnids, class_records(wnids.values(), words)))


def annotation_labels(path: Path, words: Mapping[str, str]) -> ValLabels:
    """Read tiny-imagenet's val_annotations.txt: a line of file name, WNID and a box for each image, tabs between.

    Raises InputError if a line has another form.
    """
    wnids: dict[str, str] = {}
    for number, line in enumerate(table_text(path).splitlines(), start=1):
        name, _, rest = line.partition("\t")
        stem, wnid = PurePosixPath(name).stem, rest.split("\t")[0].strip()
        if line.strip() and (not wnid or wnids.setdefault(stem, wnid) != wnid):
            what = "gives an image a second label" if wnid else "is no file name and WNID with a tab between"
            raise InputError(f"{path}: line {number} {what}; download it again")
    return ValLabels(path, wnids, class_records(wnids.values(), words))


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
    return tuple(ClassRecord(wnid=name, words=words.get(name, name)) for name in sorted(map(printed, names)))


def table_text(path: Path) -> str:
    """Return the text of a table, also of one that a spreadsheet saved: with a byte-order mark, or in UTF-16.

    Raises OSError, and InputError if it is too large for one.
    """
    try:
        data = read_bytes(path, _MOST_BYTES)
    except ValueError as error:
        raise InputError(f"{path}: {error}; it is no table of labels or words") from None
    return data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig", "replace")


def word_files(root: Path) -> list[Path]:
    """Return which of the usual files of words a folder has; the first is the one that is read."""
    return [path for name in WORD_FILES if (path := root / name).is_file()]


def read_words(root: Path) -> dict[str, str]:
    """Return class words by WNID from the first of the usual files that is there; empty if none is."""
    lines = [line for path in word_files(root)[:1] for line in table_text(path).splitlines()]
    pairs = [line.split(None, 1) for line in lines]
    return {pair[0]: pair[1].lstrip(": ").strip() for pair in pairs if len(pair) == 2}
