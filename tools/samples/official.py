"""Write a source in ILSVRC-2012's official layout: three archives as they are downloaded, of any pictures."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.io import savemat

from alexnet.tools.convert.devkit import GROUND_TRUTH, META
from alexnet.tools.convert.sources import DEVKIT_TAR, TRAIN_TAR, VAL_TAR

Files = Mapping[str, bytes]


def write_official(
    root: Path, words: Mapping[str, str], train: Mapping[str, Files], val: Sequence[tuple[str, bytes]]
) -> None:
    """Write the three archives to `root`.

    `words`: class words by WNID. `train`: for each WNID its files by name. `val`: (WNID, bytes) of each validation
    image in order. IDs are given in falling order of WNID, so that they differ from labels, as in the real set.
    """
    root.mkdir(parents=True, exist_ok=True)
    class_tars = {f"{wnid}.tar": _tar(files) for wnid, files in train.items()}
    (root / TRAIN_TAR).write_bytes(_tar(class_tars))
    images = {f"ILSVRC2012_val_{i:08d}.JPEG": data for i, (_, data) in enumerate(val, start=1)}
    (root / VAL_TAR).write_bytes(_tar(images))
    ids = {wnid: i for i, wnid in enumerate(sorted(words, reverse=True), start=1)}
    folder = "ILSVRC2012_devkit_t12/data"
    devkit = {
        f"{folder}/{META}": _meta(words, ids),
        f"{folder}/{GROUND_TRUTH}": "".join(f"{ids[wnid]}\n" for wnid, _ in val).encode(),
    }
    (root / DEVKIT_TAR).write_bytes(_tar(devkit, "w:gz"))


def _tar(files: Files, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _meta(words: Mapping[str, str], ids: Mapping[str, int]) -> bytes:
    """Build meta.mat: the leaf classes, and one inner synset above them, which is no class."""
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [(float(i), wnid, words[wnid], "", 0.0) for wnid, i in sorted(ids.items(), key=lambda item: item[1])]
    rows.append((float(len(ids) + 1), "n00000000", "everything", "", float(len(ids))))
    synsets = np.array(rows, dtype=fields).reshape(-1, 1)
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": synsets})
    return buffer.getvalue()
