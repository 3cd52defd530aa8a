"""Make 8-bit RGB of pixels of any kind, or say why that cannot be done without a guess.

Greys of more than 8 bits have a white, and nothing says what it is where a file uses little of its range: 12 bits in a
16-bit file, or a dark picture? What is certain is scaled, what would come out black or burnt out is refused.
"""

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from alexnet.tools.convert.opening import UndecodableError

_PHOTOMETRIC = 262  # TIFF's tag
_CONTRAST = 16
"""Levels of 256, a sixteenth: what has less of them shows nothing."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit RGB; alpha is dropped unless it is all there is to see.

    CMYK JPEGs come in two polarities, see `_with_true_ink`. Raises UndecodableError for values of an unknown range.
    """
    stored = repr(getattr(image, "tile", ""))  # names the bits of a value; it goes with loading
    image.load()
    if image.mode == "CMYK" and image.format == "JPEG":
        image = _with_true_ink(image)
    if image.mode == "F" or image.mode.startswith("I"):
        image = _eight_bits(image, white=4095 if "I;12" in stored else 255 if image.mode == "F" else 65535)
        stored = ""  # and has been seen to
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA", "PA"):
        image = _on_ground(image)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if ";16" in stored and max(high for _, high in _extrema(rgb)) < _CONTRAST:
        raise UndecodableError(f"colours of 16 bits, none above 4,095: {_unknown(65535)}")
    return rgb


def _eight_bits(image: Image.Image, white: int) -> Image.Image:
    """Scale greys of which the brightest is near enough to white: integers by shifting, floats not at all."""
    values: npt.NDArray[Any] = np.asarray(image)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:  # white is 0; of more than 8 bits Pillow does not turn it
        if image.mode == "F":
            raise UndecodableError("greys as floats of which white is 0: no known range; store 8 bits")
        values = white - values
    low, high = float(values.min()), float(values.max())
    beyond = white / _CONTRAST if image.mode == "F" else 0  # filters overshoot; what they leave is clipped
    if not (low >= -beyond and high <= white + beyond and (high * _CONTRAST > white or low == high == 0)):  # nor NaN
        kind = "floats" if image.mode == "F" else "integers of more than 8 bits"
        raise UndecodableError(f"greys as {kind} from {low:,.6g} to {high:,.6g}: {_unknown(white)}")
    if image.mode == "F":
        return image.convert("L")
    return Image.fromarray((values >> (white.bit_length() - 8)).astype(np.uint8))


def _unknown(white: int) -> str:
    return f"what is white is not known; it is {white:,} only if the brightest is above a sixteenth of it; store 8 bits"


def _on_ground(image: Image.Image) -> Image.Image:
    """Lay a picture of one colour, which would come out as a blank square, on white, a light one on black.

    Its shape is in its alpha. All others are returned as they are.
    """
    rgba = image.convert("RGBA")
    *colours, (clear, solid) = _extrema(rgba)
    if solid - clear < _CONTRAST or any(high - low >= _CONTRAST for low, high in colours):
        return image
    ground = 0 if sum(high for _, high in colours) > 3 * 127 else 255
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (ground, ground, ground, 255)), rgba)


def _extrema(image: Image.Image) -> tuple[tuple[int, int], ...]:
    """Return the least and the greatest value of each channel of an image that has several."""
    return cast(tuple[tuple[int, int], ...], image.getextrema())


def _with_true_ink(image: Image.Image) -> Image.Image:
    """Undo Pillow's inversion of a CMYK JPEG where it was wrong.

    Adobe's programs store ink inverted and say so in a marker; Pillow takes every file for one of theirs. Some files
    carry the marker and are not inverted: then black ink is full at every pixel, and the other reading is the picture.
    """
    black_ink = image.getchannel("K").getextrema()
    if "adobe" not in image.info or black_ink == (255, 255):
        return ImageChops.invert(image)
    return image
