"""One JPEG of any size: what its header says, and any window of it as RGB pixels; and whether the C extension is there.

Stricter than most readers: whatever libjpeg warns of (data cut short, a damaged code, stray bytes) is an error, so an
image that comes through is undamaged, and equal to the last bit to what any libjpeg-turbo makes of all of it.
"""

import functools
import importlib
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

Reduction = Literal[1, 2, 4, 8]
Jpeg = bytes | bytearray | memoryview | npt.NDArray[np.uint8]

MAX_PIXELS = 178_956_970
"""Where Pillow, too, refuses an image as a decompression bomb."""

_NEEDS = (
    "install a C compiler, Python's headers and those of libjpeg-turbo 1.5 or newer (Debian, Ubuntu: "
    "apt-get install gcc libc6-dev python3-dev libjpeg-dev), then install alexnet again"
)

_PROGRESSIVE, _SCAN = 0xC2, 0xDA
_FRAMES = (0xC0, 0xC1, _PROGRESSIVE)  # what libjpeg-turbo and nvJPEG decode: baseline, extended, progressive
_SEGMENTS = {*range(0xC0, 0xD0), *range(0xDA, 0xFF)}


@functools.cache
def available() -> str | None:
    """Return None if the C extension can be used, else why not and what to install, in one line.

    Installing the package succeeds without it, so this is where a user learns of it.
    """
    try:
        importlib.import_module("alexnet.pipeline.host._host")
    except ModuleNotFoundError:
        return f"the host decoder was not built; {_NEEDS}"
    except ImportError as error:  # built, but the library it was linked with is gone or is another one
        return f"the host decoder cannot be loaded ({error}); {_NEEDS}"
    return None


def extension() -> Any:
    """Return the C extension, of `module.c`. Raises RuntimeError with the line of `available` if there is none."""
    if reason := available():
        raise RuntimeError(reason)
    return importlib.import_module("alexnet.pipeline.host._host")


class DecodeError(ValueError):
    """Say what is wrong with a JPEG."""


class HopelessError(DecodeError):
    """Say that no other reader should try, either: scans are missing, or there is no end of them."""


class JpegHeader(NamedTuple):
    """Hold what a JPEG's headers say of the image. `bytes`: of the headers, up to the first scan's codes."""

    width_px: int
    height_px: int
    components: int
    progressive: bool
    bytes: int


def read_header(jpeg: Jpeg) -> JpegHeader:
    """Walk through a JPEG's headers, up to the first scan; the C extension is not needed. Raises DecodeError.

    Strict: no stray bytes between segments, one frame header, Huffman-coded with 8 bits a value. It takes 3 us where
    libjpeg, which also reads every table, takes 40.
    """
    data = memoryview(jpeg)  # type: ignore[arg-type]  # NumPy's arrays have a buffer, too
    if data[:2].tobytes() != b"\xff\xd8":
        raise DecodeError("is not a JPEG: it does not begin as one")
    place, header, count = 2, None, len(data)
    while place + 4 <= count:
        marker, end = data[place + 1], place + 2 + (data[place + 2] << 8 | data[place + 3])
        if data[place] != 0xFF or marker not in _SEGMENTS or not place + 4 <= end <= count:
            raise DecodeError(f"its headers are damaged at byte {place}")
        if marker == _SCAN:
            if header is None:
                raise DecodeError("its headers are damaged: they have no frame that can be decoded")
            return header._replace(bytes=end)
        if marker in _FRAMES:
            if header is not None:
                raise DecodeError("its headers are damaged: they have more than one frame")
            header = _frame(marker, data[place + 4 : end].tobytes())
        place = end
    raise DecodeError("its headers were cut short")


def _frame(marker: int, frame: bytes) -> JpegHeader:
    """Read bits a value, height, width, and each component's number, sampling factors and table."""
    if len(frame) < 6 or frame[0] != 8 or not 1 <= frame[5] <= 4 or len(frame) != 6 + 3 * frame[5]:
        raise DecodeError("its frame header is damaged, or is not that of one to four components of 8 bits")
    if not all(1 <= factors >> 4 <= 4 and 1 <= factors & 15 <= 4 for factors in frame[7::3]):
        raise DecodeError("its sampling factors are damaged")
    height_px, width_px = frame[1] << 8 | frame[2], frame[3] << 8 | frame[4]
    if not height_px or not width_px:
        raise DecodeError("its frame header is damaged: it says that there are no pixels")
    return JpegHeader(width_px, height_px, components=frame[5], progressive=marker == _PROGRESSIVE, bytes=0)


def decode_rows(
    jpeg: Jpeg, *, y: int, x: int, shape: tuple[int, int, int], reduced_by: Reduction = 1
) -> npt.NDArray[np.uint8]:
    """Decode the window whose top left corner is (y, x): uint8 of `shape`, RGB; grey gives equal channels.

    `shape`: (height, width, 3), or (height, width, 4), whose fourth channel is 255. Only the window is reconstructed,
    but all of the file is read, so damage elsewhere is found, too. `reduced_by`: the image is decoded so much smaller,
    each side rounded up, and the window lies in that. The interpreter is free meanwhile.
    Raises DecodeError for damage, for CMYK, for more pixels than `MAX_PIXELS`, and for a window that is not inside;
    HopelessError, which is one, where scans are missing or too many.
    """
    height, width, channels = shape
    if channels not in (3, 4) or reduced_by not in get_args(Reduction):
        raise ValueError(f"shape={shape}, reduced_by={reduced_by}: must have 3 or 4 channels; must be 1, 2, 4 or 8")
    host = extension()
    out = np.empty(shape, np.uint8)
    message, hopeless = host.decode_rows(jpeg, y, x, height, width, reduced_by, channels == 4, MAX_PIXELS, out)
    if message is not None:
        raise (HopelessError if hopeless else DecodeError)(message)
    return out


def truncation(jpeg: Jpeg, *, max_pixels: int = MAX_PIXELS) -> str | None:
    """Say how a JPEG ends too early, None if it does not: for readers that go on after damage, and so over that, too.

    All of the file is read, in any colour space. Other damage, and a missing end-of-image marker, are passed over. What
    cannot be decoded at all is not told here; more scans than an image can need are: nobody should read them all.
    """
    text: str | None = extension().truncation(jpeg, max_pixels)
    return text
