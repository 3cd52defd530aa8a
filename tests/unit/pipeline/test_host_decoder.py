"""The host decoder's pixels and numbers equal Pillow's whole decode and NumPy's arithmetic to the last bit."""

import io
import os
import resource
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from alexnet.pipeline.host import Decoder, Kind, Ring, available, planes_bytes
from alexnet.pipeline.host.decoder import DTYPES
from tests.fuzz.seeds import UNWRITTEN, resampled
from tests.unit.pipeline.photographs import (
    ENCODINGS,
    all_places,
    centre_windows,
    photograph,
    pixels_of,
    scans_of,
    window_of,
)

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))

Floats = npt.NDArray[np.float32]


def check_windows(jpeg: bytes, places: npt.NDArray[np.int32], crop_px: int, planar: bool = False) -> None:
    """Compare windows at places, half of them mirrored, then the other half, with those of the whole decode."""
    whole = pixels_of(jpeg)
    n = len(places)
    out = np.empty((n, 3, crop_px, crop_px) if planar else (n, crop_px, crop_px, 3), np.uint8)
    with Decoder(2) as decoder:
        for odd in (0, 1):
            mirror = np.arange(n) % 2 == odd
            size = (whole.shape[0], whole.shape[1])
            assert not decoder.decode(
                [jpeg] * n,
                crop_yx=places,
                mirror=mirror,
                size=size,
                crop_px=crop_px,
                out=out,
                kind="uint8",
                planar=planar,
            )
            for row in range(n):
                expected = window_of(whole, places[row], crop_px, bool(mirror[row]))
                got = out[row].transpose(1, 2, 0) if planar else out[row]
                assert np.array_equal(got, expected), (places[row], mirror[row])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_window_of_every_place_equals_the_whole_decode(encoding: str) -> None:
    size = 256 if encoding == "4:2:0" else 104  # what is stored at its size; the others small, to be quick
    check_windows(photograph(1, size, size, encoding), all_places(size, size, size - 32), size - 32)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("width", "height", "crop_px"), [(101, 83, 67), (50, 41, 5), (50, 41, 41), (37, 37, 1)])
def test_odd_sizes_and_narrow_windows_equal_it_too(encoding: str, width: int, height: int, crop_px: int) -> None:
    """Left to itself libjpeg upsamples chroma in another way where two columns or fewer are asked for."""
    jpeg = photograph(2, width, height, encoding)
    check_windows(jpeg, all_places(height, width, crop_px), crop_px, planar=crop_px % 2 == 0 or crop_px == 67)


@pytest.mark.parametrize("name", UNWRITTEN)
@pytest.mark.parametrize("crop_px", [3, 40])
def test_sampling_that_pillow_does_not_write_equals_it_too(name: str, crop_px: int) -> None:
    written, factors = UNWRITTEN[name]
    check_windows(resampled(photograph(4, 64, 64, written), factors), all_places(64, 64, crop_px), crop_px)


def test_a_progressive_file_that_lacks_scans_equals_it_too() -> None:
    """Such a picture is smoothed over neighbouring blocks, further than the window's margin reaches."""
    jpeg = photograph(3, 96, 80, "progressive")
    for end in scans_of(jpeg)[1:]:
        check_windows(jpeg[:end] + b"\xff\xd9", all_places(80, 96, 64), 64)


def settings(n: int, seed: int = 0) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], Floats, Floats]:
    rng = np.random.default_rng(seed)
    places = rng.integers(0, 33, (n, 2)).astype(np.int32)
    means = rng.normal(110, 40, (n, 3)).astype(np.float32)
    return places, rng.integers(0, 2, n).astype(np.bool_), means, np.array([0.017, 1.0, -3.3], np.float32)


def in_float32(
    jpegs: list[bytes], places: npt.NDArray[np.int32], mirror: npt.NDArray[np.bool_], crop_px: int
) -> Floats:
    rows = [window_of(pixels_of(jpeg), yx, crop_px, bool(m)) for jpeg, yx, m in zip(jpegs, places, mirror, strict=True)]
    return np.stack(rows).astype(np.float32)


