"""Read the development kit: the class list and the validation labels.

The kit speaks in `ILSVRC2012_ID`s, which are not training labels: those are places in the sorted list of WNIDs, as in
Caffe, PyTorch and every published checkpoint. This file does the translation, and refuses one that contradicts the
published labels.
"""

from dataclasses import dataclass
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.shards.files import read_bytes
from alexnet.shards.manifest import ClassRecord
from alexnet.tools.convert.known import DEVKIT_TAR, check_labels
from alexnet.tools.convert.mat_file import read_records
from alexnet.tools.convert.packed import files_in

META = "meta.mat"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_FOLDER = DEVKIT_TAR.removesuffix(".tar.gz")
_ID_DIGITS = 9  # more than any has; Python refuses to read thousands, as of a file that lost its line breaks
MOST_BYTES = 1 << 24  # of a file in it; META has less than a megabyte
_FORMS = (DEVKIT_TAR, f"{_FOLDER}.tar", _FOLDER)


@dataclass(frozen=True, kw_only=True)
class Devkit:
    """Hold the leaf classes sorted by WNID and the label of each validation image in file-name order."""

    classes: tuple[ClassRecord, ...]
    val_labels: tuple[int, ...]


def find_devkit(root: Path) -> Path | None:
    """Return a folder's devkit in whichever form it is there: gzipped, gunzipped or extracted."""
    return next((root / form for form in _FORMS if (root / form).exists()), None)


def devkit_files(path: Path) -> tuple[Path, ...]:
    """Return the files that are read from a devkit: the archive, or the two in the extracted folder."""
    return tuple(path / "data" / name for name in (META, GROUND_TRUTH)) if path.is_dir() else (path,)


def read_devkit(path: Path) -> Devkit:
    """Read a devkit. Raises InputError if it is unreadable, or contradicts itself or the published labels."""
    wanted = (META, GROUND_TRUTH)
    files = _read_folder(path) if path.is_dir() else dict(files_in(path, wanted.__contains__, MOST_BYTES))
    for name in wanted:
        if name not in files:
            raise InputError(f"{path}: holds no {name}; give the devkit of tasks 1 and 2 (devkit_t12)")
    wnid_of, classes = _leaf_classes(path, files[META])
    labels = {record.wnid: label for label, record in enumerate(classes)}
    ids = []
    for line, text in enumerate(files[GROUND_TRUTH].decode("utf-8-sig", "replace").split(), start=1):
        if not (text.isdecimal() and len(text) <= _ID_DIGITS and int(text) in wnid_of):
            raise InputError(f"{path}: line {line} of {GROUND_TRUTH} says {text[:20]!r}, which is no class of {META}")
        ids.append(int(text))
    val_labels = [labels[wnid_of[i]] for i in ids]
    check_labels(path, tuple(labels), dict(enumerate(val_labels, start=1)), dict(enumerate(ids, start=1)))
    return Devkit(classes=classes, val_labels=tuple(val_labels))


def _read_folder(path: Path) -> dict[str, bytes]:
    try:
        return {file.name: read_bytes(file, MOST_BYTES) for file in devkit_files(path) if file.is_file()}
    except ValueError as error:
        raise InputError(f"{path}: one of its files {error}; download the devkit again") from None


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
