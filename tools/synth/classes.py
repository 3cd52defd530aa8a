"""What a synthetic class is (`Traits`), and the hash that every choice of an image comes from (`Choices`).

A class is one of 16 grounds, on it a figure with one of 16 outlines, filled with one of 16 textures. Colours, places,
sizes, tilts and grain are each image's own and say nothing of its class. The three traits are shared by many classes,
so that a network's loss falls trait by trait, from the easy ones (texture) to the hard (outline).

Choices are SHAKE-256 of the name of what is made. The standard library's hash gives the same bytes on every machine and
in every release, which no generator of NumPy promises; and an image's choices depend on its own name alone, so images
can be made in any order and by any process.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TRAITS = 16
MAX_CLASSES = TRAITS**3

_FIRST_WNID = 90_000_001  # no WordNet number begins with 9
_STEP = 0x111  # odd, so that every label has its own traits; neighbours differ in all three
_FIGURE_SHIFT = 5  # else the first 16 classes would have figures of their ground's texture

_SPACINGS = ("fine", "middling", "coarse")
_SLOPES = ("upright", "steep", "slanting", "level")
TEXTURES = (
    *(f"{spacing} {slope} stripes" for slope in _SLOPES for spacing in _SPACINGS),
    "fine checks",
    "coarse checks",
    "upright zigzags",
    "level zigzags",
)
OUTLINES = (
    "disc",
    "ring",
    "crescent",
    "square",
    "frame",
    "triangle",
    "star",
    "cross",
    "bar",
    "post",
    "ell",
    "tee",
    "arrow",
    "hourglass",
    "cup",
    "aitch",
)


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Hold what all images of a class share: numbers in TEXTURES, TEXTURES and OUTLINES."""

    ground: int
    figure: int
    outline: int


def traits_of(label: int) -> Traits:
    """Return a class's traits; those of a label are the same however many classes there are."""
    code = label * _STEP % MAX_CLASSES
    return Traits(ground=code // TRAITS**2, figure=(code // TRAITS + _FIGURE_SHIFT) % TRAITS, outline=code % TRAITS)


def wnid_of(label: int) -> str:
    """Return the class's name in the shape of a WordNet number; their sorted order is that of the labels."""
    return f"n{_FIRST_WNID + label}"


def label_of(wnid: str) -> int:
    """Return the label of a class's name."""
    return int(wnid[1:]) - _FIRST_WNID


def words_of(label: int) -> str:
    """Describe a class."""
    traits = traits_of(label)
    return f"{OUTLINES[traits.outline]} of {TEXTURES[traits.figure]} on {TEXTURES[traits.ground]}"


VERSION = 1  # of what is made: a new one for every change that alters a pixel

_CHOICES = 64


class Choices:
    """Deal out up to 64 whole numbers, the same for the same name; who takes them must do so in a fixed order."""

    def __init__(self, name: str) -> None:
        digest = hashlib.shake_256(f"{VERSION} {name}".encode()).digest(2 * _CHOICES)
        self._words: Iterator[int] = iter(struct.unpack(f"<{_CHOICES}H", digest))

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
