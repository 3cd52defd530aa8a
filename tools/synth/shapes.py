"""What synthetic images are made of: outlines of figures, and tiles of texture, made once in each process.

Integers only, so they are the same on every CPU. Outlines are polygons of whole numbers, filled by the even-odd rule (a
second contour inside the first is a hole), each in 15 poses and all of one area, so that a figure's share of an image
tells nothing. Tiles are levels of grey that add up to at most 127: grain has photographs' spectrum, falling with
frequency, at eight roughnesses; patterns are waves of which the phase is bent by smooth noise, so that spacing and
direction vary over a tile by a fifth, and every crop of it differs. All patterns use one wave at equally frequent
phases: their grey levels are equally frequent, and a histogram cannot tell them apart.
"""

import functools
import math

import numpy as np
import numpy.typing as npt

from alexnet.tools.synth.classes import OUTLINES, TEXTURES, random_bytes

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
    """Fill a shape in every size and tilt."""
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


Tiles = npt.NDArray[np.uint8]
_Field = npt.NDArray[np.int32]

SIDE_PX = 640  # a tile's: images of up to 512x256 px are cut from it at many places
_PATTERN_LEVELS = 40
_GRAIN_LEVELS = 88

_CELLS_PX = (160, 80, 40, 20, 10, 5, 2, 1)
# Weights of the cells' noise, in 1/64: from a sky to gravel. The last are what a JPEG's size hangs on.
_ROUGHNESSES = (
    (16, 8, 5, 3, 1, 0, 0, 0),
    (15, 8, 6, 4, 2, 1, 0, 0),
    (14, 8, 6, 4, 3, 2, 1, 0),
    (14, 8, 6, 4, 3, 2, 1, 1),
    (13, 8, 6, 4, 4, 3, 2, 1),
    (12, 7, 6, 5, 4, 4, 3, 3),
    (10, 7, 6, 6, 6, 5, 5, 4),
    (8, 6, 6, 6, 7, 7, 7, 7),
)
GRAINS = len(_ROUGHNESSES)

_PERIODS_PX = (8, 14, 25)  # fine, middling, coarse
_DIRECTIONS = ((16, 0), (14, 8), (8, 14), (0, 16))  # of the phase, in 1/16: 0, 30, 60 and 90 degrees
_CHECK_PERIODS_PX = (12, 24)
_ZIGZAG_PERIODS_PX = (14, 24)
_TURN = 256  # phases are in 1/256 of a wave


@functools.cache
def grain() -> Tiles:
    """Return the grain: uint8 (GRAINS, SIDE_PX, SIDE_PX), 0 to 87, from smooth to rough."""
    tiles = []
    for number, weights in enumerate(_ROUGHNESSES):
        layers = (
            _smooth_noise(f"grain {number}", cell) * weight for cell, weight in zip(_CELLS_PX, weights, strict=True)
        )
        tiles.append(np.clip((sum(layers) >> 6) + _GRAIN_LEVELS // 2, 0, _GRAIN_LEVELS - 1).astype(np.uint8))
    return np.stack(tiles)


@functools.cache
def patterns() -> Tiles:
    """Return the classes' patterns in the order of TEXTURES: uint8 (16, SIDE_PX, SIDE_PX), 0 to 40."""
    wave = _wave()
    return np.stack([wave[_phase(number) % _TURN] for number in range(len(TEXTURES))])


def _phase(number: int) -> _Field:
    """Return the phase of a pattern at every pixel."""
    y, x = (_bent(f"pattern {number}", axis) for axis in (0, 1))
    stripes = len(_PERIODS_PX) * len(_DIRECTIONS)
    if number < stripes:
        along_x, along_y = _DIRECTIONS[number // len(_PERIODS_PX)]
        return (x * along_x + y * along_y) // _PERIODS_PX[number % len(_PERIODS_PX)]
    kind, size = divmod(number - stripes, 2)
    if kind == 0:  # checks: every other row of waves is half a turn ahead
        u, v = (16 * along // _CHECK_PERIODS_PX[size] for along in (x, y))
        return np.asarray(u ^ (v & _TURN // 2))
    period = _ZIGZAG_PERIODS_PX[size]
    across, along = (x, y) if size == 0 else (y, x)
    turns = 16 * along // (4 * period) % _TURN
    return np.asarray(16 * across // period + 2 * np.abs(turns - _TURN // 2))


def _bent(name: str, axis: int) -> _Field:
    """Return each pixel's coordinate in 1/16 px, moved by up to 24 px over 160 and 4 px over 40."""
    shape = (SIDE_PX, 1) if axis == 0 else (1, SIDE_PX)
    straight = 16 * np.arange(SIDE_PX, dtype=np.int32).reshape(shape)
    return straight + 3 * _smooth_noise(f"{name} {axis}", 160) + (_smooth_noise(f"{name} {axis}", 40) >> 1)


def _smooth_noise(name: str, cell_px: int) -> _Field:
    """Return random levels, -128 to 127, at the corners of cells, and between them what lies between."""
    cells = SIDE_PX // cell_px
    noise = random_bytes(f"{name} {cell_px}", cells, cells).astype(np.int32) - 128
    for axis in (0, 1):
        step = np.arange(cell_px, dtype=np.int32).reshape((1, -1, 1) if axis == 0 else (1, 1, -1))
        here, following = (np.expand_dims(values, axis + 1) for values in (noise, np.roll(noise, -1, axis)))
        between = (here * (cell_px - step) + following * step) // cell_px
        noise = between.reshape((SIDE_PX, -1) if axis == 0 else (SIDE_PX, SIDE_PX))
    return noise


def _wave() -> Tiles:
    """Return one wave, 0 to 40 at 256 phases: Bhaskara's rational sine, which needs no floating point."""
    phase = np.arange(_TURN, dtype=np.int64)
    half = _TURN // 2
    product = phase % half * (half - phase % half)
    height = 4096 * 16 * product // (5 * half**2 - 4 * product)
    signed = np.where(phase < half, height, -height)
    return ((signed + 4096) * _PATTERN_LEVELS // 8192).astype(np.uint8)
