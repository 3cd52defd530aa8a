"""Where every choice comes from: SHAKE-256 of the name of what is being drawn.

The standard library's hash gives the same bytes on every machine and in every release, which no generator of NumPy
promises. A picture's draws depend on its own name alone, so pictures can be drawn in any order and by any process.
"""

import hashlib
import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

VERSION = 1  # of what is drawn: a new one for every change that alters a pixel

_DRAWS = 64


class Draws:
    """Deal out up to 64 whole numbers, the same for the same name; who takes them must do so in a fixed order."""

    def __init__(self, name: str) -> None:
        digest = hashlib.shake_256(f"{VERSION} {name}".encode()).digest(2 * _DRAWS)
        self._words: Iterator[int] = iter(struct.unpack(f"<{_DRAWS}H", digest))

    def below(self, n: int) -> int:
        """Return a number from 0 to n - 1; `n` is at most 65,536."""
        return next(self._words) * n >> 16

    def between(self, low: int, high: int) -> int:
        """Return a number from `low` to `high`, both included."""
        return low + self.below(high - low + 1)


def random_bytes(name: str, *shape: int) -> npt.NDArray[np.uint8]:
    """Return uniform bytes of a shape, the same for the same name."""
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(hashlib.shake_256(f"{VERSION} {name}".encode()).digest(count), np.uint8).reshape(shape)
