"""The host decoder as a tenant of the process: its threads, its memory, forks, and arguments that do not fit."""

import os
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from alexnet.pipeline.host import JpegPool, available
from tests.unit.pipeline.photographs import decoded, photograph, pixels_of, window_of

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))


def test_pools_and_python_threads_side_by_side() -> None:
    """Two pools of two sizes, each used by three Python threads at once: the bits are those of one thread."""
    jpegs = [photograph(i) for i in range(8)]
    expected = np.stack([window_of(pixels_of(j), np.array([16, 16], np.int32), 224, False) for j in jpegs])
    wrong: list[int] = []

    def work(decoder: JpegPool, turn: int) -> None:
        for _ in range(10):
            order = [(i + turn) % 8 for i in range(8)]
            out, errors = decoded(decoder, [jpegs[i] for i in order])
            if errors or not np.array_equal(out, expected[order]):
                wrong.append(turn)

    with JpegPool(2) as first, JpegPool(3) as second:
        threads = [threading.Thread(target=work, args=((first, second)[i % 2], i)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_the_interpreter_is_free_during_a_batch() -> None:
    """Another thread sees the first row filled and the last one not yet."""
    n = 300
    jpegs = [photograph(0)] * n

    def seen_half_done(decoder: JpegPool) -> bool:
        out = np.zeros((n, 224, 224, 3), np.uint8)
        thread = threading.Thread(target=lambda: decoded(decoder, jpegs, out=out))
        thread.start()
        seen = False
        while thread.is_alive() and not seen:
            seen = bool(out[0].any() and not out[-1].any())
        thread.join()
        return seen

    with JpegPool(1) as decoder:
        assert any(seen_half_done(decoder) for _ in range(5))  # five times, lest this thread got no turn


def test_any_buffer_will_do_and_none() -> None:
    jpeg = photograph(1)
    with JpegPool(2) as decoder:
        assert decoded(decoder, [])[1] == {}
        assert decoder.decode_planes([], size=(256, 256), out=np.empty((0, 98_304), np.uint8)) == {}
        out, errors = decoded(
            decoder, [jpeg, bytearray(jpeg), memoryview(jpeg), np.frombuffer(jpeg, np.uint8)]  # type: ignore[list-item]
        )  # fmt: skip
    assert not errors
    assert all(np.array_equal(out[0], row) for row in out[1:])


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"crop_yx": np.zeros((2, 2), np.int64)}, r"crop_yx: is int64 \(2, 2\); must be int32 \(2, 2\)"),
        ({"crop_yx": np.zeros((3, 2), np.int32)}, "crop_yx: is int32"),
        ({"crop_yx": [[0, 0], [0, 0]]}, "crop_yx: is list; must be a NumPy array"),
        ({"mirror": np.zeros(2, np.int32)}, "mirror: is int32"),
        ({"mirror": np.zeros((2, 2), np.bool_)[:, 0]}, "mirror: must be contiguous"),
        ({"mean": None}, "mean: is NoneType"),
        ({"mean": np.zeros((2, 3))}, "mean: is float64"),
        ({"scale": np.ones((1, 3), np.float32)}, "scale: is float32"),
        ({"mean_image": np.ones((256, 256, 3), np.float32)}, "mean_image: is float32"),
        ({"out": np.zeros((2, 224, 224, 3))}, "out: is float64 .*; must be uint8 or float32 or uint16 or float16"),
        ({"out": np.zeros((2, 224, 225, 3), np.float32)}, "out: is float32"),
        ({"planar": True, "out": np.zeros((2, 224, 224, 3), np.float32)}, "out: is float32"),
        ({"out": np.zeros((2, 224, 224, 3), np.float32)[::-1]}, "out: must be contiguous and writeable"),
        ({"out": read_only(np.zeros((2, 224, 224, 3), np.float32))}, "out: must be contiguous and writeable"),
        ({"out": np.zeros((2, 224, 224, 3), ">f4")}, "out: is >f4"),
        ({"out": bytearray(10)}, "out: is bytearray"),
        ({"crop_px": 0, "out": np.zeros((2, 0, 0, 3), np.float32)}, "size"),
        ({"size": (256, 10**6), "crop_yx": np.zeros((2, 2), np.int32)}, "size: .* must be between 1 and 65535"),
    ],
)
def test_wrong_arguments_are_named(changed: dict[str, Any], message: str) -> None:
    with JpegPool(1) as decoder, pytest.raises((ValueError, TypeError), match=message):
        decoded(decoder, [photograph(0)] * 2, **{"kind": "float32", **changed})


def test_a_place_outside_is_an_error_of_its_image() -> None:
    places = np.array([[0, 0], [33, 0], [0, -1], [2**31 - 1, -(2**31)], [32, 32]], np.int32)
    with JpegPool(2) as decoder:
        out, errors = decoded(decoder, [photograph(0)] * 5, crop_yx=places)
        assert list(errors) == [1, 2, 3]
        assert not out[1:4].any()
        assert list(decoded(decoder, [photograph(0)] * 2, crop_px=300)[1]) == [0, 1]


@pytest.mark.parametrize("jpegs", [["text", "text"], [None, None], [memoryview(bytes(100))[::2]] * 2, [3, 4]])
def test_what_is_no_bytes_is_refused(jpegs: list[Any]) -> None:
    with JpegPool(2) as decoder:
        with pytest.raises((ValueError, TypeError)):
            decoded(decoder, jpegs)
        assert not decoded(decoder, [photograph(0)] * 2)[1]


@pytest.mark.parametrize("threads", [0, -1, 10**5])
def test_a_number_of_threads_that_cannot_be_is_refused(threads: int) -> None:
    with pytest.raises(ValueError, match=f"threads={threads}"):
        JpegPool(threads)


def test_a_closed_decoder_says_so() -> None:
    decoder = JpegPool(2)
    decoded(decoder, [photograph(0)])
    decoder.close()
    decoder.close()
    with pytest.raises(ValueError, match="closed"):
        decoded(decoder, [photograph(0)])


def tasks() -> set[str]:
    return {path.name for path in Path("/proc/self/task").iterdir()}


def gone(started: set[str]) -> bool:
    """Wait for threads that have been joined to go from the list, too: the kernel takes a moment longer."""
    until = time.monotonic() + 60
    while started & tasks() and time.monotonic() < until:
        os.sched_yield()
    return not started & tasks()


def test_threads_end_with_their_decoder() -> None:
    for end in (JpegPool.close, lambda decoder: None):
        before = tasks()
        decoder = JpegPool(6)
        assert tasks() <= before  # none before there is work
        decoded(decoder, [photograph(0)])
        started = tasks() - before
        assert len(started) == 5
        end(decoder)
        del decoder
        assert gone(started)


def test_a_forked_child_is_told_to_make_its_own() -> None:
    decoder = JpegPool(2)
    expected = decoded(decoder, [photograph(0)])[0].tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads is what is tested
        child = os.fork()
    if child == 0:
        code = 1
        try:
            decoded(decoder, [photograph(0)])
        except RuntimeError as error:
            signal.alarm(20)
            del decoder  # must not wait for threads that are not there
            with JpegPool(2) as own:
                same = decoded(own, [photograph(0)])[0].tobytes() == expected
            code = 0 if "make a new one" in str(error) and same else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert decoded(decoder, [photograph(0)])[0].tobytes() == expected