def rounded(values: Floats, kind: Kind) -> npt.NDArray[Any]:
    """Round to a kind by somebody else's code: torch's for bfloat16, NumPy's for float16."""
    if kind == "bfloat16":
        return torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    with np.errstate(over="ignore"):
        return values.astype(DTYPES[kind])


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("with_image", [False, True])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
def test_numbers_equal_numpys_to_the_last_bit(kind: Kind, with_image: bool, planar: bool) -> None:
    for crop_px in (224, 227, 65):
        n = 6
        jpegs = [photograph(i) for i in range(n)]
        places, mirror, mean, scale = settings(n, crop_px)
        places = np.minimum(places, 256 - crop_px)
        image = np.random.default_rng(4).normal(0, 30, (crop_px, crop_px, 3)).astype(np.float32) if with_image else None
        out = np.empty((n, 3, crop_px, crop_px) if planar else (n, crop_px, crop_px, 3), DTYPES[kind])
        with Decoder(2) as decoder:
            assert not decoder.decode(
                jpegs, crop_yx=places, mirror=mirror, mean=mean, scale=scale, mean_image=image, size=(256, 256),
                crop_px=crop_px, out=out, kind=kind, planar=planar,
            )  # fmt: skip
        shift = mean[:, None, None, :] if image is None else image + mean[:, None, None, :]
        expected = (in_float32(jpegs, places, mirror, crop_px) - shift) * scale
        got = out.transpose(0, 2, 3, 1) if planar else out
        assert got.tobytes() == rounded(expected, kind).tobytes()


NAN_OF_ONES = float(np.uint32(0x7FFFFFFF).view(np.float32))  # rounding up would make it -0
EXTREMES = [
    NAN_OF_ONES,
    1e-8,
    -1e-8,
    6e-8,
    1e-40,
    1e-5,
    65519.99,
    65520.0,
    1e30,
    3.3e38,
    np.inf,
    -np.inf,
    np.nan,
    0.0,
    2.0**-25,
]


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_rounding_holds_at_the_ends_of_the_range(kind: Kind) -> None:
    """Ties, subnormals, overflow, infinities and NaN."""
    n = len(EXTREMES)
    jpegs = [photograph(9, 64, 64)] * n
    mean = np.zeros((n, 3), np.float32)
    mean[:, 0] = EXTREMES
    out = np.empty((n, 48, 48, 3), DTYPES[kind])
    places, mirror = np.zeros((n, 2), np.int32), np.zeros(n, np.bool_)
    for scale in np.array([[1, 2**-24, 257.0], [1, 2**-30, 2**-16], [1, 3e33, 1 + 2**-8]], np.float32):
        with Decoder(1) as decoder:
            assert not decoder.decode(
                jpegs,
                crop_yx=places,
                mirror=mirror,
                mean=mean,
                scale=scale,
                size=(64, 64),
                crop_px=48,
                out=out,
                kind=kind,
            )
        with np.errstate(all="ignore"):
            expected = (in_float32(jpegs, places, mirror, 48) - mean[:, None, None, :]) * scale
        assert np.array_equal(numbers(out, kind), numbers(rounded(expected, kind), kind), equal_nan=True)
        assert out[1].tobytes() == rounded(expected, kind)[1].tobytes()


def numbers(values: npt.NDArray[Any], kind: Kind) -> Floats:
    if kind == "bfloat16":
        values = torch.from_numpy(values).view(torch.bfloat16).float().numpy()
    return values.astype(np.float32)


