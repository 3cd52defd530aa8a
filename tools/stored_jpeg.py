"""Look into one stored JPEG: its pixels, and how coarsely it was encoded.

Runs in the worker processes of `alexnet-prep verify --deep` and imports no more than Pillow and NumPy.
"""

import functools
import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from alexnet.shards.manifest import MAX_SIZE_PX

_MODES = ("RGB", "L")


def decode_stored(jpeg: bytes) -> tuple[npt.NDArray[np.uint8], int]:
    """Decode a stored JPEG: uint8 (height, width, channels), and the coarsest step that its DC terms are rounded to.

    Raises ValueError if it cannot be decoded, or is no baseline JPEG in RGB or grey.
    """
    pixels, tables = _open(jpeg)
    return pixels, max(table[0] for table in tables)


def rgb_and_quality(jpeg: bytes) -> tuple[npt.NDArray[np.uint8], int]:
    """Decode a stored JPEG into uint8 (height, width, 3), grey repeated, and estimate the quality it was encoded at."""
    pixels, tables = _open(jpeg)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))), estimate_quality(tables[0])


def header_of(jpeg: bytes) -> tuple[int, int, Literal[1, 3], int]:
    """Return width and height in px, channels and estimated quality of a JPEG, of which nothing is decoded.

    Raises ValueError if it is no baseline JPEG in grey or in the colours that any decoder expects.
    """
    with _opened(jpeg) as image:
        numbers = bytes(layer[0] for layer in image.layer)
        if (image.info.get("adobe_transform") == 0 and image.mode == "RGB") or numbers == b"RGB":
            raise ValueError("is a JPEG of RGB, not YCbCr, which not every decoder reads")
        channels: Literal[1, 3] = 1 if image.mode == "L" else 3
        return *image.size, channels, _quality_of(tuple(image.quantization[image.layer[0][3]]))


@functools.lru_cache
def _quality_of(luminance: tuple[int, ...]) -> int:
    return estimate_quality(luminance)


def estimate_quality(luminance: Sequence[int]) -> int:
    """Return the quality, 1 to 100, whose luminance table in libjpeg is nearest to a JPEG's own."""
    table = np.sort(np.array(luminance))
    distances = [int(np.abs(table - known).sum()) for known in _tables_by_quality()]
    return 1 + distances.index(min(distances))


@functools.cache
def _tables_by_quality() -> list[npt.NDArray[np.int64]]:
    """Ask the encoder itself: the sorted luminance tables of qualities 1 to 100."""
    dot, tables = Image.new("L", (8, 8)), []
    for quality in range(1, 101):
        encoded = io.BytesIO()
        dot.save(encoded, "JPEG", quality=quality)
        tables.append(np.sort(np.array(_open(encoded.getvalue())[1][0])))
    return tables


def _open(jpeg: bytes) -> tuple[npt.NDArray[np.uint8], list[list[int]]]:
    """Return pixels, uint8 (height, width, channels), and quantisation tables, the luminance one first."""
    with _opened(jpeg) as image:
        image.load()
        return np.atleast_3d(np.asarray(image)), [table for _, table in sorted(image.quantization.items())]


@contextmanager
def _opened(jpeg: bytes) -> Iterator[JpegImageFile]:
    """Open a JPEG of a kind that is stored. Raises ValueError for another, and for what goes wrong while it is open."""
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
            if not isinstance(image, JpegImageFile) or image.mode not in _MODES or "progressive" in image.info:
                kind = "progressive" if "progressive" in image.info else image.mode
                raise ValueError(f"is a JPEG of the kind {kind}: must be baseline in {' or '.join(_MODES)}")
            if max(image.size) > MAX_SIZE_PX:
                raise ValueError(f"has {image.width} x {image.height} px: at most {MAX_SIZE_PX} a side are stored")
            yield image
    except UnidentifiedImageError:  # which names a buffer's place in memory
        raise ValueError("is no JPEG") from None
    except (OSError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot be decoded: {error}") from None
