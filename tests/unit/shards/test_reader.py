"""Reading a data set: any sample by its id, and one clear line when the folder is not what it says."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import webdataset

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import SCHEMA, Manifest, read_manifest
from alexnet.shards.reader import SplitReader


@pytest.fixture
def copy(data_set: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data_set, tmp_path / "copy"))


def test_every_sample_equals_what_webdataset_reads(data_set: Path) -> None:
    for split in ("train", "val"):
        reader = SplitReader(data_set, "train" if split == "train" else "val")
        tars = [str(data_set / shard.file) for shard in reader.shards]
        samples = list(webdataset.WebDataset(tars, shardshuffle=False))
        assert len(samples) == len(reader)
        for i, sample in enumerate(samples):
            assert reader.jpeg(i).tobytes() == sample["jpg"]
            assert reader.key(i) == sample["__key__"]
            assert reader.labels[i] == int(sample["cls"])
            assert str(data_set / reader.shard(i).file) == sample["__url__"]


def test_manifest_survives_a_round_trip(data_set: Path) -> None:
    manifest = read_manifest(data_set)
    assert manifest.to_json() == (data_set / "manifest.json").read_text()
    assert manifest.digest() == read_manifest(data_set).digest()


def test_bundled_set_is_100_and_20_images_of_10_classes(ci_100: Path) -> None:
    manifest: Manifest = read_manifest(ci_100)
    train, val = SplitReader(ci_100, "train"), SplitReader(ci_100, "val")
    assert (len(train), len(val), len(manifest.classes), manifest.size_px) == (100, 20, 10, 256)
    assert np.bincount(train.labels).tolist() == [10] * 10
    assert np.bincount(val.labels).tolist() == [2] * 10
    assert len(manifest.shards_of("train")) == len(manifest.shards_of("val")) == 1


def edit(root: Path, **fields: object) -> None:
    path = root / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_newer_schema_is_refused(copy: Path) -> None:
    edit(copy, schema=SCHEMA + 1)
    with pytest.raises(InputError, match=r"schema 2 is newer .* upgrade alexnet"):
        SplitReader(copy, "train")


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"schema": 1}', "\x00\xff"])
def test_what_is_no_manifest_is_refused_in_one_line(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(InputError) as error:
        SplitReader(copy, "train")
    assert "manifest.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_folder_and_wrong_level_are_told_apart(copy: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        read_manifest(copy / "nowhere")
    with pytest.raises(InputError, match=f"one split; give the data set itself, {re.escape(str(copy))}"):
        read_manifest(copy / "train")
    (copy / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"holds no manifest\.json"):
        read_manifest(copy)


def test_a_shard_of_another_size_is_named(copy: Path) -> None:
    tar = copy / "train" / "000001.tar"
    tar.write_bytes(tar.read_bytes()[:-512])
    with pytest.raises(InputError, match=r"train/000001\.tar: has [\d,]+ bytes where the manifest says"):
        SplitReader(copy, "train")
    SplitReader(copy, "val")


def test_a_missing_shard_is_named(copy: Path) -> None:
    (copy / "val" / "000000.tar").unlink()
    with pytest.raises(InputError, match=r"val/000000\.tar: No such file"):
        SplitReader(copy, "val")


@pytest.mark.parametrize(
    ("field", "value"), [("label", 3), ("label", -1), ("shard", 9), ("offset", -1), ("length", -5)]
)
def test_an_index_that_points_nowhere_is_refused(copy: Path, field: str, value: int) -> None:
    rows = np.load(copy / "index.npy")
    rows[field][5] = value
    np.save(copy / "index.npy", rows)
    with pytest.raises(InputError, match=rf"index\.npy: has {field} {value}, which cannot be; it is damaged"):
        SplitReader(copy, "train")
    SplitReader(copy, "val")


def test_an_index_of_another_data_set_is_refused(copy: Path) -> None:
    rows = np.load(copy / "index.npy")
    np.save(copy / "index.npy", rows[:-1])
    with pytest.raises(InputError, match="rows where the manifest counts"):
        SplitReader(copy, "train")
    (copy / "index.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match=r"index\.npy: cannot be read"):
        SplitReader(copy, "train")
