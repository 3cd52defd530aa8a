"""What set is to be drawn: how many classes and pictures, and the seed; everything else follows."""

from dataclasses import asdict, dataclass
from typing import Any

from alexnet.shards.errors import InputError
from alexnet.tools.synth.classes import MAX_CLASSES, wnid_of
from alexnet.tools.synth.randomness import VERSION

MAX_IMAGES = 20_000_000  # ImageNet-21k has 14 million
_TRAIN_FOR_VAL = 20
_MAX_SEED = (1 << 63) - 1


@dataclass(frozen=True, kw_only=True)
class SynthSettings:
    """Settle what is drawn. `images`, `val_images`: of all classes together, dealt out evenly, the first in turn."""

    classes: int = 1000
    images: int = 100_000
    val_images: int = 5_000
    seed: int = 2012

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

    def train_images(self, label: int) -> int:
        """Return how many training pictures a class has."""
        return self.images // self.classes + (label < self.images % self.classes)

    def train_stems(self, label: int) -> list[str]:
        """Return their names, without ending."""
        return [f"{wnid_of(label)}_{i}" for i in range(self.train_images(label))]

    def val_stem(self, number: int) -> str:
        """Return the name of a validation picture, without ending; the first is number 1."""
        return f"ILSVRC2012_val_{number:08d}"

    def val_label(self, number: int) -> int:
        """Return its label: classes take turns, so that the first pictures are of all of them."""
        return (number - 1) % self.classes

    def as_record(self) -> dict[str, Any]:
        """Return what names the set: the same record, the same pictures."""
        return {"version": VERSION, **asdict(self)}


def default_val_images(classes: int, images: int) -> int:
    """Return how many validation pictures go with so many for training: a twentieth, and one for each class."""
    return max(classes, images // _TRAIN_FOR_VAL)
