"""Planes: an image as a JPEG decoder has it before upsampling, Y, then Cb, then Cr, a byte a sample, row after row.

Chroma planes have half the height and width of the image, rounded up (4:2:0). No plane is padded.
"""

import numpy as np
import numpy.typing as npt


def planes_bytes(height: int, width: int) -> int:
    """Return the bytes of an image's planes: 98,304 for 256 x 256."""
    return height * width + 2 * ((height + 1) // 2) * ((width + 1) // 2)


def rgb_of_planes(planes: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Make an image's pixels of its planes, uint8 (n,), to the bit as libjpeg does: uint8 (height, width, 3).

    JFIF's formulas in 16 bits of fraction. Images of at most 4 columns are not covered: libjpeg has a rule of its own.
    """
    half = (height + 1) // 2, (width + 1) // 2
    luma, *chroma = np.split(planes, [height * width, height * width + half[0] * half[1]])
    y, rounded = luma.reshape(height, width).astype(np.int32), 1 << 15
    cb, cr = (_upsampled(plane.reshape(half))[:height, :width] - 128 for plane in chroma)
    red = y + ((91881 * cr + rounded) >> 16)
    green = y + ((-22554 * cb - 46802 * cr + rounded) >> 16)
    blue = y + ((116130 * cb + rounded) >> 16)
    return np.stack([red, green, blue], axis=2).clip(0, 255).astype(np.uint8)


def _upsampled(plane: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Double a plane's sides by libjpeg's triangle: the nearer row and column count three times the farther."""
    rows = np.pad(plane.astype(np.int32), ((1, 1), (0, 0)), "edge")
    tall = 3 * rows[1:-1, None] + np.stack([rows[:-2], rows[2:]], axis=1)
    sums = np.pad(tall.reshape(-1, plane.shape[1]), ((0, 0), (1, 1)), "edge")
    here, left, right = sums[:, 1:-1], sums[:, :-2], sums[:, 2:]
    wide = np.stack([3 * here + left + 8, 3 * here + right + 7], axis=2) >> 4
    return wide.reshape(len(sums), -1)
