"""Damage that would end a process under DALI is found before DALI sees it, and no picture that is well is refused."""

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from alexnet.pipeline import ImageStream, StreamSettings
from alexnet.pipeline.dali import HeaderCheck
from alexnet.shards.errors import SampleError
from alexnet.shards.reader import SplitReader
from tests.unit.pipeline.photographs import claiming, photograph
from tests.unit.pipeline.test_host_hard_input import HARD

IN_THE_CODES = {"cut in half", "cut below the window", "without its last byte", "half of it, closed", "half of it gone"}
IN_A_TABLE = {"more codes than there can be", "codes that overlap", "a table of number 9", "no quantisation table"}
FOR_DALI = {*IN_THE_CODES, *IN_A_TABLE, "marker inside"}  # which DALI reports as it should


def as_array(jpeg: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(jpeg, np.uint8)


def test_long_headers_pass() -> None:
    jpeg = photograph(1)
    comment = b"\xff\xfe\x40\x00" + bytes(0x3FFE)
    assert HeaderCheck(256).damage(as_array(jpeg[:2] + comment + jpeg[2:])) == ""


@pytest.mark.parametrize("what", HARD)
def test_damaged_headers_do_not_pass(what: str) -> None:
    assert bool(HeaderCheck(256).damage(as_array(HARD[what][0]))) is (what not in FOR_DALI)


def test_another_size_is_named() -> None:
    assert HeaderCheck(256).damage(as_array(claiming(photograph(1), 255, 256))) == (
        "cannot be decoded: is 255 pixels wide and 256 high, not 256 and 256"
    )


# Bytes of the bundled pictures: the first ones, the frame's marker, its precision, and a table of codes, which DALI
# itself reports.
DAMAGE = {
    "start": (0, bytes(200)),
    "frame": (158, b"\x00\x00"),
    "precision": (162, b"\x34"),
    "table": (182, b"\xff" * 16),
}


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("decode", ["dali", "split=0.9"])
def test_a_damaged_image_in_a_large_batch_is_named_and_can_be_skipped(
    ci_100: Path, tmp_path: Path, decode: str, what: str
) -> None:
    """From 32 images on, DALI answers damaged headers with a segmentation fault."""
    root = Path(shutil.copytree(ci_100, tmp_path / "set"))
    place, damage = DAMAGE[what]
    with (root / "train/000000.tar").open("r+b") as file:
        file.seek(int(SplitReader(root, "train").rows(np.array([33]))[0]["offset"]) + place)
        file.write(damage)

    def stream(on_error: str) -> ImageStream:
        settings = StreamSettings(decode=decode, on_error=on_error)  # type: ignore[arg-type]
        return ImageStream(root / "train", batch_images=100, augment=False, threads=2, settings=settings)

    with stream("stop") as stopped, pytest.raises(SampleError, match=r"sample 33 \(.*\): cannot be decoded: ."):
        list(stopped)
    with stream("skip") as skipping:
        (batch,) = skipping
        assert len(batch[1]) == 99
        assert skipping.meter.skipped == 1
