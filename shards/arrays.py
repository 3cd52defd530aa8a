"""NumPy's files, opened without NumPy's own reader: it evaluates the header as Python, whatever stands there."""

import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet.shards.errors import InputError, reason_of
from alexnet.shards.files import open_regular

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': (.+), 'fortran_order': False, 'shape': \(([0-9]{1,12}(?:, [0-9]{1,12}){0,2}),?\), \} *\n"
)


def map_array(path: Path, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Map a NumPy file's array, in C order, for reading. Raises OSError, and ValueError for another dtype or size."""
    with os.fdopen(open_regular(path), "rb") as file:
        start = file.read(10)
        header = file.read(int.from_bytes(start[8:], "little")) if start[:8] == _MAGIC else b""
        match = _HEADER.fullmatch(header)
        if match is None or match[1] != repr(np.lib.format.dtype_to_descr(np.dtype(dtype))).encode():
            raise ValueError(f"is no NumPy file of {np.dtype(dtype)}")
        shape = tuple(map(int, match[2].split(b",")))
        first, size = len(start) + len(header), os.fstat(file.fileno()).st_size
        needed = first + math.prod(shape) * np.dtype(dtype).itemsize
        if size != needed:
            raise ValueError(f"has {size:,} bytes where an array of {shape} needs {needed:,}")
        return np.memmap(file, dtype, "r", first, shape)


def read_mean_image(path: Path, size_px: int, *, mend: str) -> npt.NDArray[np.float32]:
    """Read a mean image: float32 (size, size, 3), 0-255. Raises InputError in one line for anything else."""
    try:
        image = map_array(path, np.float32)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({reason_of(error)}); {mend}") from None
    if image.shape != (size_px, size_px, 3):
        raise InputError(f"{path}: is {'x'.join(map(str, image.shape))}: must be {size_px}x{size_px}x3; {mend}")
    if not 0 <= image.min() <= image.max() <= 255:
        raise InputError(f"{path}: holds values that do not lie between 0 and 255; {mend}")
    return np.array(image)
