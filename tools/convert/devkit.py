"""Read the development kit: the class list and the validation labels.

The kit speaks in `ILSVRC2012_ID`s, which are not training labels: those are places in the sorted list of WNIDs, as in
Caffe, PyTorch and every published checkpoint. This file does the translation.
"""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from scipy.io import loadmat

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import ClassRecord

META = "meta.mat"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"


@dataclass(frozen=True, kw_only=True)
class Devkit:
    """Hold the leaf classes sorted by WNID and the label of each validation image in file-name order."""

    classes: tuple[ClassRecord, ...]
    val_labels: tuple[int, ...]


def read_devkit(path: Path) -> Devkit:
    """Read a devkit archive, gzipped or not. Raises InputError if it is unreadable or contradicts itself."""
    files = _extract(path)
    wnid_of, classes = _leaf_classes(path, files[META])
    labels = {record.wnid: label for label, record in enumerate(classes)}
    val_labels = []
    for line, text in enumerate(files[GROUND_TRUTH].decode("ascii", "replace").split(), start=1):
        wnid = wnid_of.get(int(text)) if text.isdigit() else None
        if wnid is None:
            raise InputError(f"{path}: line {line} of {GROUND_TRUTH} says {text!r}, which is no class of {META}")
        val_labels.append(labels[wnid])
    return Devkit(classes=classes, val_labels=tuple(val_labels))


def _extract(path: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                data = tar.extractfile(member) if name in (META, GROUND_TRUTH) else None
                if data is not None:
                    files[name] = data.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as a tar ({error}); download the devkit again") from None
    for name in (META, GROUND_TRUTH):
        if name not in files:
            raise InputError(f"{path}: holds no {name}; give the devkit of tasks 1 and 2 (devkit_t12)")
    return files


def _leaf_classes(path: Path, meta: bytes) -> tuple[dict[int, str], tuple[ClassRecord, ...]]:
    """Return WNID by ILSVRC2012_ID for the leaf synsets (those without children), and the classes sorted by WNID."""
    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True, struct_as_record=False)["synsets"]
        leaves = [s for s in synsets if int(s.num_children) == 0]
        wnid_of = {int(s.ILSVRC2012_ID): str(s.WNID) for s in leaves}
        records = [ClassRecord(wnid=str(s.WNID), words=str(s.words)) for s in leaves]
    except Exception as error:  # loadmat raises whatever its parser trips over
        raise InputError(f"{path}: {META} cannot be read ({error!r}); download the devkit again") from None
    return wnid_of, tuple(sorted(records, key=lambda record: record.wnid))
