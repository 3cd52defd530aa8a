"""Encode a picture as a camera's file would be: of ImageNet's sizes and qualities, with the grain of a sensor."""

import functools
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from alexnet.tools.synth.classes import Traits
from alexnet.tools.synth.picture import MAX_PX, PICTURE_PX, Pixels, draw_picture
from alexnet.tools.synth.randomness import Draws, random_bytes

# Weight, width and height, px. The longer side of most of ImageNet's pictures is 500 px; the weights give its means.
_SIZES = (
    *((40, 500, 375), (14, 500, 333), (5, 500, 400), (3, 500, 500), (2, 500, 281)),
    *((9, 375, 500), (6, 333, 500), (5, 400, 300), (3, 300, 225), (2, 200, 150), (2, 160, 213)),
    *((5, 640, 480), (2, 800, 600), (1, 1024, 768), (1, 1280, 960)),
)
_SHORTENED = 4  # one in so many is up to an eighth shorter on one side, so that sides are no round numbers
_QUALITIES = (94, 96, 97, 98)
_MOST_PIXELS = 1280 * 960
_GRAINS = (2, 3, 4)  # of the sensor: a deviation of 3.3 to 6.6 levels, never more than 16
_GRAIN_START = 1 << 12


def encode_photograph(traits: Traits, draws: Draws) -> bytes:
    """Draw a picture and return it as a JPEG file of 110 kB on average, baseline 4:2:0."""
    image, quality = draw_photograph(traits, draws)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality, subsampling="4:2:0")
    return encoded.getvalue()


def draw_photograph(traits: Traits, draws: Draws) -> tuple[Image.Image, int]:
    """Draw a picture in the size of a photograph, with grain; return it and the quality to encode it at."""
    width, height = _draw_size(draws)
    quality = _QUALITIES[draws.below(len(_QUALITIES))]
    noise = _sensor_noise()[draws.below(len(_GRAINS))]
    start = 3 * draws.below(_GRAIN_START)
    shorter = min(width, height)
    canvas = (min(MAX_PX, side * PICTURE_PX // shorter) for side in (width, height))
    image = as_image(draw_picture(traits, draws, *canvas)).resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.array(image).reshape(-1)
    pixels += noise[start : start + len(pixels)]  # modulo 256, but the palette leaves room for 16 levels either way
    return Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1), quality


def as_image(pixels: Pixels) -> Image.Image:
    """Turn drawn pixels into Pillow's."""
    height, width = pixels.shape
    return Image.frombuffer("RGB", (width, height), pixels.astype("<u4", copy=False), "raw", "BGRX", 0, 1)


def _draw_size(draws: Draws) -> tuple[int, int]:
    place, k = draws.below(sum(weight for weight, _, _ in _SIZES)), 0
    while place >= _SIZES[k][0]:
        place -= _SIZES[k][0]
        k += 1
    _, width, height = _SIZES[k]
    shortened, lost = draws.below(2 * _SHORTENED), draws.below(1 << 13)
    if shortened == 0:
        width -= width * lost >> 16
    elif shortened == 1:
        height -= height * lost >> 16
    return width, height


@functools.cache
def _sensor_noise() -> tuple[npt.NDArray[np.uint8], ...]:
    """Return noise of each strength, the same in all channels, one pixel after the other, negative ones modulo 256."""
    pixels = _MOST_PIXELS + _GRAIN_START
    dice = random_bytes("sensor", 2, pixels).astype(np.int16) - 128
    bell = dice.sum(axis=0, dtype=np.int16)
    return tuple(np.repeat((bell * strength >> 6).astype(np.uint8), 3) for strength in _GRAINS)
