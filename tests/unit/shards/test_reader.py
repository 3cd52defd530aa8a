"""What is written is read: by programs that are not ours, and by `SplitReader`, or refused in one clear line."""

import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from alexnet.shards.errors import InputError
from alexnet.shards.index import INDEX_DTYPE, write_index
from alexnet.shards.manifest import SCHEMA, SPLITS, read_manifest, shard_file
from alexnet.shards.reader import SplitReader
from alexnet.shards.writer import Sample, publish_shard, write_shard
from tests.unit.shards.forging import Forge, edit_array, edit_bytes, set_field, set_row, with_bytes

SAMPLES = [
    Sample(place=i + i // 2, stem=f"a.b c{i}", label=3 * i, stored=bytes([65 + i]) * (100 * i + 1)) for i in range(5)
]


def written(root: Path) -> Path:
    (root / "train").mkdir(parents=True)
    record, _ = write_shard(root, "train", 0, SAMPLES)
    publish_shard(root, record)
    return root / record.file


def test_dali_reads_it_through_its_index(tmp_path: Path) -> None:
    dali: Any = pytest.importorskip("nvidia.dali", reason="DALI is for Linux on x86 and Arm")
    tar = written(tmp_path)
    pipeline = dali.Pipeline(batch_size=5, num_threads=1, device_id=None)
    with pipeline:
        index = str(tar.with_suffix(".idx"))
        fields: Any = dali.fn.readers.webdataset(paths=str(tar), index_paths=index, ext=["jpg", "cls"])
        pipeline.set_outputs(*fields)
    outputs: Any = pipeline.run()
    jpegs, labels = outputs
    assert [np.asarray(jpegs[i]).tobytes() for i in range(5)] == [s.stored for s in SAMPLES]
    assert [int(np.asarray(labels[i]).tobytes()) for i in range(5)] == [s.label for s in SAMPLES]


@pytest.mark.dali
def test_index_is_the_one_that_dali_would_make(tmp_path: Path) -> None:
    tar = written(tmp_path)
    theirs = tmp_path / "theirs.idx"
    subprocess.run([sys.executable, "-m", "wds2idx", tar, theirs], check=True, capture_output=True)
    assert tar.with_suffix(".idx").read_bytes() == theirs.read_bytes()


def test_bytes_are_those_that_tarfile_would_write(tmp_path: Path) -> None:
    theirs = io.BytesIO()
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in SAMPLES:
            for name, data in ((f"{sample.key}.jpg", sample.stored), (f"{sample.key}.cls", str(sample.label).encode())):
                member = tarfile.TarInfo(name)
                member.size, member.mode, member.uname, member.gname = len(data), 0o444, "root", "root"
                tar.addfile(member, io.BytesIO(data))
    assert written(tmp_path).read_bytes() == theirs.getvalue()


def test_record_and_rows_tell_the_truth(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    record, rows = write_shard(tmp_path, "val", 3, SAMPLES)
    assert record.file == shard_file("val", 3) == "val/000003.tar"
    assert not (tmp_path / record.file).exists(), "a tar has its name only when it is published"
    publish_shard(tmp_path, record)
    data = (tmp_path / record.file).read_bytes()
    assert record.bytes == len(data)
    for row, sample in zip(rows, SAMPLES, strict=True):
        assert data[row["offset"] : row["offset"] + row["length"]] == sample.stored
        assert (row["shard"], row["label"], row["place"]) == (3, sample.label, sample.place)


def test_long_and_odd_names_become_short_and_plain() -> None:
    assert SAMPLES[0].key == "00000000_a_b_c0"
    key = Sample(place=12, stem="ü/..x" + "y" * 100, label=0, stored=b"").key
    assert key == "00000012____" + "_x" + "y" * 55
    assert len(f"{key}.jpg") < 100


def test_every_sample_equals_what_webdataset_reads(data_set: Path) -> None:
    for split in SPLITS:
        reader = SplitReader(data_set, split)
        tars = [str(data_set / shard.file) for shard in reader.shards]
        samples = list(webdataset.WebDataset(tars, shardshuffle=False))
        assert len(samples) == len(reader)
        for i, sample in enumerate(samples):
            assert reader.stored(i).tobytes() == sample["jpg"]
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
