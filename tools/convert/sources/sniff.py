"""Tell images from other files by their first bytes, so that a wrong folder is not taken for a data set.

A few files are looked at, never all: whether an image is whole, only decoding can tell.
"""

import io
import warnings
from collections.abc import Iterable
from typing import IO

from PIL import Image

LOOKS = 32
"""How many files or classes are looked at before a folder is taken for something else."""
_HEAD_BYTES = 1 << 20


def is_image(file: IO[bytes]) -> bool:
    """Say whether Pillow knows what begins at a file's position."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(file.read(_HEAD_BYTES))):
                return True
    except Exception:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError and more
        return False


def spread(names: Iterable[str]) -> list[str]:
    """Choose a few names evenly."""
    every = list(names)
    return every[:: max(1, len(every) // LOOKS)][:LOOKS]
