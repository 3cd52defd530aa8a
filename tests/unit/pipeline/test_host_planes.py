"""Planes as the host decoder has them before upsampling make up Pillow's pixels."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from alexnet.pipeline.host import Decoder, available, planes_bytes
from tests.unit.pipeline.photographs import photograph, pixels_of

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))


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
