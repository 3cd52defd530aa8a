"""Read the table of a MATLAB file (version 5) that anybody may have made: its texts and numbers, and nothing else.

SciPy reads all that such a file can hold, and so much memory, and so deep, as it claims.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

_HEADER_BYTES = 128
_MOST_BYTES, _MOST_RECORDS = 1 << 25, 100_000  # ImageNet's table of 1,860 synsets has 2 MB; WordNet has 82,000
_MATRIX, _COMPRESSED = 14, 15
_STRUCT, _CHAR = 2, 4
_NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_TEXTS = {1: "latin1", 2: "latin1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le"}

Value = Any
"""A text, or the first of some numbers as a float; None for anything else."""


def read_records(data: bytes, name: str) -> list[dict[str, Value]]:
    """Return the records of the array of structures that is called so. Raises ValueError if it cannot be read."""
    if data[124:128] != b"\0\1IM":
        raise ValueError("is no MATLAB file of version 5")
    try:
        for kind, content in _elements(data[_HEADER_BYTES:]):
            if kind == _COMPRESSED:
                unpacker = zlib.decompressobj()
                kind, content = next(_elements(unpacker.decompress(content, _MOST_BYTES)), (0, b""))
                if unpacker.unconsumed_tail:
                    raise ValueError(f"unpacks to more than {_MOST_BYTES:,} bytes")
            parts = _elements(content)
            if kind == _MATRIX and next(parts)[1][0] == _STRUCT:
                dims, found = next(parts)[1], next(parts)[1]
                if found == name.encode():
                    return _records(parts, math.prod(_integers(dims)))
    except (struct.error, StopIteration, IndexError, zlib.error) as error:
        raise ValueError(f"is damaged ({type(error).__name__}: {error})") from None
    raise ValueError(f"holds no {name}")


def _records(parts: Iterator[tuple[int, bytes]], count: int) -> list[dict[str, Value]]:
    (width,), text = _integers(next(parts)[1]), next(parts)[1]
    fields = [text[at : at + width].split(b"\0")[0].decode("latin1") for at in range(0, len(text), max(1, width))]
    if not 0 <= count * len(fields) <= _MOST_RECORDS * 10:
        raise ValueError(f"claims {count:,} records of {len(fields):,} fields")
    return [{field: _value(next(parts)[1]) for field in fields} for _ in range(count if fields else 0)]


def _value(matrix: bytes) -> Value:
    parts = [part for _, part in zip(range(4), _elements(matrix), strict=False)]  # flags, sizes, name, content
    if len(parts) < 4:
        return None
    kind, content = parts[3]
    if parts[0][1][0] == _CHAR:
        return content.decode(_TEXTS[kind], "replace") if kind in _TEXTS else None
    return float(np.frombuffer(content, _NUMBERS[kind], 1)[0]) if kind in _NUMBERS and content else None


def _integers(content: bytes) -> list[int]:
    return [value for (value,) in struct.iter_unpack("<i", content)]


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of the elements that lie one behind the other."""
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        if kind >> 16:  # up to four bytes lie in the tag itself
            length, kind = kind >> 16, kind & 0xFFFF
            yield kind, data[at + 4 : at + 4 + min(length, 4)]
            at += 8
            continue
        if length > len(data) - at - 8:
            raise IndexError(f"{length:,} bytes claimed")
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + (length if kind == _COMPRESSED else -(-length // 8) * 8)
