"""Decode one image of any kind, resize and crop it to a square, encode it for the decoder's sake.

Baseline JPEG with 4:2:0 chroma, because training decodes it ninety times: progressive files decode 2.6 times slower
and 4:4:4 1.4 times.
"""

import functools
import io
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from alexnet.pipeline.host.extension import available
from alexnet.pipeline.host.jpeg import DecodeError, HopelessError, Reduction, decode_rows
from alexnet.tools.convert.colours import to_rgb
from alexnet.tools.convert.jpeg_size import jpeg_size
from alexnet.tools.convert.listing import Encoding
from alexnet.tools.convert.opening import MAX_BYTES as MAX_BYTES
from alexnet.tools.convert.opening import MAX_PIXELS, opened, refuse_costly
from alexnet.tools.convert.opening import UndecodableError as UndecodableError
from alexnet.tools.convert.pixels import pixels_of
from alexnet.tools.convert.raw import decode_raw

_SHORT_WAY = available() is None
_SPARE = 2
_REACH = 2.0  # of the bicubic filter, in pixels of the result
_REDUCTIONS: tuple[Reduction, ...] = (8, 4, 2)


@dataclass(frozen=True, kw_only=True)
class Converted:
    """Hold one finished image: pixels before encoding, uint8 (size, size, 3) RGB or 4 with a filler, and the JPEG."""

    pixels: npt.NDArray[np.uint8]
    jpeg: bytes


def convert_image(data: bytes, size_px: int, quality: int, encoding: Encoding = "file") -> Converted:
    """Decode, resize the shorter side to `size_px`, centre-crop (paper, section 2), encode.

    What the file is, is read from its bytes, never from its name. EXIF orientation is ignored, as every published
    ImageNet result does. MNIST's digits stay grey. Raises UndecodableError with the reason.
    """
    if not 0 < len(data) <= MAX_BYTES:
        raise UndecodableError(f"has more than {MAX_BYTES:,} bytes" if data else "empty file")
    if encoding == "file":
        square = centre_of_jpeg(data, size_px) or resize_and_crop(*_decode_file(data, size_px))
    else:
        square = resize_and_crop(decode_raw(data, encoding), size_px)
    encoded = io.BytesIO()
    subsampling = "4:2:0" if square.mode in ("RGB", "RGBX") else -1
    square.save(encoded, "JPEG", quality=quality, subsampling=subsampling, comment=b"")  # else a GIF's goes with it
    return Converted(pixels=pixels_of(square), jpeg=encoded.getvalue())


def centre_of_jpeg(data: bytes, size_px: int) -> Image.Image | None:
    """Take the short way for an ordinary JPEG: decode no more of it than its centre needs, in C; None for all others.

    The picture has a fourth, unused channel, which is how Pillow keeps its pixels: so it takes them without a copy.
    Every pixel is what Pillow's way gives, because both decode with libjpeg-turbo. What is damaged, CMYK or no JPEG
    goes Pillow's way.

    A picture much larger than needed is reduced by 2, 4 or 8 while it is decoded, as long as twice the pixels remain
    that are needed: against decoding all of it the result has a PSNR of 54 dB or more (41 with less to spare), at half
    the time from 1,024 px on.
    """
    size = jpeg_size(data) if _SHORT_WAY else None
    if size is None or size[0] * size[1] > MAX_PIXELS:
        return None
    by: Reduction = next((by for by in _REDUCTIONS if min(size) >= by * _SPARE * size_px), 1)
    width, height = (-(-side // by) for side in size)
    window = source_window(width, height, size_px, by)
    shape = (window.height, window.width, 4)
    try:
        pixels = decode_rows(data, y=window.top, x=window.left, out=np.empty(shape, np.uint8), reduced_by=by)
    except HopelessError as error:
        raise UndecodableError(str(error)) from None
    except DecodeError:
        return None
    image = Image.frombuffer("RGBX", shape[1::-1], pixels, "raw", "RGBX", 0, 1)
    return image if (width, height) == (size_px, size_px) else _resized(image, window, size_px)


def _decode_file(data: bytes, size_px: int) -> tuple[Image.Image, int, int]:
    """Decode a file to RGB, or say why not; return it with `size_px` and the factor it was reduced by."""
    with opened(data) as image:
        width, height = image.size
        image.draft(None, (_SPARE * size_px, _SPARE * size_px))
        refuse_costly(image, len(data))
        reduced = to_rgb(image)
        return reduced, size_px, max(1, round(width / reduced.width), round(height / reduced.height))


@dataclass(frozen=True, kw_only=True)
class SourceWindow:
    """Hold the part of a decoded image that its resized centre is made from.

    `left`, `top`, `width`, `height`: whole pixels, with the margin that the filter reaches into. `box`: the centre's
    edges inside that part, in fractions of pixels.
    """

    left: int
    top: int
    width: int
    height: int
    box: tuple[float, float, float, float]


@functools.lru_cache(maxsize=4096)
def source_window(width: int, height: int, size_px: int, reduced_by: int = 1) -> SourceWindow:
    """Find what is needed of an image of a size for its centre of `size_px` after resizing.

    The shorter side becomes `size_px`, the longer floor(size_px * longer / shorter); the crop starts at half the
    surplus, rounded down. `reduced_by`: the image is so much smaller than it was stored.
    """
    shorter = min(width, height) * reduced_by
    spans = []
    for side in (width, height):
        new = size_px * side * reduced_by // shorter
        scale = side / new
        begin = (new - size_px) // 2 * scale
        end = min(begin + size_px * scale, side)
        margin = _REACH * max(scale, 1.0) + 1
        first, last = max(0, math.floor(begin - margin)), min(side, math.ceil(end + margin))
        spans.append((first, last - first, begin - first, end - first))
    (left, part_width, x0, x1), (top, part_height, y0, y1) = spans
    return SourceWindow(left=left, top=top, width=part_width, height=part_height, box=(x0, y0, x1, y1))


def resize_and_crop(image: Image.Image, size_px: int, reduced_by: int = 1) -> Image.Image:
    """Resize the shorter side to `size_px` (bicubic, antialiased) and cut out the centre, computing only the centre.

    The result equals resizing the whole picture first, within one grey level. An image of the right size is returned
    as it is.
    """
    if image.size == (size_px, size_px):
        return image
    window = source_window(image.width, image.height, size_px, reduced_by)
    if (window.width, window.height) != image.size:
        right, bottom = window.left + window.width, window.top + window.height
        image = image.crop((window.left, window.top, right, bottom))
    return _resized(image, window, size_px)


def _resized(part: Image.Image, window: SourceWindow, size_px: int) -> Image.Image:
    return part.resize((size_px, size_px), Image.Resampling.BICUBIC, box=window.box)
