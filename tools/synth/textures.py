"""The textures: large tiles of grain and of patterns, made once in each process, from which pictures are cut.

Integers only, so a tile is the same on every CPU. Tiles are levels of grey that add up to at most 127: grain has
photographs' spectrum, falling with frequency, at eight roughnesses; patterns are waves of which the phase is bent by
smooth noise, so that spacing and direction vary over a tile by a fifth, and every cutting differs. All patterns use
one wave at equally frequent phases: their grey levels are equally frequent, and a histogram cannot tell them apart.
"""

import functools

import numpy as np
import numpy.typing as npt

from alexnet.tools.synth.classes import TEXTURES
from alexnet.tools.synth.randomness import random_bytes

Tiles = npt.NDArray[np.uint8]
_Field = npt.NDArray[np.int32]

SIDE_PX = 640  # a tile's: pictures of up to 512x256 px are cut from it at many places
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
