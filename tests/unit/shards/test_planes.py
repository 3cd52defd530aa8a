"""A data set of planes is read as one of JPEGs is, and refused where a sample cannot be planes of its size."""

import subprocess
import sys
from pathlib import Path
from tarfile import BLOCKSIZE
from typing import Any

import numpy as np
import pytest
import webdataset

from alexnet.pipeline.host import available
from alexnet.shards.errors import InputError, SampleError
from alexnet.shards.manifest import SPLITS, read_manifest
from alexnet.shards.planes import planes_bytes
from alexnet.shards.reader import SplitReader
from alexnet.shards.tar import member_header
from alexnet.shards.verify import verify
from tests.planes import planes_of, write_planes_set
from tests.unit.shards.forging import TAR, Forge, edit_field, edit_tar, problems, reseal, set_field, set_row

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))


@pytest.fixture
def planes(data_set: Path, tmp_path: Path) -> Path:
    return write_planes_set(data_set, tmp_path / "planes")


def test_planes_are_luma_and_two_chroma_planes_of_halves_rounded_up() -> None:
    assert planes_bytes(256, 256) == 256 * 256 + 2 * 128 * 128 == 98_304
    assert planes_bytes(3, 5) == 3 * 5 + 2 * 2 * 3
    assert planes_bytes(1, 1) == 3


def test_reader_and_webdataset_find_the_planes_of_each_jpeg(data_set: Path, planes: Path) -> None:
    for split in SPLITS:
        reader, jpegs = SplitReader(planes, split), SplitReader(data_set, split)
        samples = list(webdataset.WebDataset([str(planes / s.file) for s in reader.shards], shardshuffle=False))
        assert len(samples) == len(reader) == len(jpegs)
        assert reader.stored_bytes() == len(reader) * planes_bytes(40, 40)
        assert np.array_equal(reader.labels, jpegs.labels)
        for i, sample in enumerate(samples):
            assert reader.stored(i).tobytes() == sample["yuv"] == planes_of(jpegs.stored(i), 40).tobytes()
            assert reader.key(i) == jpegs.key(i) == sample["__key__"]
            assert int(sample["cls"]) == jpegs.labels[i]


def test_dali_reads_planes_through_their_index(planes: Path) -> None:
    dali: Any = pytest.importorskip("nvidia.dali", reason="DALI is for Linux on x86 and Arm")
    pipeline = dali.Pipeline(batch_size=5, num_threads=1, device_id=None)
    with pipeline:
        index = str((planes / TAR).with_suffix(".idx"))
        fields: Any = dali.fn.readers.webdataset(paths=str(planes / TAR), index_paths=index, ext=["yuv", "cls"])
        pipeline.set_outputs(*fields)
    found, labels = pipeline.run()
    reader = SplitReader(planes, "train")
    assert [np.asarray(found[i]).tobytes() for i in range(5)] == [reader.stored(i).tobytes() for i in range(5)]
    assert [int(np.asarray(labels[i]).tobytes()) for i in range(5)] == reader.labels[:5].tolist()


@pytest.mark.dali
def test_index_file_is_the_one_that_dali_would_make(planes: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.idx"
    subprocess.run([sys.executable, "-m", "wds2idx", planes / TAR, theirs], check=True, capture_output=True)
    assert (planes / TAR).with_suffix(".idx").read_bytes() == theirs.read_bytes()


def test_planes_are_of_the_images_that_they_were_decoded_from(data_set: Path, planes: Path) -> None:
    jpegs = read_manifest(data_set)
    assert jpegs.images_digest() == jpegs.digest() == read_manifest(planes).images_digest()
    assert read_manifest(planes).digest() != jpegs.digest()
    edit_field("source", change=lambda source: {**source, "classes": "a list"})(planes)
    part = read_manifest(planes)
    assert part.images_digest() == part.digest()


def test_sound_planes_are_verified(planes: Path) -> None:
    report = verify(planes)
    assert report.passed, problems(report)


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (set_field("settings", "encoding", to="planes-444"), r"encoding.*alexnet-prep"),
        (set_field("source", to={"kind": "planes of a data set"}), "source has no digest"),
        (set_field("source", "digest", to=""), "source has no digest, a sha256"),
        (set_field("source", "digest", to="0" * 64 + "\n"), "source has no digest, a sha256"),
        (set_row("length", 3, planes_bytes(40, 40) - 1), "has length 2399, which cannot be"),
        (set_row("length", 3, planes_bytes(40, 40) + 1), "has length 2401, which cannot be"),
    ],
)
def test_what_cannot_be_planes_is_refused(planes: Path, forge: Forge, message: str) -> None:
    forge(planes)
    with pytest.raises(InputError, match=message):
        SplitReader(planes, "train")


def test_a_sample_of_another_length_or_name_is_found(planes: Path) -> None:
    edit_tar(lambda m: [(m[0][0], m[0][1][:-1]), *m[1:]])(planes)
    reseal(planes)
    assert "its image has 2,399 bytes, where planes of this size have 2,400" in problems(verify(planes))
    edit_tar(lambda m: [(m[0][0].replace("yuv", "jpg"), m[0][1]), *m[1:]])(planes)
    assert "where a file KEY.yuv must be" in problems(verify(planes))


def test_planes_are_read_behind_the_header_of_their_sample_alone(planes: Path) -> None:
    """Any bytes are a picture: what lies in another's place, has another length or a damaged header is refused."""
    reader = SplitReader(planes, "train")
    name, offset = f"{reader.key(1)}.yuv".encode(), int(reader.rows(np.array([1]))[0]["offset"]) - BLOCKSIZE
    sound = member_header(name, planes_bytes(40, 40))
    wrong = (member_header(b"9" + name[1:], 2400), member_header(name, 2399), sound[:103] + b"7" + sound[104:])
    with (planes / TAR).open("r+b", buffering=0) as tar:
        for header in wrong:
            tar.seek(offset)
            tar.write(header)
            with pytest.raises(SampleError, match=r"sample 1 .*its place in the tar holds something else"):
                reader.stored(1)
        tar.seek(offset)
        tar.write(sound)
    assert len(reader.stored(1)) == 2400
