"""Make one stored image of a file of any kind: decode, make RGB, resize and crop to a square, encode.

Baseline JPEG with 4:2:0 chroma, because training decodes it ninety times: progressive files decode 2.6 times slower
and 4:4:4 1.4 times.

Greys of more than 8 bits have a white, and nothing says what it is where a file uses little of its range: 12 bits in a
16-bit file, or a dark image? What is certain is scaled, what would come out black or burnt out is refused.
"""

import ctypes
import functools
import io
import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from alexnet.pipeline.host.jpeg import DecodeError, HopelessError, Reduction, available, decode_rows, read_header
from alexnet.tools.convert.listing import Encoding
from alexnet.tools.convert.opening import MAX_BYTES, MAX_PIXELS, UndecodableError, opened, refuse_costly

Pixels = npt.NDArray[np.uint8]
Extrema = tuple[tuple[int, int], ...]

_IN_C = available() is None
_SPARE = 2  # times the pixels that are needed, each way, remain when a large image is reduced while it is decoded
_REDUCTIONS: tuple[Reduction, ...] = (8, 4, 2)
_REACH = 2.0  # of the bicubic filter, in pixels of the result
_PHOTOMETRIC = 262  # TIFF's tag
_CONTRAST = 16
"""Levels of 256, a sixteenth: what has less of them shows nothing."""
CIFAR_PX, CIFAR_BYTES = 32, 3 * 32 * 32
MNIST_PX, MNIST_BYTES = 28, 28 * 28


@dataclass(frozen=True, kw_only=True)
class Converted:
    """Hold one finished image: pixels before encoding, uint8 (size, size, 3) RGB or 4 with a filler, and the JPEG."""

    pixels: Pixels
    jpeg: bytes


def convert_image(data: bytes, size_px: int, quality: int, encoding: Encoding = "file") -> Converted:
    """Decode, resize the shorter side to `size_px`, centre-crop (paper, section 2), encode.

    What the file is, is read from its bytes, never from its name. EXIF orientation is ignored, as every published
    ImageNet result does. MNIST's digits stay grey. Raises UndecodableError with the reason.
    """
    if not 0 < len(data) <= MAX_BYTES:
        raise UndecodableError(f"has more than {MAX_BYTES:,} bytes" if data else "empty file")
    if encoding == "file":
        square = centre_of_jpeg(data, size_px) or _centre_of_file(data, size_px)
    else:
        square = resize_and_crop(decode_raw(data, encoding), size_px)
    encoded = io.BytesIO()
    subsampling = "4:2:0" if square.mode in ("RGB", "RGBX") else -1
    square.save(encoded, "JPEG", quality=quality, subsampling=subsampling, comment=b"")  # else a GIF's goes with it
    return Converted(pixels=pixels_of(square), jpeg=encoded.getvalue())


