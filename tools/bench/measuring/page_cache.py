"""What of files the system holds in its cache."""

import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt


def cached_share(files: Sequence[Path]) -> float | None:
    """Return the share of files that the system has in its cache; None where it does not say.

    Asked with `mincore`, which brings nothing in, unlike a look with a read. Linux answers who may write a file.
    """
    held = pages = 0
    for path in files:
        if not os.access(path, os.W_OK):
            return None
        flags = _pages_held(path)
        if flags is None:
            return None
        held, pages = held + int(flags.sum()), pages + len(flags)
    return held / max(1, pages)


def _pages_held(path: Path) -> npt.NDArray[np.uint8] | None:
    """Say of each page of a file whether it is cached: uint8 (pages,), 0 or 1."""
    size = path.stat().st_size
    flags = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
    if not size:
        return flags
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as memory:
        first = ctypes.c_char.from_buffer(memory)
        try:
            address, vector = ctypes.addressof(first), ctypes.c_void_p(flags.ctypes.data)
            failed = ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), vector)
        except AttributeError:  # another system than Linux
            failed = True
        finally:
            del first  # or the mapping could not be closed
    return None if failed else flags & np.uint8(1)
