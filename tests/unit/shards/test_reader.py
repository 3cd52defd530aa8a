"""Reading a data set: any sample by its id, and one clear line when the folder is not what it says."""

import re
from pathlib import Path

import numpy as np
import pytest
import webdataset

from alexnet.shards.errors import InputError
from alexnet.shards.index import INDEX_DTYPE, write_index
from alexnet.shards.manifest import SCHEMA, SPLITS, read_manifest
from alexnet.shards.reader import SplitReader
from tests.unit.shards.forging import Forge, edit_array, edit_bytes, set_field, set_row, with_bytes


def test_every_sample_equals_what_webdataset_reads(data_set: Path) -> None:
    for split in SPLITS:
        reader = SplitReader(data_set, split)
        tars = [str(data_set / shard.file) for shard in reader.shards]
        samples = list(webdataset.WebDataset(tars, shardshuffle=False))
        assert len(samples) == len(reader)
        for i, sample in enumerate(samples):
            assert reader.jpeg(i).tobytes() == sample["jpg"]
            assert reader.key(i) == sample["__key__"]
            assert reader.labels[i] == int(sample["cls"])
            assert str(data_set / reader.shard(i).file) == sample["__url__"]


def test_bundled_set_is_100_and_20_images_of_10_classes(ci_100: Path) -> None:
    manifest = read_manifest(ci_100)
    train, val = SplitReader(ci_100, "train"), SplitReader(ci_100, "val")
    assert (len(train), len(val), len(manifest.classes), manifest.size_px) == (100, 20, 10, 256)
    assert np.bincount(train.labels).tolist() == [10] * 10
    assert np.bincount(val.labels).tolist() == [2] * 10
    assert len(manifest.shards_of("train")) == len(manifest.shards_of("val")) == 1


def test_missing_folder_and_wrong_level_are_told_apart(copy: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        read_manifest(copy / "nowhere")
    with pytest.raises(InputError, match=f"one split; give the data set itself, {re.escape(str(copy))}"):
        read_manifest(copy / "train")
    (copy / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"holds no manifest\.json"):
        read_manifest(copy)


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (set_field("schema", to=SCHEMA + 1), r"schema 2 is newer .* upgrade alexnet"),
        (with_bytes("manifest.json", b""), r"manifest\.json: cannot be read"),
        (with_bytes("manifest.json", b"\x00\xff"), r"manifest\.json: cannot be read"),
        (edit_bytes("train/000001.tar", lambda tar: tar[:-512]), r"train/000001\.tar: has [\d,]+ bytes where the mani"),
        (lambda root: (root / "train/000001.tar").unlink(), r"train/000001\.tar: No such file"),
        *[
            (
                set_row(field, 5, value),
                rf"index\.npy: has {field} {value}, which cannot be; it is damaged",
            )
            for field, value in (("label", 3), ("label", -1), ("shard", 9), ("offset", -1), ("length", -5))
        ],
        (edit_array("index.npy", lambda rows: rows[:-1]), "rows where the manifest counts"),
        (with_bytes("index.npy", b"\x93NUMPY"), r"index\.npy: cannot be read"),
    ],
)
def test_what_is_not_as_it_was_written_is_refused_in_one_line(copy: Path, forge: Forge, said: str) -> None:
    forge(copy)
    with pytest.raises(InputError, match=said) as error:
        SplitReader(copy, "train")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rows", [0, 1, 9, 10, 12_345])
def test_an_index_written_in_parts_is_what_numpy_writes(tmp_path: Path, rows: int) -> None:
    index = np.zeros(rows, INDEX_DTYPE)
    index["place"] = np.arange(rows)
    np.save(tmp_path / "whole.npy", index)
    write_index(tmp_path / "parts.npy", (index[first : first + 1000] for first in range(0, rows, 1000)))
    assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
