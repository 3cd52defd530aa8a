"""Look into stored planes: their pixels in RGB, by NumPy, in the steps of `docs/format.md`.

It shares nothing with the decoder and the streams, which have their own code for it.
"""

import numpy as np
import numpy.typing as npt

from alexnet.shards.manifest import StoredSettings

_FLAT = 128  # chroma of grey
_DC_STEPS = 16, 17  # of luma and chroma at quality 50, in the tables of JPEG's annex K


def decode_planes(planes: bytes, stored: StoredSettings) -> tuple[npt.NDArray[np.uint8], int]:
    """Turn stored planes into pixels: uint8 (size, size, channels), and the step that their DC terms were rounded to.

    Raises ValueError for planes of a grey set that hold a colour.
    """
    scale = 5000 // stored.quality if stored.quality < 50 else 200 - 2 * stored.quality
    dc_step = max(1, (_DC_STEPS[stored.channels == 3] * scale + 50) // 100)
    pixels = rgb_of(planes, stored.size_px)
    if stored.channels == 1:
        if planes[stored.size_px**2 :].strip(bytes([_FLAT])):
            raise ValueError("holds a colour, where settings.channels is 1")
        pixels = pixels[:, :, :1]
    return pixels, min(dc_step, 255)


def rgb_of(planes: bytes, size_px: int) -> npt.NDArray[np.uint8]:
    """Turn planes into RGB: uint8 (size, size, 3), to the bit what a JPEG decoder would have made of them."""
    half = (size_px + 1) // 2
    y, cb, cr = np.split(np.frombuffer(planes, np.uint8), [size_px**2, size_px**2 + half**2])
    luma = y.reshape(size_px, size_px).astype(np.int32)
    blue, red = (_doubled(plane.reshape(half, half).astype(np.int32))[:size_px, :size_px] - 128 for plane in (cb, cr))
    rgb = np.empty((size_px, size_px, 3), np.int32)
    rgb[..., 0] = luma + ((91881 * red + 32768) >> 16)  # JFIF's factors times 65,536: 1.402, 0.34414 ...
    rgb[..., 1] = luma + ((32768 - 22554 * blue - 46802 * red) >> 16)
    rgb[..., 2] = luma + ((116130 * blue + 32768) >> 16)
    return rgb.clip(0, 255).astype(np.uint8)


def _doubled(plane: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Double height and width: a new sample is 9/16 of the nearest, 3/16 of two and 1/16 of one; edges are repeated."""
    rows = np.pad(plane, ((1, 1), (0, 0)), "edge")
    tall = np.stack([3 * plane + rows[:-2], 3 * plane + rows[2:]], axis=1).reshape(-1, plane.shape[1])
    wide = np.pad(tall, ((0, 0), (1, 1)), "edge")
    even, odd = (3 * tall + wide[:, :-2] + 8) >> 4, (3 * tall + wide[:, 2:] + 7) >> 4
    return np.stack([even, odd], axis=2).reshape(len(tall), -1)