@pytest.mark.parametrize("offset", [4, 20, 36])
def test_the_place_of_a_batch_in_memory_does_not_matter(offset: int) -> None:
    """Rows are written a line of the caches at a time where they allow it."""
    jpegs = [photograph(i) for i in range(3)]
    places, mirror, mean, scale = settings(3)
    memory = np.full(3 * 224 * 224 * 3 * 4 + 128, 7, np.uint8)
    begin = -memory.ctypes.data % 64 + offset
    out = memory[begin : begin + 3 * 224 * 224 * 3 * 4].view(np.float32).reshape(3, 224, 224, 3)
    with Decoder(1) as decoder:
        decoder.decode(
            jpegs, crop_yx=places, mirror=mirror, mean=mean, scale=scale, size=(256, 256), crop_px=224, out=out,
            kind="float32",
        )  # fmt: skip
    expected = (in_float32(jpegs, places, mirror, 224) - mean[:, None, None, :]) * scale
    assert out.tobytes() == expected.tobytes()
    assert set(memory[:begin]) | set(memory[begin + out.nbytes :]) == {7}


def upsampled(plane: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.int64]:
    """Double a chroma plane by the triangle filter that the JPEG library documents: 9/16, 3/16, 3/16, 1/16."""
    rows = plane.astype(np.int64)
    above, below = np.vstack([rows[:1], rows[:-1]]), np.vstack([rows[1:], rows[-1:]])
    tall = np.stack([3 * rows + above, 3 * rows + below], axis=1).reshape(-1, plane.shape[1])
    left, right = np.hstack([tall[:, :1], tall[:, :-1]]), np.hstack([tall[:, 1:], tall[:, -1:]])
    even, odd = (3 * tall + left + 8) >> 4, (3 * tall + right + 7) >> 4
    return np.stack([even, odd], axis=2).reshape(tall.shape[0], -1)[:height, :width]


