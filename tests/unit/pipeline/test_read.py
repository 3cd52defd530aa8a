"""A batch is read in one call: bytes, verdicts and errors are those of one sample after another."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from alexnet.pipeline import read, read_ahead
from alexnet.pipeline.dali import HeaderCheck
from alexnet.pipeline.host import JpegPool, available, read_header
from alexnet.pipeline.host.jpeg import extension
from alexnet.pipeline.host.pool import Found
from alexnet.pipeline.read import SampleReader
from alexnet.shards.errors import InputError, SampleError
from alexnet.shards.reader import SplitReader
from tests.unit.pipeline.photographs import encoded, photograph
from tests.unit.pipeline.test_damage import HARD

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))


def one_by_one(reader: SplitReader, ids: list[int]) -> list[bytes | str]:
    """Return each sample's bytes, or why it cannot be read."""
    found: list[bytes | str] = []
    for sample_id in ids:
        try:
            found.append(reader.stored(sample_id).tobytes())
        except SampleError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("at_once", [1, 5, 256])
@pytest.mark.parametrize("built", [True, False])
def test_a_batch_holds_what_its_samples_hold_also_of_shards_that_are_damaged(
    data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, at_once: int, built: bool
) -> None:
    monkeypatch.setattr(read, "FILES_AT_ONCE", at_once)
    monkeypatch.setattr(read, "available", lambda: None if built else "not built")
    root = Path(shutil.copytree(data_set, tmp_path / "set"))
    reader = SplitReader(root, "train")
    ids = np.random.default_rng(0).integers(0, len(reader), 40)
    jpegs = SampleReader(threads, keep=1)
    assert [jpeg.tobytes() for jpeg in jpegs.read(reader, ids).samples] == one_by_one(reader, ids.tolist())
    reader.close()
    (root / "train/000001.tar").unlink()
    (root / "train/000001.tar").mkdir()
    os.truncate(root / "train/000002.tar", int(reader.rows(np.array([len(reader) - 2]))[0]["offset"]) + 9)
    expected = one_by_one(reader, ids.tolist())
    found, unknown, failures = jpegs.read(reader, ids)
    assert [jpeg.tobytes() for jpeg in found] == [e for e in expected if isinstance(e, bytes)]
    assert [str(failure) for failure in failures] == [e for e in expected if isinstance(e, str)]
    assert unknown == list(range(len(found)))
    for kind in ("000001.tar: sample .*: is no", "000002.tar: sample .*: the tar ends at byte"):
        assert any(re.search(kind, str(failure)) for failure in failures), failures
    jpegs.close()


