"""A shard is read by programs that are not ours, and its bytes depend on nothing but its samples."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from nvidia.dali import Pipeline, fn

from alexnet.shards.manifest import shard_file
from alexnet.shards.writer import Sample, publish_shard, write_shard

SAMPLES = [
    Sample(place=i + i // 2, stem=f"a.b c{i}", label=3 * i, jpeg=bytes([65 + i]) * (100 * i + 1)) for i in range(5)
]


def written(root: Path) -> Path:
    (root / "train").mkdir(parents=True)
    record, _ = write_shard(root, "train", 0, SAMPLES)
    publish_shard(root, record)
    return root / record.file


def test_dali_reads_it_through_its_index(tmp_path: Path) -> None:
    tar = written(tmp_path)
    pipeline = Pipeline(batch_size=5, num_threads=1, device_id=None)
    with pipeline:
        index = str(tar.with_suffix(".idx"))
        fields: Any = fn.readers.webdataset(paths=str(tar), index_paths=index, ext=["jpg", "cls"])
        pipeline.set_outputs(*fields)
    outputs: Any = pipeline.run()
    jpegs, labels = outputs
    assert [np.asarray(jpegs[i]).tobytes() for i in range(5)] == [s.jpeg for s in SAMPLES]
    assert [int(np.asarray(labels[i]).tobytes()) for i in range(5)] == [s.label for s in SAMPLES]


def test_index_is_the_one_that_dali_would_make(tmp_path: Path) -> None:
    tar = written(tmp_path)
    theirs = tmp_path / "theirs.idx"
    subprocess.run([sys.executable, "-m", "wds2idx", tar, theirs], check=True, capture_output=True)
    assert tar.with_suffix(".idx").read_bytes() == theirs.read_bytes()


def test_bytes_are_those_that_tarfile_would_write(tmp_path: Path) -> None:
    theirs = io.BytesIO()
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in SAMPLES:
            for name, data in ((f"{sample.key}.jpg", sample.jpeg), (f"{sample.key}.cls", str(sample.label).encode())):
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
        assert data[row["offset"] : row["offset"] + row["length"]] == sample.jpeg
        assert (row["shard"], row["label"], row["place"]) == (3, sample.label, sample.place)


def test_long_and_odd_names_become_short_and_plain() -> None:
    assert SAMPLES[0].key == "00000000_a_b_c0"
    key = Sample(place=12, stem="ü/..x" + "y" * 100, label=0, jpeg=b"").key
    assert key == "00000012____" + "_x" + "y" * 55
    assert len(f"{key}.jpg") < 100
