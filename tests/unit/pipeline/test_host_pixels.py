"""What the host decoder cuts and normalizes has the bits of Pillow's whole decode and of NumPy's arithmetic."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from alexnet.pipeline.host import JpegPool, available
from alexnet.pipeline.host.pool import DTYPES
from alexnet.shards.planes import planes_bytes, rgb_of_planes
from tests.fuzz.seeds import UNWRITTEN, resampled
from tests.unit.pipeline.photographs import (
    ENCODINGS,
    Floats,
    all_places,
    decoded,
    photograph,
    pixels_of,
    scans_of,
    some_draws,
    window_of,
)

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))


def check_windows(jpeg: bytes, crop_px: int, planar: bool = False) -> None:
    """Compare windows of every place, half of them mirrored, then the other half, with those of the whole decode."""
    whole = pixels_of(jpeg)
    height, width, _ = whole.shape
    places = all_places(height, width, crop_px)
    with JpegPool(2) as decoder:
        for odd in (0, 1):
            mirror = np.arange(len(places)) % 2 == odd
            out, errors = decoded(
                decoder, [jpeg] * len(places), crop_yx=places, mirror=mirror, size=(height, width), crop_px=crop_px,
                planar=planar,
            )  # fmt: skip
            assert not errors
            for row, got in enumerate(out.transpose(0, 2, 3, 1) if planar else out):
                expected = window_of(whole, places[row], crop_px, bool(mirror[row]))
                assert np.array_equal(got, expected), (places[row], mirror[row])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_window_of_every_place_equals_the_whole_decode(encoding: str) -> None:
    """Left to itself libjpeg upsamples chroma in another way where two columns or fewer are asked for."""
    size = 256 if encoding == "4:2:0" else 104  # what is stored at its size; the others small, to be quick
    check_windows(photograph(1, size, size, encoding), size - 32)
    for width, height, crop_px in [(101, 83, 67), (50, 41, 5), (50, 41, 41), (37, 37, 1)]:
        check_windows(photograph(2, width, height, encoding), crop_px, planar=crop_px == 67)


@pytest.mark.parametrize("name", UNWRITTEN)
def test_sampling_that_pillow_does_not_write_equals_it_too(name: str) -> None:
    written, factors = UNWRITTEN[name]
    for crop_px in (3, 40):
        check_windows(resampled(photograph(4, 64, 64, written), factors), crop_px)


def test_a_progressive_file_that_lacks_scans_equals_it_too() -> None:
    """Such a picture is smoothed over neighbouring blocks, further than the window's margin reaches."""
    jpeg = photograph(3, 96, 80, "progressive")
    for end in scans_of(jpeg)[1:]:
        check_windows(jpeg[:end] + b"\xff\xd9", 64)


def in_float32(
    jpegs: list[bytes], places: npt.NDArray[np.int32], mirror: npt.NDArray[np.bool_], crop_px: int
) -> Floats:
    rows = [window_of(pixels_of(jpeg), yx, crop_px, bool(m)) for jpeg, yx, m in zip(jpegs, places, mirror, strict=True)]
    return np.stack(rows).astype(np.float32)


def rounded(values: Floats, kind: str) -> npt.NDArray[Any]:
    """Round to a kind by somebody else's code: torch's for bfloat16, NumPy's for float16."""
    if kind == "bfloat16":
        return torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    with np.errstate(over="ignore"):
        return values.astype(DTYPES[kind])


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("with_image", [False, True])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
def test_numbers_equal_numpys_to_the_last_bit(kind: str, with_image: bool, planar: bool) -> None:
    jpegs = [photograph(i) for i in range(6)]
    for crop_px in (224, 227, 65):
        places, mirror, mean, scale = some_draws(6, crop_px)
        places = np.minimum(places, 256 - crop_px)
        image = np.random.default_rng(4).normal(0, 30, (crop_px, crop_px, 3)).astype(np.float32) if with_image else None
        with JpegPool(2) as decoder:
            out, errors = decoded(
                decoder, jpegs, kind, crop_yx=places, mirror=mirror, mean=mean, scale=scale, mean_image=image,
                crop_px=crop_px, planar=planar,
            )  # fmt: skip
        shift = mean[:, None, None, :] if image is None else image + mean[:, None, None, :]
        expected = (in_float32(jpegs, places, mirror, crop_px) - shift) * scale
        assert not errors
        assert (out.transpose(0, 2, 3, 1) if planar else out).tobytes() == rounded(expected, kind).tobytes()