def centre_of_jpeg(data: bytes, size_px: int) -> Image.Image | None:
    """Take the short way for an ordinary JPEG: decode no more of it than its centre needs, in C; None for all others.

    The image has a fourth, unused channel, which is how Pillow keeps its pixels: so it takes them without a copy.
    Every pixel is what Pillow's way gives, because both decode with libjpeg-turbo. What is damaged, CMYK or no JPEG
    goes Pillow's way.

    An image much larger than needed is reduced by 2, 4 or 8 while it is decoded, as long as twice the pixels remain
    that are needed: against decoding all of it the result has a PSNR of 54 dB or more (41 with less to spare), at half
    the time from 1,024 px on.
    """
    if not _IN_C:
        return None
    try:
        size = read_header(data)[:2]
        if not 0 < size[0] * size[1] <= MAX_PIXELS:
            return None
        by: Reduction = next((by for by in _REDUCTIONS if min(size) >= by * _SPARE * size_px), 1)
        width, height = (-(-side // by) for side in size)
        (left, top, part_width, part_height), box = needed_part(width, height, size_px, by)
        shape = (part_height, part_width, 4)
        pixels = decode_rows(data, y=top, x=left, shape=shape, reduced_by=by)
    except HopelessError as error:
        raise UndecodableError(str(error)) from None
    except DecodeError:
        return None
    image = Image.frombuffer("RGBX", shape[1::-1], pixels, "raw", "RGBX", 0, 1)
    return image if (width, height) == (size_px, size_px) else _resized(image, size_px, box)


def _centre_of_file(data: bytes, size_px: int) -> Image.Image:
    """Decode a file of any format to RGB, and take its centre."""
    with opened(data) as image:
        width, height = image.size
        image.draft(None, (_SPARE * size_px, _SPARE * size_px))
        refuse_costly(image, len(data))
        rgb = to_rgb(image)
    return resize_and_crop(rgb, size_px, max(1, round(width / rgb.width), round(height / rgb.height)))


@functools.lru_cache(maxsize=4096)
def needed_part(
    width: int, height: int, size_px: int, reduced_by: int = 1
) -> tuple[tuple[int, int, int, int], tuple[float, float, float, float]]:
    """Find what is needed of an image of a size for its centre of `size_px` after resizing.

    The shorter side becomes `size_px`, the longer floor(size_px * longer / shorter); the crop starts at half the
    surplus, rounded down. `reduced_by`: the image is so much smaller than it was stored. Returns left, top, width and
    height of the part in whole pixels, with the margin that the filter reaches into; and the centre's edges inside that
    part, in fractions of pixels: left, top, right, bottom.
    """
    shorter = min(width, height) * reduced_by
    parts, edges = [], []
    for side in (width, height):
        new = size_px * side * reduced_by // shorter
        scale = side / new
        begin = (new - size_px) // 2 * scale
        end = min(begin + size_px * scale, side)
        margin = _REACH * max(scale, 1.0) + 1
        first, last = max(0, math.floor(begin - margin)), min(side, math.ceil(end + margin))
        parts.append((first, last - first))
        edges.append((begin - first, end - first))
    (left, part_width), (top, part_height) = parts
    (x0, x1), (y0, y1) = edges
    return (left, top, part_width, part_height), (x0, y0, x1, y1)


def resize_and_crop(image: Image.Image, size_px: int, reduced_by: int = 1) -> Image.Image:
    """Resize the shorter side to `size_px` (bicubic, antialiased) and cut out the centre, computing only the centre.

    The result equals resizing the whole image first, within one grey level. An image of the right size is returned as
    it is.
    """
    if image.size == (size_px, size_px):
        return image
    (left, top, width, height), box = needed_part(image.width, image.height, size_px, reduced_by)
    if (width, height) != image.size:
        image = image.crop((left, top, left + width, top + height))
    return _resized(image, size_px, box)


def _resized(part: Image.Image, size_px: int, box: tuple[float, float, float, float]) -> Image.Image:
    return part.resize((size_px, size_px), Image.Resampling.BICUBIC, box=box)


def decode_raw(data: bytes, encoding: Encoding) -> Image.Image:
    """Return an image of raw pixels: mode RGB for `cifar10`, L for `mnist`. Raises ValueError for another length."""
    shape = (3, CIFAR_PX, CIFAR_PX) if encoding == "cifar10" else (1, MNIST_PX, MNIST_PX)
    planes = np.frombuffer(data, np.uint8).reshape(shape)
    return Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0).squeeze()))


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
    if ";16" in stored and max(high for _, high in cast(Extrema, rgb.getextrema())) < _CONTRAST:
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
    """Lay an image of one colour, which would come out as a blank square, on white, a light one on black.

    Its shape is in its alpha. All others are returned as they are.
    """
    rgba = image.convert("RGBA")
    *colours, (clear, solid) = cast(Extrema, rgba.getextrema())
    if solid - clear < _CONTRAST or any(high - low >= _CONTRAST for low, high in colours):
        return image
    ground = 0 if sum(high for _, high in colours) > 3 * 127 else 255
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (ground, ground, ground, 255)), rgba)


def _with_true_ink(image: Image.Image) -> Image.Image:
    """Undo Pillow's inversion of a CMYK JPEG where it was wrong.

    Adobe's programs store ink inverted and say so in a marker; Pillow takes every file for one of theirs. Some files
    carry the marker and are not inverted: then black ink is full at every pixel, and the other reading is the image.
    """
    black_ink = image.getchannel("K").getextrema()
    if "adobe" not in image.info or black_ink == (255, 255):
        return ImageChops.invert(image)
    return image


class _Shared:
    """Offer memory to NumPy; arrays made of it keep this, and so its owner, alive."""

    def __init__(self, owner: object, address: int, shape: tuple[int, int, int]) -> None:
        self.owner = owner
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": shape, "data": (address, True)}


_struct_in = ctypes.pythonapi.PyCapsule_GetPointer
_struct_in.restype, _struct_in.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


def pixels_of(image: Image.Image) -> Pixels:
    """Return an image's pixels, uint8 (height, width, 3), or 4 of which the last means nothing; never writeable.

    They are Pillow's own, which must not be changed meanwhile: a copy takes 0.03 to 0.05 ms and drives the next image's
    data out of the cache. Pillow shares them through the Arrow C data interface, which NumPy does not speak.
    """
    if image.mode not in ("RGB", "RGBX"):  # both have four bytes a pixel
        image = image.convert("RGB")
    if image.readonly or not hasattr(image, "__arrow_c_array__"):  # memory that is not Pillow's; an older Pillow
        return np.asarray(image)
    try:
        _, capsule = image.__arrow_c_array__()
    except ValueError:  # a large image in several pieces
        return np.asarray(image)
    _, _, _, _, _, _, children = _words(_struct_in(capsule, b"arrow_array"), 7)  # struct ArrowArray
    length, _, offset, _, _, buffers = _words(_words(children, 1)[0], 6)  # of a list for each pixel, its bytes
    _, values = _words(buffers, 2)
    if length != image.height * image.width * 4 or offset or not values:
        return np.asarray(image)
    return np.asarray(_Shared(capsule, values, (image.height, image.width, 4)))


def _words(address: int, count: int) -> list[int]:
    return list((ctypes.c_int64 * count).from_address(address))
