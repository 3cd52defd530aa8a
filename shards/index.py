"""The index: where every sample lies, so that any of 1.3 million is one array look-up away.

One NumPy file for the whole data set, one row a sample, the training split's rows first, each split in the order of
its shards. It is memory-mapped: opening it costs milliseconds whatever its length (24 bytes a sample).
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import IO

import numpy as np
import numpy.typing as npt

from alexnet.shards.errors import InputError, reason_of
from alexnet.shards.files import map_array
from alexnet.shards.manifest import INDEX_NAME, MEND, SPLITS, Manifest, Split

INDEX_DTYPE = np.dtype([("offset", "<i8"), ("length", "<i4"), ("shard", "<i4"), ("label", "<i4"), ("place", "<i4")])
"""`offset`, `length`: the stored image's bytes inside its tar. `shard`: the tar's number within its split. `label`:
class. `place`: the sample's place in the split's order, which its key begins with (rejected images leave gaps)."""

IndexRows = npt.NDArray[np.void]

OFFICIAL_VAL_LABELS = (65, 970, 230, 809)
"""Of ILSVRC2012_val_00000001 to 4, whose ILSVRC2012_IDs are 490, 361, 171 and 822."""
OFFICIAL_CLASSES_SHA256 = "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15"  # sorted WNIDs, one a line

_VAL_IMAGES, _VAL_IMAGES_PER_CLASS = 50_000, 50
_BLOCK_ROWS = 1 << 15  # 800 kB: stays in a core's cache while it is checked


def write_index(path: Path, parts: Iterable[IndexRows]) -> None:
    """Write rows as one NumPy file, the bytes that `np.save` would write, with one part in memory at a time."""
    with path.open("wb") as file:
        _write_header(file, 0)
        count = 0
        for rows in parts:
            file.write(rows.tobytes())
            count += len(rows)
        file.seek(0)
        _write_header(file, count)  # NumPy pads headers, so that the count can grow in place


def _write_header(file: IO[bytes], count: int) -> None:
    descr = np.lib.format.dtype_to_descr(INDEX_DTYPE)
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": (count,)})


def map_index(root: Path, manifest: Manifest) -> dict[Split, IndexRows]:
    """Map the rows of both splits, looking at none. Raises OSError, and ValueError if it cannot be the manifest's."""
    rows = map_array(root / INDEX_NAME, INDEX_DTYPE)
    train, val = (manifest.counts[split].written for split in SPLITS)
    if rows.shape != (train + val,):
        shape = "x".join(map(str, rows.shape))
        raise ValueError(f"it has {shape} rows where the manifest counts {train + val:,} samples")
    return {"train": rows[:train], "val": rows[train:]}


def read_index(root: Path, manifest: Manifest, split: Split) -> IndexRows:
    """Map one split's rows. Raises InputError if the index is missing, is not the manifest's or points nowhere."""
    path = root / INDEX_NAME
    try:
        rows = map_index(root, manifest)[split].view(np.ndarray)  # a part of a memmap is made by a call of Python
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({reason_of(error)}); {MEND}") from None
    shards = manifest.shards_of(split)
    numbers = np.repeat(np.arange(len(shards), dtype=np.int32), [shard.images for shard in shards])
    ends = np.array([shard.bytes for shard in shards], np.int64)
    stored = manifest.stored
    allowed = {"label": (0, len(manifest.classes) - 1), "length": (stored.min_sample_bytes, stored.max_sample_bytes)}
    for first in range(0, len(rows), _BLOCK_ROWS):
        part = slice(max(0, first - 1), first + _BLOCK_ROWS)  # with the row before, which the first lies after
        for field, wrong in _wrong_rows(rows[part], numbers[part], ends, allowed):
            if wrong.any():
                value = rows[field][part.start + int(wrong.argmax())]
                raise InputError(f"{path}: has {field} {value}, which cannot be; it is damaged: {MEND}")
    return rows


def _wrong_rows(
    rows: IndexRows, numbers: npt.NDArray[np.int32], ends: npt.NDArray[np.int64], allowed: Mapping[str, tuple[int, int]]
) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Yield fields and which rows have one that points nowhere: a label of no class would train, or fail far from here.

    `numbers`: each row's shard. `ends`: bytes of each shard; a sample lies after the one before it, with its header.
    `allowed`: the least and the most that a field may be.
    """
    length, offset = rows["length"], rows["offset"]
    for field, (least, most) in allowed.items():
        yield field, (rows[field] < least) | (rows[field] > most)
    yield "shard", rows["shard"] != numbers
    yield "offset", (offset < BLOCKSIZE) | (offset > ends[numbers] - length)
    behind = (offset[1:] - offset[:-1] < length[:-1] + BLOCKSIZE) & (numbers[1:] == numbers[:-1])
    yield "offset", np.concatenate([[False], behind])


def is_official(wnids: Iterable[str]) -> bool:
    """Say whether these are the 1,000 classes of ILSVRC-2012."""
    text = "".join(f"{wnid}\n" for wnid in sorted(wnids))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest() == OFFICIAL_CLASSES_SHA256


def class_problem(manifest: Manifest) -> str:
    """Say which class is not where its WNID's place in sorted order, or the user's list, has it; nothing if all are."""
    wnids = [record.wnid for record in manifest.classes]
    if manifest.settings.get("class_order", "sorted") != "sorted":
        return "" if len(set(wnids)) == len(wnids) else "has a class twice"
    for label, (before, after) in enumerate(itertools.pairwise(wnids), start=1):
        if before >= after:
            said = f"class {label} ({after}) must not come after class {label - 1} ({before})"
            return f"{said}: labels follow the sorted WNIDs"
    return ""


def official_label_problems(manifest: Manifest, val_rows: IndexRows) -> Iterator[str]:
    """Yield validation labels that are not ILSVRC-2012's published ones, as where its IDs were taken for labels."""
    ours = not {"class_order", "adopted"}.isdisjoint(manifest.settings) or manifest.counts["val"].input != _VAL_IMAGES
    if ours or not is_official(record.wnid for record in manifest.classes):
        return
    for place, label in val_rows[["place", "label"]][: len(OFFICIAL_VAL_LABELS)].tolist():
        if 0 <= place < len(OFFICIAL_VAL_LABELS) and label != OFFICIAL_VAL_LABELS[place]:
            right = OFFICIAL_VAL_LABELS[place]
            yield f"labels ILSVRC2012_val_{place + 1:08d} {label}, which is {right} everywhere else"
    labels, images = np.unique(val_rows["label"], return_counts=True)
    if len(images) and images.max() > _VAL_IMAGES_PER_CLASS:
        most = int(images.argmax())
        yield f"has {images[most]} validation images of class {labels[most]}: ILSVRC-2012 has {_VAL_IMAGES_PER_CLASS}"
