"""Open a picture with Pillow: the one door for files that nobody has vouched for.

What a file is, is read from its bytes. Libraries that print are silenced, as their warnings say nothing that a verdict
does not; metadata that nobody reads here are not unpacked; and a reason is the same on every machine.
"""

import ctypes
import io
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError, _imaging

from alexnet.pipeline.host.extension import available
from alexnet.pipeline.host.jpeg import truncation
from alexnet.tools.convert.pillow import kind_of, lacking

MAX_PIXELS = 1 << 27
"""134 million pixels, 400 MB as RGB: anything larger is a bomb, not a photograph."""
Image.MAX_IMAGE_PIXELS = None  # Pillow would warn from 89 million on and refuse at 179 million

_JPEG, _END_OF_JPEG = b"\xff\xd8\xff", b"\xff\xd9"
_ORIENTATION = 0x0112
_PNG = b"\x89PNG\r\n\x1a\n"
_NEEDED = {"libtiff": "compressed TIFF", "jpeg2k": "JPEG 2000", "LAB": "LAB colours"}  # by decoder, by mode
_UNREAD_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


class UndecodableError(Exception):
    """Say why an image cannot be used."""


class MissingDecoderError(UndecodableError):
    """Say which decoder an image needs that is not here, and the mend."""


@contextmanager
def opened(data: bytes) -> Iterator[Image.Image]:
    """Open a file for as long as it is decoded. Raises UndecodableError with the reason, also for errors inside."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(_readable(data))) as image:
                _refuse(image)
                yield image
    except (UndecodableError, MemoryError):
        raise
    except UnidentifiedImageError:  # its own message holds a memory address, which no two runs share
        _require(kind_of(data))
        raise UndecodableError("not an image of any known format") from None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError and more
        raise UndecodableError(f"{type(error).__name__}: {error}") from None


def orientation(data: bytes) -> int:
    """Return how a picture lies in its file, as EXIF counts it: 1 is upright, which is what is not said, too."""
    try:
        with opened(data) as image:
            return int(image.getexif().get(_ORIENTATION, 1))
    except UndecodableError:  # of a picture that was decoded before: its EXIF data are damaged
        return 1


def _refuse(image: Image.Image) -> None:
    """Raise UndecodableError for what must not be decoded, or cannot be here."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UndecodableError(f"{width}x{height} px is more than {MAX_PIXELS:,} pixels")
    if image.format == "EPS":
        raise UndecodableError("EPS: is a program that draws, which is not run here; convert it to PNG or JPEG first")
    for name in (image.mode, *(tile[0] for tile in getattr(image, "tile", ()))):
        _require(_NEEDED.get(name))


def _require(kind: str | None) -> None:
    """Raise MissingDecoderError if this Pillow cannot decode a kind of picture; None is any other kind."""
    if kind is not None and (lacks := lacking(kind)) is not None:
        raise MissingDecoderError(lacks)


def _readable(data: bytes) -> bytes:
    """Return a file as Pillow reads it in full, where its data are in full; raise UndecodableError where not."""
    if data.startswith(_PNG):
        return _without_text(data)
    if data.startswith(_JPEG) and available() is None:
        if (reason := truncation(data, max_pixels=MAX_PIXELS)) is not None:
            raise UndecodableError(reason)
        return data + _END_OF_JPEG  # it may lack its own; a second one is not read
    return data


def _without_text(png: bytes) -> bytes:
    """Leave out text and colour profile: Pillow unpacks them, and refuses a picture over more than 1 MB.

    Raises UndecodableError if pixels are damaged, which Pillow does not check: a tail of zeros decodes as black.
    """
    view = memoryview(png)
    kept, at = [view[: len(_PNG)]], len(_PNG)
    while at < len(png):
        end = at + 12 + int.from_bytes(view[at : at + 4])
        kind, checksum = bytes(view[at + 4 : at + 8]), int.from_bytes(view[end - 4 : end])
        if kind == b"IDAT" and end <= len(png) and zlib.crc32(view[at + 4 : end - 4]) != checksum:
            raise UndecodableError("PNG: the checksum of its pixels is wrong: damaged, or not downloaded to the end")
        if kind not in _UNREAD_CHUNKS:
            kept.append(view[at:end])
        at = end
    return b"".join(kept)


def _silence_libtiff() -> None:
    """Have libtiff, where Pillow is linked with it, print nothing: it would write to standard error itself."""
    libraries = ctypes.CDLL(_imaging.__file__)
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        if (setter := getattr(libraries, name, None)) is not None:
            setter.argtypes, setter.restype = (ctypes.c_void_p,), ctypes.c_void_p
            setter(None)


_silence_libtiff()
