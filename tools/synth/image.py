"""Make one synthetic image: a textured ground, a figure on it, grain over both, colours.

Everything is put together in one channel of 256 levels, of which the lower half are the ground's and the upper half
the figure's, and coloured in one pass at the end: that is why making an image takes less time than encoding it. A
photograph is such an image in the sizes and qualities of ImageNet's files, with the grain of a sensor.
"""

import functools
import io
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from alexnet.tools.synth.classes import Choices, Traits, label_of, random_bytes, traits_of
from alexnet.tools.synth.shapes import GRAINS, POSES, SIDE_PX, Tiles, grain, masks, patterns

Pixels = npt.NDArray[np.uint32]
"""0x00RRGGBB: in memory blue, green, red and a byte that is not used."""

IMAGE_PX = 256
"""Height or width of an image, whichever is less."""
MAX_PX = 512

_HEADER_BYTES = 64  # 54, and padding that leaves the pixels aligned
_PIXEL_BYTES = 4 * IMAGE_PX**2
BITMAP_BYTES = _HEADER_BYTES + _PIXEL_BYTES
_NO_SCALE = 2835  # pixels a metre: 72 an inch, which says nothing


def make_image(traits: Traits, choices: Choices, width_px: int = IMAGE_PX, height_px: int = IMAGE_PX) -> Pixels:
    """Make an image of a class: uint32 (height, width). The figure lies within the centre square."""
    palette = make_palette(choices)
    ground = _textured(traits.ground, choices, height_px, width_px)
    mask = masks()[traits.outline][choices.below(POSES)]
    height, width = mask.shape
    top = (height_px - IMAGE_PX) // 2 + choices.below(IMAGE_PX - height + 1)
    left = (width_px - IMAGE_PX) // 2 + choices.below(IMAGE_PX - width + 1)
    figure = _textured(traits.figure, choices, height, width)
    figure += RAMP
    np.copyto(ground[top : top + height, left : left + width], figure, where=mask)
    levels = ground[:, ::-1] if choices.below(2) else ground
    return palette.take(levels, mode="clip")  # all levels are in range, and not to check for it takes 15% less


def _textured(number: int, choices: Choices, height: int, width: int) -> Tiles:
    """Cut a pattern and grain from anywhere in their tiles, and add them: 0 to 127."""
    roughness = choices.below(GRAINS)
    pattern, rough = (_cut(tile, choices, height, width) for tile in (patterns()[number], grain()[roughness]))
    return pattern + rough


def _cut(tile: Tiles, choices: Choices, height: int, width: int) -> Tiles:
    top, left = choices.below(SIDE_PX - height + 1), choices.below(SIDE_PX - width + 1)
    return tile[top : top + height, left : left + width]


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


def make_palette(choices: Choices) -> Colours:
    """Return the colours of 256 levels: uint32, 0x00RRGGBB, each channel from 16 to 239."""
    ramps = np.array([_make_ramp(choices), _make_ramp(choices)], np.int32)
    corners = np.clip(ramps @ _TO_RGB >> 6, _DARKEST, _LIGHTEST)
    rgb = _SHARES @ corners // _STEEP
    return np.asarray((rgb @ _BGRX).reshape(2 * RAMP), np.uint32)


def _make_ramp(choices: Choices) -> list[tuple[int, int, int]]:
    """Choose one end, middle and other end: lightness, warmth, green. Dark may be at either end."""
    middle, contrast = choices.between(*_MIDDLE), choices.between(*_CONTRAST)
    warmth, green = choices.between(-_TINT, _TINT), choices.between(-_TINT, _TINT)
    if choices.below(2):
        contrast = -contrast
    return [
        (lightness, warmth + choices.between(-_TURN, _TURN), green + choices.between(-_TURN, _TURN))
        for lightness in (middle - contrast, middle, middle + contrast)
    ]


# Weight, width and height, px. The longer side of most of ImageNet's images is 500 px; the weights give its means.
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


def encode_photograph(traits: Traits, choices: Choices) -> bytes:
    """Make an image and return it as a JPEG file of 110 kB on average, baseline 4:2:0."""
    image, quality = make_photograph(traits, choices)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality, subsampling="4:2:0")
    return encoded.getvalue()


def make_photograph(traits: Traits, choices: Choices) -> tuple[Image.Image, int]:
    """Make an image in the size of a photograph, with grain; return it and the quality to encode it at."""
    width, height = _choose_size(choices)
    quality = _QUALITIES[choices.below(len(_QUALITIES))]
    noise = _sensor_noise()[choices.below(len(_GRAINS))]
    start = 3 * choices.below(_GRAIN_START)
    shorter = min(width, height)
    canvas = (min(MAX_PX, side * IMAGE_PX // shorter) for side in (width, height))
    image = as_image(make_image(traits, choices, *canvas)).resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.array(image).reshape(-1)
    pixels += noise[start : start + len(pixels)]  # modulo 256, but the palette leaves room for 16 levels either way
    return Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1), quality


def as_image(pixels: Pixels) -> Image.Image:
    """Turn pixels into Pillow's."""
    height, width = pixels.shape
    return Image.frombuffer("RGB", (width, height), pixels.astype("<u4", copy=False), "raw", "BGRX", 0, 1)


def _choose_size(choices: Choices) -> tuple[int, int]:
    place, k = choices.below(sum(weight for weight, _, _ in _SIZES)), 0
    while place >= _SIZES[k][0]:
        place -= _SIZES[k][0]
        k += 1
    _, width, height = _SIZES[k]
    shortened, lost = choices.below(2 * _SHORTENED), choices.below(1 << 13)
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


def open_synthetic(path: Path, seed: int) -> io.BytesIO:
    """Make the image that a path names by its class and stem; return its file."""
    traits = traits_of(label_of(path.parent.name))
    return io.BytesIO(_bitmap(make_image(traits, Choices(f"{seed} {path.stem}"))))


def _bitmap(pixels: Pixels) -> bytes:
    """Return a Windows bitmap of 32 bits a pixel, the top row first."""
    height, width = pixels.shape
    head = struct.pack("<2sIHHI", b"BM", BITMAP_BYTES, 0, 0, _HEADER_BYTES) + struct.pack(
        "<IiiHHIIiiII", 40, width, -height, 1, 32, 0, _PIXEL_BYTES, _NO_SCALE, _NO_SCALE, 0, 0
    )
    return b"".join((head.ljust(_HEADER_BYTES, b"\0"), pixels.astype("<u4", copy=False).data.cast("B")))
