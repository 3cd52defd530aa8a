"""Draw one picture: a textured ground, a figure on it, grain over both, colours.

Everything is put together in one channel of 256 levels, of which the lower half are the ground's and the upper half
the figure's, and coloured in one pass at the end: that is why drawing takes less time than encoding.
"""

import numpy as np
import numpy.typing as npt

from alexnet.tools.synth.classes import Traits
from alexnet.tools.synth.outlines import POSES, masks
from alexnet.tools.synth.palette import RAMP, draw_palette
from alexnet.tools.synth.randomness import Draws
from alexnet.tools.synth.textures import GRAINS, SIDE_PX, Tiles, grain, patterns

Pixels = npt.NDArray[np.uint32]
"""0x00RRGGBB: in memory blue, green, red and a byte that is not used."""

PICTURE_PX = 256
"""Height or width of a drawn picture, whichever is less."""
MAX_PX = 512


def draw_picture(traits: Traits, draws: Draws, width_px: int = PICTURE_PX, height_px: int = PICTURE_PX) -> Pixels:
    """Draw a picture of a class: uint32 (height, width). The figure lies within the centre square."""
    palette = draw_palette(draws)
    ground = _textured(traits.ground, draws, height_px, width_px)
    mask = masks()[traits.outline][draws.below(POSES)]
    height, width = mask.shape
    top = (height_px - PICTURE_PX) // 2 + draws.below(PICTURE_PX - height + 1)
    left = (width_px - PICTURE_PX) // 2 + draws.below(PICTURE_PX - width + 1)
    figure = _textured(traits.figure, draws, height, width)
    figure += RAMP
    np.copyto(ground[top : top + height, left : left + width], figure, where=mask)
    levels = ground[:, ::-1] if draws.below(2) else ground
    return palette.take(levels, mode="clip")  # all levels are in range, and not to check for it takes 15% less


def _textured(number: int, draws: Draws, height: int, width: int) -> Tiles:
    """Cut a pattern and grain from anywhere in their tiles, and add them: 0 to 127."""
    roughness = draws.below(GRAINS)
    pattern, rough = (_cut(tile, draws, height, width) for tile in (patterns()[number], grain()[roughness]))
    return pattern + rough


def _cut(tile: Tiles, draws: Draws, height: int, width: int) -> Tiles:
    top, left = draws.below(SIDE_PX - height + 1), draws.below(SIDE_PX - width + 1)
    return tile[top : top + height, left : left + width]
