"""Integer hashing: the only source of randomness, of orders and of augmentation.

A NumPy release may change its generators, and floating-point functions differ from CPU to CPU in their last bits.
Integer arithmetic does neither, so everything that must be the same everywhere and for ever (which sample goes into
which shard, the order of an epoch, the crop of an image) is a hash of the numbers that name it.
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

UInt64 = npt.NDArray[np.uint64]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: counter * _GOLDEN is a bijection that spreads counters
_MULTIPLY_1 = 0xBF58476D1CE4E5B9
_MULTIPLY_2 = 0x94D049BB133111EB
_CHUNK = 1 << 18


class Purpose(IntEnum):
    """Keep the uses of one seed apart: no two purposes share a key."""

    PREP_ORDER = 1
    EPOCH_ORDER = 2
    AUGMENTATION = 3
    SHARD_ORDER = 4
    SHARED_CROP = 5
    DECODE_SHARE = 6


def mix64(x: UInt64) -> UInt64:
    """Mix each 64-bit word: a bijection, so distinct words stay distinct (the finaliser of SplitMix64)."""
    mixed = x ^ (x >> np.uint64(30))  # in place from here on: 14 million words are 112 MB a copy
    mixed *= np.uint64(_MULTIPLY_1)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(_MULTIPLY_2)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _mix_int(x: int) -> int:
    x = ((x ^ (x >> 30)) * _MULTIPLY_1) & _MASK
    x = ((x ^ (x >> 27)) * _MULTIPLY_2) & _MASK
    return x ^ (x >> 31)


def key_of(purpose: Purpose, *words: int) -> int:
    """Fold a purpose and any integers (seed, epoch, ...) into one 64-bit key; the order of the words matters."""
    key = _mix_int(int(purpose) * _GOLDEN & _MASK)
    for word in words:
        key = _mix_int((key + (word & _MASK) * _GOLDEN + _GOLDEN) & _MASK)
    return key


def hashes(key: int, counters: npt.NDArray[np.integer]) -> UInt64:
    """Hash each counter under a key: shape kept, uint64, uniform over all 64 bits."""
    words = counters.astype(np.uint64)
    words *= np.uint64(_GOLDEN)
    words += np.uint64(key)
    return mix64(words)


def permutation(n: int, key: int) -> npt.NDArray[np.int64]:
    """Return the permutation of range(n) that a key names: int64 (n,).

    The hash is a bijection, so no two of the sorted values are equal and any correct sort gives the same answer.
    1.28 million entries take 0.12 s. Nothing but the hashes and the answer is made whole: 224 MB for 14 million.
    """
    keys = np.empty(n, np.uint64)
    for first in range(0, n, _CHUNK):
        keys[first : first + _CHUNK] = hashes(key, np.arange(first, min(n, first + _CHUNK)))
    return np.argsort(keys)