@pytest.mark.parametrize("encoding", ["4:2:0", "progressive", "restart markers", "grey"])
@pytest.mark.parametrize(("width", "height"), [(256, 256), (101, 83), (16, 15), (3, 3)])
def test_planes_are_what_the_pixels_are_made_of(encoding: str, width: int, height: int) -> None:
    jpegs = [photograph(seed, width, height, encoding) for seed in range(3)]
    out = np.full((3, planes_bytes((height, width))), 7, np.uint8)
    with Decoder(2) as decoder:
        assert not decoder.decode_planes(jpegs, size=(height, width), out=out)
    half = ((height + 1) // 2, (width + 1) // 2)
    for jpeg, planes in zip(jpegs, out, strict=True):
        luma, cb, cr = np.split(planes, [height * width, height * width + half[0] * half[1]])
        parts: list[npt.NDArray[Any]] = [luma.reshape(height, width)]
        parts += [upsampled(plane.reshape(half), height, width) for plane in (cb, cr)]
        if min(half) > 2:  # narrower chroma is upsampled in another way
            assert np.array_equal(pixels_of(jpeg), rgb(parts))
        image = Image.open(io.BytesIO(jpeg))
        image.draft("YCbCr" if encoding != "grey" else "L", image.size)
        assert np.array_equal(np.asarray(image).reshape(height, width, -1)[..., 0], parts[0])


def rgb(parts: list[npt.NDArray[Any]]) -> npt.NDArray[np.uint8]:
    """Convert by JFIF's formulas in 16 bits of fraction, as the JPEG library documents."""
    y, cb, cr = (part.astype(np.int64) for part in parts)
    half, cb, cr = 1 << 15, cb - 128, cr - 128
    red = y + ((91881 * cr + half) >> 16)
    green = y + ((-22554 * cb - 46802 * cr + half) >> 16)
    blue = y + ((116130 * cb + half) >> 16)
    return np.stack([red, green, blue], axis=2).clip(0, 255).astype(np.uint8)


def test_the_number_of_threads_changes_nothing() -> None:
    jpegs = [photograph(i % 7) for i in range(40)]
    batches = []
    for threads in (1, 2, 4, 9):
        with Decoder(threads) as decoder:
            batches.append(centre_windows(decoder, jpegs, "float32")[0].tobytes())
    assert len(set(batches)) == 1


def test_decoders_and_python_threads_side_by_side() -> None:
    """Two decoders, each used by three Python threads at once."""
    jpegs = [photograph(i) for i in range(8)]
    expected = np.stack([window_of(pixels_of(j), np.array([16, 16], np.int32), 224, False) for j in jpegs])
    wrong: list[int] = []

    def work(decoder: Decoder, turn: int) -> None:
        for _ in range(10):
            order = [(i + turn) % 8 for i in range(8)]
            out, errors = centre_windows(decoder, [jpegs[i] for i in order])
            if errors or not np.array_equal(out, expected[order]):
                wrong.append(turn)

    with Decoder(2) as first, Decoder(3) as second:
        threads = [threading.Thread(target=work, args=((first, second)[i % 2], i)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_the_interpreter_is_free_during_a_batch() -> None:
    """Another thread sees the first row filled and the last one not yet."""
    n = 300
    places, mirror = np.zeros((n, 2), np.int32), np.zeros(n, np.bool_)
    jpegs = [photograph(0)] * n

    def seen_half_done(decoder: Decoder) -> bool:
        out = np.zeros((n, 224, 224, 3), np.uint8)
        arguments: dict[str, Any] = {"crop_yx": places, "mirror": mirror, "size": (256, 256), "crop_px": 224}
        thread = threading.Thread(target=lambda: decoder.decode(jpegs, kind="uint8", out=out, **arguments))
        thread.start()
        seen = False
        while thread.is_alive() and not seen:
            seen = bool(out[0].any() and not out[-1].any())
        thread.join()
        return seen

    with Decoder(1) as decoder:
        assert any(seen_half_done(decoder) for _ in range(5))  # five times, lest this thread got no turn


def test_no_fresh_memory_once_a_batch_has_been_made() -> None:
    """50 batches of 9.6 MB over a ring: fresh memory would be 2,352 faults a batch."""
    jpegs = [photograph(i % 5) for i in range(16)]
    places, mirror, mean, scale = settings(16)
    ring = Ring(16 * 224 * 224 * 3 * 4)
    with Decoder(2) as decoder:

        def batch() -> None:
            out = ring.take((16, 3, 224, 224), np.float32)
            assert not decoder.decode(
                jpegs, crop_yx=places, mirror=mirror, mean=mean, scale=scale, size=(256, 256), crop_px=224, out=out,
                kind="float32", planar=True, mean_image=image,
            )  # fmt: skip

        image = np.ones((224, 224, 3), np.float32)
        for _ in range(5):
            batch()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(50):
            batch()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults <= 20  # none, but for what the interpreter happens to do meanwhile


def test_an_empty_batch_works() -> None:
    with Decoder(2) as decoder:
        out, errors = centre_windows(decoder, [])
        assert decoder.decode_planes([], size=(256, 256), out=np.empty((0, 98_304), np.uint8)) == []
    assert out.shape == (0, 224, 224, 3)
    assert errors == []


def test_any_buffer_will_do() -> None:
    jpeg = photograph(1)
    with Decoder(2) as decoder:
        out, errors = centre_windows(
            decoder, [jpeg, bytearray(jpeg), memoryview(jpeg), np.frombuffer(jpeg, np.uint8)]  # type: ignore[list-item]
        )  # fmt: skip
    assert not errors
    assert all(np.array_equal(out[0], row) for row in out[1:])


VALID: dict[str, Any] = {
    "crop_yx": np.zeros((2, 2), np.int32),
    "mirror": np.zeros(2, np.bool_),
    "size": (256, 256),
    "crop_px": 224,
    "out": np.zeros((2, 224, 224, 3), np.float32),
    "kind": "float32",
    "mean": np.zeros((2, 3), np.float32),
    "scale": np.ones(3, np.float32),
}


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"crop_yx": np.zeros((2, 2), np.int64)}, r"crop_yx: is int64 \(2, 2\); must be int32 \(2, 2\)"),
        ({"crop_yx": np.zeros((3, 2), np.int32)}, "crop_yx: is int32"),
        ({"crop_yx": [[0, 0], [0, 0]]}, "crop_yx: is list; must be a NumPy array"),
        ({"crop_yx": np.array([[0, 0], [33, 0]], np.int32)}, r"crop_yx: row 1 is \(33, 0\)"),
        ({"crop_yx": np.array([[0, -1], [0, 0]], np.int32)}, r"crop_yx: row 0 is \(0, -1\)"),
        ({"crop_yx": np.full((2, 2), 2**31 - 1, np.int32)}, "crop_yx: row 0"),
        ({"mirror": np.zeros(2, np.int32)}, "mirror: is int32"),
        ({"mirror": np.zeros((2, 2), np.bool_)[:, 0]}, "mirror: must be contiguous"),
        ({"mean": None}, "mean: is NoneType"),
        ({"mean": np.zeros((2, 3))}, "mean: is float64"),
        ({"scale": np.ones((1, 3), np.float32)}, "scale: is float32"),
        ({"mean_image": np.ones((256, 256, 3), np.float32)}, "mean_image: is float32"),
        ({"kind": "float64"}, "kind='float64': must be one of uint8, float32, bfloat16, float16"),
        ({"kind": "uint8"}, "out: is float32"),
        ({"planar": True}, "out: is float32"),
        ({"out": np.zeros((2, 224, 224, 3), np.float32)[::-1]}, "out: must be contiguous and writeable"),
        ({"out": read_only(np.zeros((2, 224, 224, 3), np.float32))}, "out: must be contiguous and writeable"),
        ({"out": np.zeros((2, 224, 224, 3), ">f4")}, "out: is >f4"),
        ({"out": bytearray(10)}, "out: is bytearray"),
        ({"crop_px": 0, "out": np.zeros((2, 0, 0, 3), np.float32)}, "size"),
        ({"crop_px": 300, "out": np.zeros((2, 300, 300, 3), np.float32)}, "crop_yx: row 0"),
        ({"size": (256, 10**6), "crop_yx": np.zeros((2, 2), np.int32)}, "size: .* must be between 1 and 65535"),
    ],
)
def test_wrong_arguments_are_named(changed: dict[str, Any], message: str) -> None:
    with Decoder(1) as decoder, pytest.raises((ValueError, TypeError), match=message):
        decoder.decode([photograph(0)] * 2, **(VALID | changed))


