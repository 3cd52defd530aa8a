"""The index is one NumPy file, whoever wrote it and in how many parts."""

from pathlib import Path

import numpy as np
import pytest

from alexnet.shards.index import INDEX_DTYPE, rows_of, write_index


@pytest.mark.parametrize("rows", [0, 1, 9, 10, 12_345])
def test_written_in_parts_it_is_what_numpy_writes(tmp_path: Path, rows: int) -> None:
    index = np.zeros(rows, INDEX_DTYPE)
    index["place"] = np.arange(rows)
    np.save(tmp_path / "whole.npy", index)
    write_index(tmp_path / "parts.npy", (index[first : first + 1000] for first in range(0, rows, 1000)))
    assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_parts_are_taken_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "index.npy"
    parts = (rows_of(shard, [(512, 9, 1, place) for place in range(3)]) for shard in range(2))
    write_index(path, parts)
    assert np.load(path)["shard"].tolist() == [0, 0, 0, 1, 1, 1]
    assert np.load(path)["place"].tolist() == [0, 1, 2, 0, 1, 2]
