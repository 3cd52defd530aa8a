"""The index is one NumPy file, whoever wrote it and in how many parts."""

from pathlib import Path

import numpy as np
import pytest

from alexnet.shards.index import INDEX_DTYPE, write_index


@pytest.mark.parametrize("rows", [0, 1, 9, 10, 12_345])
def test_written_in_parts_it_is_what_numpy_writes(tmp_path: Path, rows: int) -> None:
    index = np.zeros(rows, INDEX_DTYPE)
    index["place"] = np.arange(rows)
    np.save(tmp_path / "whole.npy", index)
    write_index(tmp_path / "parts.npy", (index[first : first + 1000] for first in range(0, rows, 1000)))
    assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
