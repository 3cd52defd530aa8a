"""A picture's colours: a ramp for its ground and one for its figure, drawn without regard to its class."""

import numpy as np
import numpy.typing as npt

from alexnet.tools.synth.randomness import Draws

Colours = npt.NDArray[np.uint32]

RAMP = 128
"""Levels of grey that a ramp gives colours to; the ground's are 0 to 127, the figure's 128 to 255."""

_MIDDLE, _CONTRAST = (50, 205), (30, 130)  # a ramp's lightness, and how far its ends go from it
_TINT, _TURN = 36, 14  # how far a ramp goes from grey, and its three colours from each other
# Photographs' colours vary most in lightness, less from orange to blue, least from green to magenta.
_TO_RGB = np.array([[64, 64, 64], [64, 4, -68], [-20, 40, -20]], np.int32)
_DARKEST, _LIGHTEST = 16, 239  # so that fine grain can be added without a check for overflow
_STEEP = 44  # levels from the middle to an end: two deviations of pattern and grain together
_away = np.clip(np.arange(RAMP, dtype=np.int32) - RAMP // 2, -_STEEP, _STEEP)
_SHARES = np.stack([np.maximum(-_away, 0), _STEEP - np.abs(_away), np.maximum(_away, 0)], axis=1)
_BGRX = np.array([1 << 16, 1 << 8, 1], np.int32)


def draw_palette(draws: Draws) -> Colours:
    """Return the colours of 256 levels: uint32, 0x00RRGGBB, each channel from 16 to 239."""
    ramps = np.array([_draw_ramp(draws), _draw_ramp(draws)], np.int32)
    corners = np.clip(ramps @ _TO_RGB >> 6, _DARKEST, _LIGHTEST)
    rgb = _SHARES @ corners // _STEEP
    return np.asarray((rgb @ _BGRX).reshape(2 * RAMP), np.uint32)


def _draw_ramp(draws: Draws) -> list[tuple[int, int, int]]:
    """Draw one end, middle and other end: lightness, warmth, green. Dark may be at either end."""
    middle, contrast = draws.between(*_MIDDLE), draws.between(*_CONTRAST)
    warmth, green = draws.between(-_TINT, _TINT), draws.between(-_TINT, _TINT)
    if draws.below(2):
        contrast = -contrast
    return [
        (lightness, warmth + draws.between(-_TURN, _TURN), green + draws.between(-_TURN, _TURN))
        for lightness in (middle - contrast, middle, middle + contrast)
    ]
