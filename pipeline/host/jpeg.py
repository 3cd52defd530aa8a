"""One JPEG of any size: what its header says, and any window of it as RGB pixels.

Stricter than most readers: whatever libjpeg warns of (data cut short, a damaged code, stray bytes) is an error, so a
picture that comes through is undamaged, and equal to the last bit to what any libjpeg-turbo makes of all of it.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.host.extension import require

Reduction = Literal[1, 2, 4, 8]
Jpeg = bytes | bytearray | memoryview | npt.NDArray[np.uint8]
ColourSpace = Literal["GRAYSCALE", "RGB", "YCbCr", "CMYK", "YCCK", "unknown"]

MAX_PIXELS = 178_956_970
"""Where Pillow, too, refuses a picture as a decompression bomb."""


class DecodeError(ValueError):
    """Say what is wrong with a JPEG."""


class HopelessError(DecodeError):
    """Say that no other reader should try, either: scans are missing, or there is no end of them."""


@dataclass(frozen=True, kw_only=True)
class JpegHeader:
    """Hold what a JPEG's header says. `colour_space`: of the stored components."""

    width_px: int
    height_px: int
    components: int
    colour_space: ColourSpace
    progressive: bool


def read_header(jpeg: Jpeg) -> JpegHeader:
    """Read a JPEG's header and nothing more of it. Raises DecodeError if there is none."""
    require()
    from alexnet.pipeline.host import _host

    found = _host.read_header(jpeg)
    if isinstance(found, str):
        raise DecodeError(found)
    width_px, height_px, components, colour_space, progressive = found
    return JpegHeader(
        width_px=width_px,
        height_px=height_px,
        components=components,
        colour_space=colour_space,
        progressive=progressive,
    )


def decode_rows(
    jpeg: Jpeg,
    *,
    y: int,
    x: int,
    height: int | None = None,
    width: int | None = None,
    out: npt.NDArray[np.uint8] | None = None,
    reduced_by: Reduction = 1,
    max_pixels: int = MAX_PIXELS,
) -> npt.NDArray[np.uint8]:
    """Decode the window whose top left corner is (y, x): uint8 (height, width, 3), RGB; grey gives equal channels.

    Only the window is reconstructed, but all of the file is read, so damage elsewhere is found, too. `out`: where to
    put the pixels instead of fresh memory; it then says the window's size. With shape (height, width, 4), the fourth
    channel is 255. `reduced_by`: the picture is decoded so much smaller, each side rounded up, and the window lies in
    that. `max_pixels`: of the whole picture as stored. The interpreter is free meanwhile.
    Raises DecodeError for damage, for CMYK, for more pixels, and for a window that is not inside; HopelessError, which
    is one, where scans are missing or too many.
    """
    require()
    from alexnet.pipeline.host import _host

    if out is None:
        if height is None or width is None:
            raise ValueError("height and width: both are needed without out")
        out = np.empty((height, width, 3), np.uint8)
    elif out.ndim != 3 or out.shape[2] not in (3, 4) or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(f"out: is {out.dtype} {out.shape}; must be contiguous uint8 (height, width, 3 or 4)")
    elif (height or len(out), width or out.shape[1]) != out.shape[:2]:
        raise ValueError(f"out: is {out.shape}, not for a window {width} px wide and {height} high")
    if reduced_by not in get_args(Reduction):
        raise ValueError(f"reduced_by={reduced_by}: must be 1, 2, 4 or 8")
    rows, columns, channels = out.shape
    message, hopeless = _host.decode_rows(jpeg, y, x, rows, columns, reduced_by, channels == 4, max_pixels, out)
    if message is not None:
        raise (HopelessError if hopeless else DecodeError)(message)
    return out


def truncation(jpeg: Jpeg, *, max_pixels: int = MAX_PIXELS) -> str | None:
    """Say how a JPEG ends too early, None if it does not: for readers that go on after damage, and so over that, too.

    All of the file is read, in any colour space. Other damage, and a missing end-of-image marker, are passed over. What
    cannot be decoded at all is not told here; more scans than a picture can need are: nobody should read them all.
    """
    require()
    from alexnet.pipeline.host import _host

    return _host.truncation(jpeg, max_pixels)
