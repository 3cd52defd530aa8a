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
    blue, red = (_doubled(plane.reshape(half, half))[:size_px, :size_px].astype(np.int32) - 128 for plane in (cb, cr))
    rgb = np.empty((size_px, size_px, 3), np.uint8)
    # JFIF's factors times 65,536: 1.402, -0.34414 and -0.71414, 1.772; half of 65,536 rounds.
    more = (91881 * red + 32768, 32768 - 22554 * blue - 46802 * red, 116130 * blue + 32768)
    for channel, added in enumerate(more):
        added >>= 16
        added += y.reshape(size_px, size_px)
        rgb[..., channel] = added.clip(0, 255, out=added)
    return rgb


def _doubled(plane: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """Double height and width: a new sample is 9/16 of the nearest, 3/16 of two and 1/16 of one; edges are repeated."""
    height, width = plane.shape
    rows = np.pad(plane.astype(np.int16), ((1, 1), (1, 1)), "edge")
    tall, both = np.empty((2 * height, width + 2), np.int16), np.empty((2 * height, 2 * width), np.int16)
    tall[::2], tall[1::2] = 3 * rows[1:-1] + rows[:-2], 3 * rows[1:-1] + rows[2:]
    near = 3 * tall[:, 1:-1]
    both[:, ::2], both[:, 1::2] = (near + tall[:, :-2] + 8) >> 4, (near + tall[:, 2:] + 7) >> 4
    return both
