"""What a set consists of, what a class is (`Traits`), and the hash that an image's choices come from (`Choices`).

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

from alexnet.shards.errors import InputError

TRAITS = 16
MAX_CLASSES = TRAITS**3
MAX_IMAGES = 20_000_000  # ImageNet-21k has 14 million
_MAX_SEED = (1 << 63) - 1

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


@dataclass(frozen=True, kw_only=True)
class SynthSettings:
    """Settle a set. `images`, `val_images`: of all classes together, dealt out evenly, the first classes in turn."""

    classes: int
    images: int
    val_images: int
    seed: int

    def __post_init__(self) -> None:
        limits = (
            ("classes", 1, MAX_CLASSES),
            ("images", self.classes, MAX_IMAGES),
            ("val_images", 0, MAX_IMAGES),
            ("seed", 0, _MAX_SEED),
        )
        for field, low, high in limits:
            value = getattr(self, field)
            if not low <= value <= high:
                why = ", one for each class" if field == "images" and value < low else ""
                raise InputError(f"{field}={value}: must be between {low:,} and {high:,}{why}")

    def train_stems(self, label: int) -> list[str]:
        """Return the names of a class's training images, without ending."""
        images = self.images // self.classes + (label < self.images % self.classes)
        return [f"{wnid_of(label)}_{i}" for i in range(images)]

    def val_stems(self) -> list[str]:
        """Return the names of the validation images, without ending."""
        return [f"ILSVRC2012_val_{number:08d}" for number in range(1, self.val_images + 1)]

    def val_labels(self) -> list[int]:
        """Return their labels: classes take turns, so that the first images are of all of them."""
        return [k % self.classes for k in range(self.val_images)]


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
