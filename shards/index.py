"""The index: where every sample lies, so that any of 1.3 million is one array look-up away.

One NumPy file for the whole data set, one row a sample, the training split's rows first, each split in the order of
its shards. It is memory-mapped: opening it costs milliseconds whatever its length (24 bytes a sample).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import INDEX_NAME, Manifest, Split

INDEX_DTYPE = np.dtype([("offset", "<i8"), ("length", "<i4"), ("shard", "<i4"), ("label", "<i4"), ("place", "<i4")])
"""`offset`, `length`: the JPEG's bytes inside its tar. `shard`: the tar's number within its split. `label`: class.
`place`: the sample's place in the split's order, which its key begins with (rejected images leave gaps)."""

IndexRows = npt.NDArray[np.void]


def rows_of(shard: int, samples: Sequence[tuple[int, int, int, int]]) -> IndexRows:
    """Build one shard's rows from (offset, length, label, place) of each sample."""
    rows = np.zeros(len(samples), INDEX_DTYPE)
    for field, column in zip(("offset", "length", "label", "place"), zip(*samples, strict=True), strict=False):
        rows[field] = column
    rows["shard"] = shard
    return rows


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


def read_index(root: Path, manifest: Manifest, split: Split) -> IndexRows:
    """Map one split's rows. Raises InputError if the index is missing or has not as many rows as the manifest says."""
    path = root / INDEX_NAME
    try:
        rows: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error}); rebuild the data with `alexnet-prep shard`") from None
    counts = {name: c.written for name, c in manifest.counts.items()}
    if rows.dtype != INDEX_DTYPE or len(rows) != sum(counts.values()):
        raise InputError(
            f"{path}: has {len(rows)} rows where the manifest counts {sum(counts.values())} samples; "
            "it belongs to another data set or was cut short; rebuild the data with `alexnet-prep shard`"
        )
    first = 0 if split == "train" else counts["train"]
    return rows[first : first + counts[split]]
