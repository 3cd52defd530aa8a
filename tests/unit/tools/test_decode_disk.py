"""Decoding to planes where the disk is full, a call stopped half-way, or the JPEGs change meanwhile."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.pipeline.host import available
from alexnet.tools.decode.shard import DecodeJob, decode_shard
from tests.conftest import digests, prep
from tests.planes import write_planes_set
from tests.unit.shards.forging import set_field

pytestmark = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.usefixtures("no_workers"),
]


@pytest.fixture
def jpegs(data_set: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data_set, tmp_path / "set"))


def test_nothing_is_begun_that_the_disk_cannot_hold(
    jpegs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where it lacks one byte for shards and their notes, as they are before the notes go."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "set-planes"
    with monkeypatch.context() as patch:
        patch.setattr("alexnet.tools.decode.build._finish", full)
        assert f"No space left on device: {out}; mend it" in prep("decode", jpegs, code=1).output
    free = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) - 1
    shutil.rmtree(out)
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free))
    told = prep("decode", jpegs, code=2).output
    assert f"are needed and {free / 1e3:.1f} kB are free; make room, or give another --out" in told
    assert not out.exists()


def test_overwrite_counts_what_it_will_give_back(jpegs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def space(_: object) -> object:
        free = 400_000 - sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        return shutil._ntuple_diskusage(400_000, 400_000 - free, free)

    out = tmp_path / "set-planes"
    prep("decode", jpegs)
    before = digests(out)
    monkeypatch.setattr("shutil.disk_usage", space)
    prep("decode", jpegs, "--overwrite")
    assert digests(out) == before
    (jpegs.parent / "elsewhere").mkdir()
    assert "make room" in prep("decode", jpegs, "--out", jpegs.parent / "elsewhere", code=2).output


def lost_notes(out: Path) -> None:
    (out / ".work" / "train-000001.notes").unlink()


def damaged_notes(out: Path) -> None:
    file = out / ".work" / "train-000000.notes"
    file.write_bytes(file.read_bytes()[:-1] + b"x")


def cut_tar(out: Path) -> None:
    os.truncate(out / "train/000001.tar", 512)


def left_partial(out: Path) -> None:
    (out / "train" / "000002.host-7.partial").write_bytes(b"x")


@pytest.mark.parametrize(
    ("disturb", "again"),
    [
        (lost_notes, ["train-000001"]),
        (damaged_notes, ["train-000000"]),
        (cut_tar, ["train-000001"]),
        (left_partial, []),
    ],
)
def test_what_was_begun_is_taken_up(
    jpegs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disturb: Callable[[Path], None], again: list[str]
) -> None:
    """A call stops at the third shard, for want of disk; shards that are done and sound are not decoded again."""
    out, done = tmp_path / "set-planes", list[str]()

    def full(job: DecodeJob, counts: list[int]) -> None:
        if job.shard.name == "train-000002":
            raise OSError(28, "No space left on device", str(out / "train" / "000002.partial"))
        decode_shard(job, counts)

    def noting(job: DecodeJob, counts: list[int]) -> None:
        done.append(job.shard.name)
        decode_shard(job, counts)

    monkeypatch.setattr("alexnet.tools.decode.build.decode_shard", full)
    told = prep("decode", jpegs, code=1).output
    assert told.startswith("Error: No space left on device: ")
    assert len(told.splitlines()) == 1
    disturb(out)
    monkeypatch.setattr("alexnet.tools.decode.build.decode_shard", noting)
    assert "more by an earlier call" in prep("decode", jpegs).output
    assert done == [*again, "train-000002", "val-000000"]
    assert digests(out) == digests(write_planes_set(jpegs, tmp_path / "plainly"))


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        ("train/000002.tar", 1, "No such file or directory: {}/train/000002.tar; mend it and give the same command"),
        ("mean_image.npy", 1, "No such file or directory: {}/mean_image.npy; mend it and give the same command"),
        ("manifest.json", 2, "{}: holds no manifest.json"),
    ],
)
def test_jpegs_that_are_deleted_meanwhile_are_named(
    jpegs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, code: int, message: str
) -> None:
    def deleting(job: DecodeJob, counts: list[int]) -> None:
        if job.shard.name == "train-000002":
            (jpegs / what).rename(tmp_path / "away")
        decode_shard(job, counts)

    monkeypatch.setattr("alexnet.tools.decode.build.decode_shard", deleting)
    told = prep("decode", jpegs, code=code).output
    assert message.format(jpegs) in told
    assert len(told.splitlines()) == 1
    monkeypatch.setattr("alexnet.tools.decode.build.decode_shard", decode_shard)
    (tmp_path / "away").rename(jpegs / what)
    assert "by an earlier call" in prep("decode", jpegs).output
    assert digests(tmp_path / "set-planes") == digests(write_planes_set(jpegs, tmp_path / "plainly"))


def test_jpegs_that_are_exchanged_meanwhile_make_no_data_set(
    jpegs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exchanging(job: DecodeJob, counts: list[int]) -> None:
        decode_shard(job, counts)
        set_field("versions", "pillow", to="9")(jpegs)

    monkeypatch.setattr("alexnet.tools.decode.build.decode_shard", exchanging)
    assert "became another data set meanwhile" in prep("decode", jpegs, code=2).output
    assert not (tmp_path / "set-planes" / "manifest.json").exists()
