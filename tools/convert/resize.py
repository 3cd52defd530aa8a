"""Decode one image of any kind, resize and crop it to a square, encode it for the decoder's sake.

Baseline JPEG with 4:2:0 chroma, because training decodes it ninety times: progressive files decode 2.6 times slower
and 4:4:4 1.4 times.
"""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, UnidentifiedImageError

from alexnet.tools.convert.listing import Encoding
from alexnet.tools.convert.raw import decode_raw

MAX_PIXELS = 1 << 27
"""134 million pixels, 400 MB as RGB: anything larger is a bomb, not a photograph."""
Image.MAX_IMAGE_PIXELS = None  # Pillow would warn from 89 million on and refuse at 179 million

_SPARE = 2
_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True, kw_only=True)
class Converted:
    """Hold one finished image: RGB pixels before encoding, uint8 (size, size, 3), and the JPEG bytes."""

    pixels: npt.NDArray[np.uint8]
    jpeg: bytes


class UndecodableError(Exception):
    """Say why an image cannot be used."""


def convert_image(data: bytes, size_px: int, quality: int, encoding: Encoding = "file") -> Converted:
    """Decode, resize the shorter side to `size_px`, centre-crop (paper, section 2), encode.

    What the file is, is read from its bytes, never from its name. EXIF orientation is ignored, as every published
    ImageNet result does. MNIST's digits stay grey. Raises UndecodableError with the reason.
    """
    if not data:
        raise UndecodableError("empty file")
    if encoding == "file":
        square = resize_and_crop(*_decode_file(data, size_px))
    else:
        square = resize_and_crop(decode_raw(data, encoding), size_px)
    encoded = io.BytesIO()
    square.save(encoded, "JPEG", quality=quality, subsampling="4:2:0" if square.mode == "RGB" else -1)
    rgb = square if square.mode == "RGB" else square.convert("RGB")
    return Converted(pixels=np.asarray(rgb), jpeg=encoded.getvalue())


def _decode_file(data: bytes, size_px: int) -> tuple[Image.Image, int, int]:
    """Decode a file to RGB, or say why not; return it with `size_px` and the factor it was reduced by.

    A JPEG much larger than needed is reduced by 2, 4 or 8 while it is decoded, as long as twice the pixels remain that
    are needed: against decoding all of it the result has a PSNR of 54 dB or more (41 with less to spare), at half the
    time from 1,024 px on.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UndecodableError(f"{width}x{height} px is more than {MAX_PIXELS:,} pixels")
            image.draft(None, (_SPARE * size_px, _SPARE * size_px))
            reduced = to_rgb(image)
            return reduced, size_px, max(1, round(width / reduced.width), round(height / reduced.height))
    except (UndecodableError, MemoryError):
        raise
    except UnidentifiedImageError:  # its own message holds a memory address, which no two runs share
        raise UndecodableError("not an image of any known format") from None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError and more
        raise UndecodableError(f"{type(error).__name__}: {error}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit RGB; alpha is dropped, 16-bit greys keep their upper byte.

    CMYK JPEGs come in two polarities, see `_with_true_ink`.
    """
    image.load()
    if image.mode == "CMYK" and image.format == "JPEG":
        image = _with_true_ink(image)
    if image.mode in _SIXTEEN_BIT_MODES:  # Pillow would clip at 255 instead of scaling
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _with_true_ink(image: Image.Image) -> Image.Image:
    """Undo Pillow's inversion of a CMYK JPEG where it was wrong.

    Adobe's programs store ink inverted and say so in a marker; Pillow takes every file for one of theirs. Some files
    carry the marker and are not inverted: then black ink is full at every pixel, and the other reading is the picture.
    """
    black_ink = image.getchannel("K").getextrema()
    if "adobe" not in image.info or black_ink == (255, 255):
        return ImageChops.invert(image)
    return image


def resize_and_crop(image: Image.Image, size_px: int, reduced_by: int = 1) -> Image.Image:
    """Resize the shorter side to `size_px` (bicubic, antialiased) and cut out the centre, computing only the centre.

    The longer side becomes floor(size_px * longer / shorter) and the crop starts at half the surplus, rounded down;
    the result equals resizing the whole picture first, within one grey level. An image of the right size is returned
    as it is.
    """
    if image.size == (size_px, size_px):
        return image
    width, height = (side * reduced_by for side in image.size)
    shorter = min(width, height)
    new_width, new_height = size_px * width // shorter, size_px * height // shorter
    left, top = (new_width - size_px) // 2, (new_height - size_px) // 2
    x_scale, y_scale = image.width / new_width, image.height / new_height
    right, bottom = min((left + size_px) * x_scale, image.width), min((top + size_px) * y_scale, image.height)
    box = (left * x_scale, top * y_scale, right, bottom)
    return image.resize((size_px, size_px), Image.Resampling.BICUBIC, box=box)