@pytest.mark.parametrize("jpegs", [["text", "text"], [None, None], [memoryview(bytes(100))[::2]] * 2, [3, 4]])
def test_what_is_no_bytes_is_refused(jpegs: list[Any]) -> None:
    with Decoder(2) as decoder:
        with pytest.raises((ValueError, TypeError)):
            decoder.decode(jpegs, **VALID)
        assert not decoder.decode([photograph(0)] * 2, **VALID)


@pytest.mark.parametrize("threads", [0, -1, 10**5])
def test_a_number_of_threads_that_cannot_be_is_refused(threads: int) -> None:
    with pytest.raises(ValueError, match=f"threads={threads}"):
        Decoder(threads)


def test_a_closed_decoder_says_so() -> None:
    decoder = Decoder(2)
    centre_windows(decoder, [photograph(0)])
    decoder.close()
    decoder.close()
    with pytest.raises(ValueError, match="closed"):
        centre_windows(decoder, [photograph(0)])


def test_threads_end_with_their_decoder() -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    before = threads()
    for end in (Decoder.close, lambda decoder: None):
        decoder = Decoder(6)
        assert threads() == before  # none before there is work
        centre_windows(decoder, [photograph(0)])
        assert threads() == before + 5
        end(decoder)
        del decoder
        assert threads() == before


def test_a_forked_child_is_told_to_make_its_own() -> None:
    decoder = Decoder(2)
    expected = centre_windows(decoder, [photograph(0)])[0].tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads is what is tested
        child = os.fork()
    if child == 0:
        code = 1
        try:
            centre_windows(decoder, [photograph(0)])
        except RuntimeError as error:
            signal.alarm(20)
            del decoder  # must not wait for threads that are not there
            with Decoder(2) as own:
                same = centre_windows(own, [photograph(0)])[0].tobytes() == expected
            code = 0 if "make a new one" in str(error) and same else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert centre_windows(decoder, [photograph(0)])[0].tobytes() == expected
