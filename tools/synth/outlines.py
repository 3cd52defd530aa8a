"""The figures' outlines: each in 15 poses, and all of one area, so that a figure's share of a picture tells nothing.

Polygons of whole numbers, filled by the even-odd rule: a second contour inside the first is a hole.
"""

import functools
import math

import numpy as np
import numpy.typing as npt

from alexnet.tools.synth.classes import OUTLINES

Mask = npt.NDArray[np.bool_]
_Contour = tuple[tuple[int, int], ...]

_AREA_PX = 11_000  # at the middle size: a sixth of 256x256
_SIZES = (13, 16, 19)  # in 1/16
_TILTS = ((62, -18), (63, -9), (64, 0), (63, 9), (62, 18))  # cosine and sine in 1/64: -16, -8, 0, 8 and 16 degrees
POSES = len(_SIZES) * len(_TILTS)

_SUBPIXELS = 16
_UNIT = 1000  # half the extent of most shapes
_CIRCLE = (
    *((1000, 0), (924, 383), (707, 707), (383, 924), (0, 1000), (-383, 924), (-707, 707), (-924, 383)),
    *((-1000, 0), (-924, -383), (-707, -707), (-383, -924), (0, -1000), (383, -924), (707, -707), (924, -383)),
)


def _circle(radius: int, shift: int = 0) -> _Contour:
    return tuple((x * radius // _UNIT + shift, y * radius // _UNIT) for x, y in _CIRCLE)


def _box(half_width: int, half_height: int) -> _Contour:
    return tuple((half_width * x, half_height * y) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)))


def _stepped(*corners: tuple[int, int]) -> _Contour:
    """Complete the right half of a shape with its mirror image."""
    return (*corners, *((-x, y) for x, y in reversed(corners)))


_SHAPES: dict[str, tuple[_Contour, ...]] = {
    "disc": (_circle(1000),),
    "ring": (_circle(1000), _circle(550)),
    "crescent": (_circle(1000), _circle(680, 300)),
    "square": (_box(1000, 1000),),
    "frame": (_box(1000, 1000), _box(500, 500)),
    "triangle": (((0, -1000), (1000, 800), (-1000, 800)),),
    "star": (_stepped((0, -1000), (265, -364), (951, -309), (428, 139), (588, 809), (0, 450)),),
    "cross": (_stepped((330, -1000), (330, -330), (1000, -330), (1000, 330), (330, 330), (330, 1000)),),
    "bar": (_box(1500, 450),),
    "post": (_box(450, 1500),),
    "ell": (((-900, -1000), (-250, -1000), (-250, 350), (900, 350), (900, 1000), (-900, 1000)),),
    "tee": (_stepped((1000, -1000), (1000, -450), (300, -450), (300, 1000)),),
    "arrow": (_stepped((0, -1100), (1000, 0), (380, 0), (380, 1000)),),
    "hourglass": (((-900, -1000), (900, -1000), (-900, 1000), (900, 1000)),),
    "cup": (_stepped((480, 450), (480, -1000), (1000, -1000), (1000, 1000)),),
    "aitch": (_stepped((450, -250), (450, -1000), (1000, -1000), (1000, 1000), (450, 1000), (450, 250)),),
}


@functools.cache
def masks() -> tuple[tuple[Mask, ...], ...]:
    """Return for each of OUTLINES its POSES: True inside, cut to the rows and columns that have any; under 256 px."""
    return tuple(_poses(_SHAPES[name]) for name in OUTLINES)


def _poses(shape: tuple[_Contour, ...]) -> tuple[Mask, ...]:
    """Draw a shape in every size and tilt."""
    trial_px = 100
    trial = _fill(_scaled(shape, trial_px << 8, _SIZES[1], _TILTS[2]))
    scale = math.isqrt((_AREA_PX << 16) * trial_px**2 // int(trial.sum()))
    return tuple(_fill(_scaled(shape, scale, size, tilt)) for size in _SIZES for tilt in _TILTS)


def _scaled(shape: tuple[_Contour, ...], scale: int, size: int, tilt: tuple[int, int]) -> tuple[_Contour, ...]:
    """Turn and scale a shape; the result is in 1/16 px. `scale`: of _UNIT, in 1/256 px."""
    cosine, sine = tilt
    parts = _UNIT * 256 * 16 * 64 // _SUBPIXELS
    return tuple(
        tuple(
            ((x * cosine - y * sine) * scale * size // parts, (x * sine + y * cosine) * scale * size // parts)
            for x, y in contour
        )
        for contour in shape
    )


def _fill(contours: tuple[_Contour, ...]) -> Mask:
    """Fill closed contours, given in 1/16 px: a pixel is inside if its centre is inside an odd number of them."""
    xs, ys = ([point[axis] for contour in contours for point in contour] for axis in (0, 1))
    left, top = min(xs) // _SUBPIXELS, min(ys) // _SUBPIXELS
    columns = np.arange(left, max(xs) // _SUBPIXELS + 1) * _SUBPIXELS + _SUBPIXELS // 2
    rows = np.arange(top, max(ys) // _SUBPIXELS + 1) * _SUBPIXELS + _SUBPIXELS // 2
    inside = np.zeros((len(rows), len(columns)), np.bool_)
    for contour in contours:
        for (x0, y0), (x1, y1) in zip(contour, (*contour[1:], contour[0]), strict=True):
            crossed = (y0 <= rows) != (y1 <= rows)
            if crossed.any():
                x = x0 + (rows[crossed] - y0) * (x1 - x0) // (y1 - y0)
                inside[crossed] ^= columns > x[:, None]
    return inside[np.ix_(inside.any(axis=1), inside.any(axis=0))]
