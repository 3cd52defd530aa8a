"""Planes: an image as a JPEG decoder has it before upsampling, Y, then Cb, then Cr, a byte a sample, row after row.

Chroma planes have half the height and width of the image, rounded up (4:2:0). No plane is padded.
"""

import numpy as np
import numpy.typing as npt


def planes_bytes(height: int, width: int) -> int:
    """Return the bytes of an image's planes: 98,304 for 256 x 256."""
    return height * width + 2 * ((height + 1) // 2) * ((width + 1) // 2)


def rgb_of_planes(planes: bytes | npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Make an image's pixels of its planes, to the bit as libjpeg does: uint8 (height, width, 3).

    In plain NumPy, which shares nothing with the decoder and the streams. Images of at most 4 columns are not covered:
    libjpeg has a rule of its own.
    """
    half = (height + 1) // 2, (width + 1) // 2
    y, *chroma = np.split(np.frombuffer(planes, np.uint8), [height * width, height * width + half[0] * half[1]])
    blue, red = (_doubled(plane.reshape(half))[:height, :width].astype(np.int32) - 128 for plane in chroma)
    rgb = np.empty((height, width, 3), np.uint8)
    # JFIF's factors times 65,536: 1.402, -0.34414 and -0.71414, 1.772; half of 65,536 rounds.
    more = (91881 * red + 32768, 32768 - 22554 * blue - 46802 * red, 116130 * blue + 32768)
    for channel, added in enumerate(more):
        added >>= 16
        added += y.reshape(height, width)
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
