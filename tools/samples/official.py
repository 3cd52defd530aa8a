"""Write a source in ILSVRC-2012's official layout: three archives as they are downloaded, of any pictures."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.io import savemat

from alexnet.tools.convert.sources import DEVKIT_TAR, TRAIN_TAR, VAL_TAR
from alexnet.tools.convert.sources.tables import GROUND_TRUTH, META

Files = Mapping[str, bytes]


def write_official(
    root: Path, words: Mapping[str, str], train: Mapping[str, Files], val: Sequence[tuple[str, bytes]]
) -> None:
    """Write the three archives to `root`.

    `words`: class words by WNID. `train`: for each WNID its files by name. `val`: (WNID, bytes) of each validation
    image in order.
    """
    root.mkdir(parents=True, exist_ok=True)
    class_tars = {f"{wnid}.tar": tar_of(files) for wnid, files in train.items()}
    (root / TRAIN_TAR).write_bytes(tar_of(class_tars))
    images = {f"ILSVRC2012_val_{i:08d}.JPEG": data for i, (_, data) in enumerate(val, start=1)}
    (root / VAL_TAR).write_bytes(tar_of(images))
    write_devkit(root, words, [wnid for wnid, _ in val])


def write_devkit(
    root: Path, words: Mapping[str, str], val: Sequence[str], ids: Mapping[str, int] | None = None
) -> None:
    """Write the devkit to `root`: `val` has the WNID of each validation image.

    `ids`: the ILSVRC2012_ID of each WNID; given in falling order of WNIDs by default, so that they differ from labels,
    as in the real set.
    """
    ids = ids or {wnid: i for i, wnid in enumerate(sorted(words, reverse=True), start=1)}
    folder = DEVKIT_TAR.removesuffix(".tar.gz") + "/data"
    devkit = {
        f"{folder}/{META}": _meta(words, ids),
        f"{folder}/{GROUND_TRUTH}": "".join(f"{ids[wnid]}\n" for wnid in val).encode(),
    }
    (root / DEVKIT_TAR).write_bytes(tar_of(devkit, "w:gz"))


def tar_of(files: Files, mode: str = "w") -> bytes:
    """Pack files by name into a tar, gzipped with mode `w:gz`."""
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
