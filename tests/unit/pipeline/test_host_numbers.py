"""The host decoder's floats equal NumPy's arithmetic to the last bit, and torch's and NumPy's rounding to 16 bits."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from alexnet.pipeline.host import Decoder, Kind, available
from alexnet.pipeline.host.decoder import DTYPES
from tests.unit.pipeline.photographs import Floats, photograph, pixels_of, some_draws, window_of

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))


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
        places, mirror, mean, scale = some_draws(n, crop_px)
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
    places, mirror, mean, scale = some_draws(3)
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