NAN_OF_ONES = float(np.uint32(0x7FFFFFFF).view(np.float32))  # rounding up would make it -0
SMALL = [1e-8, -1e-8, 6e-8, 1e-40, 1e-5, 0.0, 2.0**-25]
EXTREMES = [NAN_OF_ONES, *SMALL, 65519.99, 65520.0, 1e30, 3.3e38, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_rounding_holds_at_the_ends_of_the_range(kind: str) -> None:
    """Ties, subnormals, overflow, infinities and NaN."""
    n = len(EXTREMES)
    jpegs = [photograph(9, 64, 64)] * n
    mean = np.zeros((n, 3), np.float32)
    mean[:, 0] = EXTREMES
    places, mirror = np.zeros((n, 2), np.int32), np.zeros(n, np.bool_)
    for scale in np.array([[1, 2**-24, 257.0], [1, 2**-30, 2**-16], [1, 3e33, 1 + 2**-8]], np.float32):
        with JpegPool(1) as decoder:
            out, errors = decoded(
                decoder, jpegs, kind, crop_yx=places, mean=mean, scale=scale, size=(64, 64), crop_px=48
            )
        with np.errstate(all="ignore"):
            expected = rounded((in_float32(jpegs, places, mirror, 48) - mean[:, None, None, :]) * scale, kind)
        assert not errors
        assert np.array_equal(numbers(out, kind), numbers(expected, kind), equal_nan=True)
        assert out[1].tobytes() == expected[1].tobytes()


def numbers(values: npt.NDArray[Any], kind: str) -> Floats:
    if kind == "bfloat16":
        values = torch.from_numpy(values).view(torch.bfloat16).float().numpy()
    return values.astype(np.float32)


@pytest.mark.parametrize("offset", [4, 20, 36])
def test_the_place_of_a_batch_in_memory_does_not_matter(offset: int) -> None:
    """Rows are written a line of the caches at a time where they allow it."""
    jpegs = [photograph(i) for i in range(3)]
    places, mirror, mean, scale = some_draws(3)
    memory = np.full(3 * 224 * 224 * 3 * 4 + 128, 7, np.uint8)
    begin = -memory.ctypes.data % 64 + offset
    out = memory[begin : begin + 3 * 224 * 224 * 3 * 4].view(np.float32).reshape(3, 224, 224, 3)
    with JpegPool(1) as decoder:
        decoded(decoder, jpegs, "float32", crop_yx=places, mirror=mirror, mean=mean, scale=scale, out=out)
    expected = (in_float32(jpegs, places, mirror, 224) - mean[:, None, None, :]) * scale
    assert out.tobytes() == expected.tobytes()
    assert set(memory[:begin]) | set(memory[begin + out.nbytes :]) == {7}


@pytest.mark.parametrize("encoding", ["4:2:0", "progressive", "restart markers", "grey"])
@pytest.mark.parametrize(("width", "height"), [(256, 256), (101, 83), (16, 15), (17, 17), (5, 2), (3, 3)])
def test_planes_are_what_the_pixels_are_made_of(encoding: str, width: int, height: int) -> None:
    jpegs = [photograph(seed, width, height, encoding) for seed in range(3)]
    out = np.full((3, planes_bytes(height, width)), 7, np.uint8)
    with JpegPool(2) as decoder:
        assert not decoder.decode_planes(jpegs, size=(height, width), out=out)
    for jpeg, planes in zip(jpegs, out, strict=True):
        if width > 4:  # narrower chroma is upsampled in another way
            assert np.array_equal(pixels_of(jpeg), rgb_of_planes(planes, height, width))
        image = Image.open(io.BytesIO(jpeg))
        image.draft("YCbCr" if encoding != "grey" else "L", image.size)
        assert np.array_equal(np.asarray(image).reshape(height, width, -1)[..., 0].flat, planes[: height * width])