def file_of(path: Path, samples: list[bytes]) -> tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Write samples one after another; return the file, open, their lengths and where each begins."""
    path.write_bytes(b"".join(samples))
    lengths = np.array([len(sample) for sample in samples], np.int64)
    return os.open(path, os.O_RDONLY), lengths, np.cumsum(lengths) - lengths


GOOD = photograph(0)
GREY = encoded(Image.new("L", (256, 256)))


def test_only_known_headers_spare_an_image_the_look_at_its_own(tmp_path: Path) -> None:
    head = GOOD[: read_header(GOOD).bytes]
    cut = [head[:-1], head, head[1:], head + b"\0", b""]
    samples = [GOOD, *(jpeg for jpeg, _ in HARD.values()), photograph(1), GREY, *cut, GOOD]
    samples += [GOOD[:place] + bytes([GOOD[place] ^ 1]) + GOOD[place + 1 :] for place in range(0, len(head), 7)]
    file, lengths, offsets = file_of(tmp_path / "samples", samples)
    places, out = np.arange(len(samples)) * 65_536, np.zeros(len(samples) * 65_536, np.uint8)
    where = (np.full(len(samples), file, np.int32), offsets, lengths)
    with JpegPool(2) as pool:
        known, none = (pool.read(*where, head=given, places=places, out=out) for given in (head, b""))
    os.close(file)
    assert known.tolist() == [Found.WITH_HEAD if sample.startswith(head) else Found.ANY for sample in samples]
    assert none.tolist() == [Found.ANY] * len(samples)
    checked = HeaderCheck(256)
    assert not checked.damage(np.frombuffer(GOOD, np.uint8))
    assert checked.sound == head
    for sample, how, place in zip(samples, known, places, strict=True):
        jpeg = out[place : place + len(sample)]
        assert jpeg.tobytes() == sample
        assert how != Found.WITH_HEAD or not HeaderCheck(256).damage(jpeg), "never known and damaged"


def test_what_cannot_be_read_concerns_no_other(tmp_path: Path) -> None:
    file, lengths, offsets = file_of(tmp_path / "samples", [GOOD] * 6)
    folder = os.open(tmp_path, os.O_RDONLY)
    files = np.array([file, folder, file, -1, file, file], np.int32)
    offsets[4], lengths[5] = -1, len(GOOD) + 1
    out = np.zeros((6, 65_536), np.uint8)
    with JpegPool(3) as pool:
        found = pool.read(files, offsets, lengths, head=GOOD, places=np.arange(6) * 65_536, out=out.reshape(-1))
    os.close(file)
    os.close(folder)
    assert found.tolist() == [2, 0, 2, 0, 0, 0]
    assert all(out[row, : len(GOOD)].tobytes() == GOOD for row in (0, 2))
    assert not out[:, len(GOOD) :].any(), "nothing is written beyond a sample's place"


@pytest.mark.parametrize(
    "change",
    [
        lambda of: {**of, "places": of["places"] + 1},
        lambda of: {**of, "places": of["places"] - 1},
        lambda of: {**of, "lengths": -of["lengths"]},
        lambda of: {**of, "lengths": of["lengths"] + 2**62},
        lambda of: {**of, "lengths": of["lengths"][:1]},
        lambda of: {**of, "offsets": of["offsets"].astype(np.int32)},
        lambda of: {**of, "out": of["out"][:-1]},
    ],
)
def test_no_argument_has_memory_written_that_was_not_given(tmp_path: Path, change: Callable[..., Any]) -> None:
    file, lengths, offsets = file_of(tmp_path / "samples", [GOOD] * 2)
    given: dict[str, Any] = {
        "descriptors": np.full(2, file, np.int32),
        "offsets": offsets,
        "lengths": lengths,
        "places": np.array([0, len(GOOD)]),
        "head": b"",
        "out": np.zeros(2 * len(GOOD), np.uint8),
    }
    with JpegPool(1) as pool:
        assert pool.read(**given).all()
        given["out"][:] = 0
        with pytest.raises(ValueError, match="must"):
            pool.read(**change(given))
        assert not given["out"].any()
    os.close(file)


def test_memory_is_used_again_when_nothing_of_a_batch_is_held(ci_100: Path) -> None:
    reader, jpegs = SplitReader(ci_100, "train"), SampleReader(2, keep=2)
    first = jpegs.read(reader, np.arange(100)).samples
    one, address = first[17], first[0].ctypes.data
    assert all(jpeg.ctypes.data % 64 == 0 for jpeg in first)
    del first
    other = jpegs.read(reader, np.arange(90)).samples[0].ctypes.data
    assert other != address, "one of its images is held"
    assert one.tobytes() == reader.stored(17).tobytes()
    del one
    assert {jpegs.read(reader, np.arange(80)).samples[0].ctypes.data for _ in range(9)} <= {address, other}
    jpegs.close()


def test_too_many_threads_are_refused_in_one_line(ci_100: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("threads=2: the system does not start that many")

    monkeypatch.setattr(JpegPool, "read", refuse)
    with pytest.raises(InputError, match="threads=2"):
        SampleReader(2, keep=1).read(SplitReader(ci_100, "train"), np.arange(3))


def test_the_system_is_told_what_will_be_read_and_what_cannot_be_told_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(9000))
    with (tmp_path / "file").open("rb") as file:
        descriptors = np.array([file.fileno(), -1, file.fileno()], np.int32)
        places = np.array([0, 0, 4096], np.int64)
        assert extension().will_need(descriptors, places, places + 100) == 2
        with pytest.raises(ValueError, match="lengths: must have 24 bytes"):
            extension().will_need(descriptors, places, places[:2])


def test_without_the_extension_it_is_told_sample_by_sample(ci_100: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, ...]] = []
    monkeypatch.setattr(read_ahead, "available", lambda: "not built")
    monkeypatch.setattr("alexnet.pipeline.read_ahead.os.posix_fadvise", lambda *of: told.append(of))
    reader = SplitReader(ci_100, "train")
    rows = reader.rows(np.array([3, 7]))
    read_ahead._will_need(reader, rows)
    assert [of[1:] for of in told] == [(*row[["offset", "length"]].item(), os.POSIX_FADV_WILLNEED) for row in rows]
