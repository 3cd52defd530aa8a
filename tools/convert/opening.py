"""Open an image of any file with Pillow, within bounds of memory and time.

What a file is, is read from its bytes. Libraries that print are silenced, as their warnings say nothing that a verdict
does not; metadata that nobody reads here are not unpacked; and a reason is the same on every machine.

No file takes more than half a gigabyte, whatever is in it. What pixels take is told by the header, so that the verdict
does not depend on the machine; of all else (a million empty tags, an icon that holds a poster) the kernel keeps watch.
"""

import ctypes
import io
import re
import signal
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from PIL import Image, UnidentifiedImageError, _imaging, features

from alexnet.pipeline.host.jpeg import available, truncation
from alexnet.shards.files import TooMuchMemoryError, bounded_memory

MAX_PIXELS = 1 << 27
"""134 million pixels: anything larger is a bomb, not a photograph."""
MAX_BYTES = 150_000_000
"""Of a file: 50 million pixels uncompressed. A larger one is a film, and not even read."""
_DECODED_BYTES, _ALL_BYTES = 440_000_000, 480_000_000
"""What a file and its pixels may take by its header, and what it may take at all."""
_SLOW_PIXELS, _SECONDS = 1 << 24, 60
"""Of what Pillow decodes in Python, with up to 2.6 us a pixel: 44 s; and of the processor's time for any file."""

_OF_FORMAT = {"WEBP": 18, "JPEG2000": 25, "AVIF": 14, "SGI": 8, "PSD": 8, "QOI": 8}
_PLAIN, _WIDE, _OTHERS = 5.1, 14, 11
"""Bytes a pixel while it is decoded and made RGB, copies and all, as measured: of formats that keep their own, of
`_PLAIN_MODES`, of greys of more than 8 bits, of the rest."""
_PLAIN_MODES = ("1", "L", "P", "RGB")
_DDS_HEADER_BYTES = 128
_COPIED = ("PNG", "JPEG", "MPO")  # the file, too, to leave something out or to end it
_BYTES_A_ROW = 40  # its pointers and padding, in all copies

_TAKEN = {"AVIF", "BMP", "DDS", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCD", "PCX", "PNG", "PPM", "PSD"}
_TAKEN |= {"QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM"}
Image.init()
FORMATS = tuple(name for name in Image.ID if name in _TAKEN)
"""What Pillow may open, in its own order. Of its others, some start programs (EPS: Ghostscript), open any format inside
of theirs (IPTC) or unpack without an end (FITS); none holds photographs."""
_NEVER = ("EPS", "FITS", "ICNS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG")  # of these, what first bytes tell for sure
_PREFIX_BYTES = 16  # that plugins are shown

CODECS = {
    "WebP": ("webp", "libwebp-dev"),
    "compressed TIFF": ("libtiff", "libtiff-dev"),
    "JPEG 2000": ("jpg_2000", "libopenjp2-7-dev"),
    "LAB colours": ("littlecms2", "liblcms2-dev"),
    "AVIF": ("avif", None),  # the libavif of Debian 12 is too old
}
"""What Pillow decodes only where it was built against a library: its name for that, and Debian's package."""
_NEEDED = {"libtiff": "compressed TIFF", "jpeg2k": "JPEG 2000", "LAB": "LAB colours"}  # by decoder, by mode
_REBUILT_BY = "pip install --force-reinstall --no-binary :all: --no-cache-dir --no-deps pillow-simd"
_BEGINNINGS = {
    "WebP": rb"RIFF....WEBP",
    "JPEG 2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "AVIF": rb"\0\0..ftyp(?:....){0,15}?avi[fs]",
    "HEIC": rb"\0\0..ftyp(?:....){0,15}?(?:hei[cmsx]|hev[cmsx]|mif1|msf1)",
    "JPEG XL": rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a",
}

_JPEG, _END_OF_JPEG = b"\xff\xd8\xff", b"\xff\xd9"
_ORIENTATION = 0x0112
_PNG, _UNREAD_CHUNKS = b"\x89PNG\r\n\x1a\n", (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_TIFF, _MOST_TAGS, _TYPES_OF_BYTES = (b"II", b"MM"), 1 << 16, (1, 2, 6, 7)
_MOST_VALUES = 1 << 18  # 65,536 strips, as many rows as anybody has, and the colours of 16 bits have fewer

Image.MAX_IMAGE_PIXELS = None  # Pillow would warn from 89 million on and refuse at 179 million


class UndecodableError(Exception):
    """Say why an image cannot be used."""


class MissingDecoderError(UndecodableError):
    """Say which decoder an image needs that is not here, and how to get it."""


@contextmanager
def opened(data: bytes) -> Iterator[Image.Image]:
    """Open a file for as long as it is decoded. Raises UndecodableError with the reason, also for errors inside."""
    try:
        with warnings.catch_warnings(), _bounded(_ALL_BYTES - len(data)):
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(_readable(data)), formats=FORMATS) as image:
                _refuse(image)
                yield image
    except (UndecodableError, MemoryError):
        raise
    except UnidentifiedImageError:  # its own message holds a memory address, which no two runs share
        _require(kind_of(data))
        raise UndecodableError("not an image of any known format") from None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError and more
        raise UndecodableError(f"{type(error).__name__}: {error}") from None


@contextmanager
def _bounded(most: int) -> Iterator[None]:
    """Have the kernel refuse more than so many more bytes, and end what takes a minute: as UndecodableError.

    Both are of the whole process, so in threads other than the main one there is no bound.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGPROF, _too_slow)
    try:
        with bounded_memory(most):
            signal.setitimer(signal.ITIMER_PROF, _SECONDS)
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
    except TooMuchMemoryError:
        raise UndecodableError(f"takes more than {_ALL_BYTES / 1e6:,.0f} MB of memory to decode") from None
    finally:
        signal.signal(signal.SIGPROF, before or signal.SIG_DFL)


def _too_slow(*_: object) -> None:
    raise UndecodableError(f"takes more than {_SECONDS} s to decode")


def refuse_costly(image: Image.Image, file_bytes: int) -> None:
    """Raise UndecodableError if an opened image's header says that decoding it takes too much memory or time."""
    pixels = image.width * image.height
    file_bytes *= 2 if image.format in _COPIED else 1
    wanted = int(file_bytes + pixels * _bytes_a_pixel(image) + image.height * _BYTES_A_ROW)
    if wanted > _DECODED_BYTES:
        raise UndecodableError(
            f"{image.width}x{image.height} px of the kind {image.format} {image.mode} take {wanted / 1e6:,.0f} MB to "
            f"decode, of {_DECODED_BYTES / 1e6:,.0f} at most; store it smaller, or as JPEG"
        )
    for decoder, _, _, told in getattr(image, "tile", ()):
        if pixels > _SLOW_PIXELS and decoder in Image.DECODERS:
            raise UndecodableError(
                f"{image.format}: more than {_SLOW_PIXELS:,} pixels take minutes to decode; convert it to PNG or JPEG"
            )
        if decoder == "dds_rgb" and file_bytes < _DDS_HEADER_BYTES + pixels * told[0] // 8:  # it would be made up
            raise UndecodableError("DDS: is truncated: its data end before the picture does")


def _bytes_a_pixel(image: Image.Image) -> float:
    of_format = _OF_FORMAT.get(image.format or "")
    if of_format is not None:
        return of_format
    if image.mode == "F" or image.mode.startswith("I"):
        return _WIDE
    turned = getattr(image, "tag_v2", {}).get(_ORIENTATION, 1) != 1  # a TIFF is turned by its own tag: one copy more
    clear = image.mode == "P" and "transparency" in image.info
    return _PLAIN if image.mode in _PLAIN_MODES and not (turned or clear) else _OTHERS


def _refuse(image: Image.Image) -> None:
    """Raise UndecodableError for what must not be decoded, or cannot be here."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UndecodableError(f"{width}x{height} px is more than {MAX_PIXELS:,} pixels")
    for name in (image.mode, *(tile[0] for tile in getattr(image, "tile", ()))):
        _require(_NEEDED.get(name))


def orientation(data: bytes) -> int:
    """Return how an image lies in its file, as EXIF counts it: 1 is upright, which is what is not said, too."""
    try:
        with opened(data) as image:
            return int(image.getexif().get(_ORIENTATION, 1))
    except UndecodableError:  # of an image that was decoded before: its EXIF data are damaged
        return 1


def kind_of(head: bytes) -> str | None:
    """Return the kind of an image that Pillow may have no decoder for, or must not read; None for all else."""
    kinds = (kind for kind, beginning in _BEGINNINGS.items() if re.match(beginning, head, re.DOTALL))
    return next(kinds, None) or next((kind for kind in _NEVER if _begins_as(kind, head)), None)


def _begins_as(kind: str, head: bytes) -> bool:
    """Ask the plugin of a format whether it would try a file with these first bytes, without having it read any."""
    _, accept = Image.OPEN.get(kind, (None, None))
    return len(head) >= _PREFIX_BYTES and accept is not None and bool(accept(head[:_PREFIX_BYTES]))


def lacking(kind: str) -> str | None:
    """Return why this Pillow cannot decode a kind of image, and what to do; None if it can."""
    if kind in _NEVER:
        return f"{kind}: is never read here; convert it to PNG or JPEG first"
    feature, package = CODECS.get(kind, (None, None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a feature that an older Pillow does not know
        if feature and features.check(feature):
            return None
    if not package:
        return f"{kind}: this Pillow has no decoder for it; convert it to PNG or JPEG first"
    library = package.removesuffix("-dev")
    return f"{kind}: this Pillow was built without {library}; apt-get install {package}, then {_REBUILT_BY}"


def _require(kind: str | None) -> None:
    """Raise MissingDecoderError if this Pillow cannot decode a kind of image; None is any other kind."""
    if kind is not None and (lacks := lacking(kind)) is not None:
        raise MissingDecoderError(lacks)


def _readable(data: bytes) -> bytes:
    """Return a file as Pillow reads it in full, where its data are in full; raise UndecodableError where not."""
    if data.startswith(_PNG):
        return _without_text(data)
    if data.startswith(_TIFF):
        with suppress(struct.error):  # it ends early, which Pillow will say
            _check_tags(data)
    if data.startswith(_JPEG) and available() is None:
        if (reason := truncation(data, max_pixels=MAX_PIXELS)) is not None:
            raise UndecodableError(reason)
        return data if data.endswith(_END_OF_JPEG) else data + _END_OF_JPEG  # it may lack its own
    return data


def _without_text(png: bytes) -> bytes:
    """Leave out text and colour profile: Pillow unpacks them, and refuses an image over more than 1 MB.

    Raises UndecodableError if pixels are damaged, which Pillow does not check: a tail of zeros decodes as black.
    """
    view = memoryview(png)
    kept, at = io.BytesIO(), len(_PNG)
    kept.write(view[:at])
    while at < len(png):
        end = at + 12 + int.from_bytes(view[at : at + 4])
        kind, checksum = bytes(view[at + 4 : at + 8]), int.from_bytes(view[end - 4 : end])
        if kind == b"IDAT" and end <= len(png) and zlib.crc32(view[at + 4 : end - 4]) != checksum:
            raise UndecodableError("PNG: the checksum of its pixels is wrong: damaged, or not downloaded to the end")
        if kind not in _UNREAD_CHUNKS:
            kept.write(view[at:end])
        at = end
    return kept.getvalue() if kept.tell() < len(png) else png


def _check_tags(tiff: bytes) -> None:
    """Raise UndecodableError for a tag of more values than an image can need: Pillow makes an object of each."""
    order, is_big = "<" if tiff[:1] == b"I" else ">", tiff[2] == 43  # BigTIFF
    first, number, entry = ("8xQ", "Q", "HHQ8x") if is_big else ("4xI", "H", "HHI4x")
    (at,) = struct.unpack_from(order + first, tiff)
    (tags,) = struct.unpack_from(order + number, tiff, at)
    at += struct.calcsize(order + number)
    for place in range(min(tags, _MOST_TAGS)):
        tag, kind, values = struct.unpack_from(order + entry, tiff, at + place * struct.calcsize(order + entry))
        if values > _MOST_VALUES and kind not in _TYPES_OF_BYTES:
            raise UndecodableError(f"TIFF: its tag {tag} claims {values:,} values, of {_MOST_VALUES:,} at most")


def _silence_libtiff() -> None:
    """Have libtiff, where Pillow is linked with it, print nothing: it would write to standard error itself."""
    libraries = ctypes.CDLL(_imaging.__file__)
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        if (setter := getattr(libraries, name, None)) is not None:
            setter.argtypes, setter.restype = (ctypes.c_void_p,), ctypes.c_void_p
            setter(None)


_silence_libtiff()
