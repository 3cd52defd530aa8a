"""What is done to each image: where it is cut, whether it is mirrored, how its colours are shifted.

Every draw is an integer hash of (seed, epoch, sample id), so it does not matter who computes it, when, or together
with which other images. Normal deviates come from a committed table indexed by 16 hash bits, and sums have a fixed
order: NumPy's transcendental functions and reductions change their last bits from CPU to CPU.

Lighting (paper, section 4.1) shifts all pixels of an image by one colour: the principal axes of the training set's
RGB pixels, each times its *standard deviation* times a draw from N(0, 0.1). The paper's text says eigenvalue; the
2012 code multiplies by the square root, and on 0-255 pixels the eigenvalue would bleach everything. Torch's widely
copied constants are variances on a 0-1 scale: as multipliers they are 2 to 17 times too weak.
"""

import functools
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import numpy as np
import numpy.typing as npt

from alexnet.shards.colour import ColourStatistics
from alexnet.shards.errors import InputError
from alexnet.shards.hashing import Purpose, hashes, key_of

Lighting = Literal["measured", "off"]
Scale = Literal["pixel", "unit-variance"]

_HASHES_PER_SAMPLE = 2


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """Settle the augmentation of a training stream.

    `crop_px`: side of the window. `mirror`: flip half of the images. `lighting`: `measured` uses the data set's own
    principal axes, `off` none. `lighting_std`: standard deviation of the three coefficients. `scale`: `pixel` leaves
    0-255 minus the mean, as in 2012; `unit-variance` also divides by each channel's standard deviation.
    """

    crop_px: int = 224
    mirror: bool = True
    lighting: Lighting = "measured"
    lighting_std: float = 0.1
    scale: Scale = "pixel"

    def check(self, size_px: int) -> None:
        """Raise InputError unless the window fits the stored images."""
        if not 1 <= self.crop_px <= size_px:
            raise InputError(
                f"crop_px={self.crop_px}: must be between 1 and the shards' {size_px}; "
                f"rebuild them with `alexnet-prep shard --size {max(self.crop_px, 1)}` for larger windows"
            )
        if not 0 <= self.lighting_std <= 10:
            raise InputError(f"lighting_std={self.lighting_std}: must be between 0 and 10; the paper uses 0.1")


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Hold the augmentation of some images, one row an image.

    `crop_yx`: int32 (n, 2), the window's top left corner. `mirror`: bool (n,). `colour_offset`: float32 (n, 3), RGB,
    what is added to every pixel on the 0-255 scale.
    """

    crop_yx: npt.NDArray[np.int32]
    mirror: npt.NDArray[np.bool_]
    colour_offset: npt.NDArray[np.float32]


def draw(
    settings: AugmentSettings,
    colour: ColourStatistics,
    size_px: int,
    seed: int,
    epoch: int,
    sample_ids: npt.NDArray[np.int64],
) -> Draws:
    """Draw the augmentation of samples in an epoch."""
    key = key_of(Purpose.AUGMENTATION, seed, epoch)
    geometry = hashes(key, sample_ids * _HASHES_PER_SAMPLE)
    places = size_px - settings.crop_px + 1
    crop_yx = np.stack([_below(geometry, 0, places), _below(geometry, 24, places)], axis=1)
    mirror = (geometry >> np.uint64(63)).astype(np.bool_) if settings.mirror else np.zeros(len(sample_ids), np.bool_)
    return Draws(
        crop_yx=crop_yx,
        mirror=mirror,
        colour_offset=_colour_offset(settings, colour, hashes(key, sample_ids * _HASHES_PER_SAMPLE + 1)),
    )


def centre(settings: AugmentSettings, size_px: int, images: int) -> Draws:
    """Return the draws of evaluation: the centre window, no mirror, no lighting."""
    corner = (size_px - settings.crop_px) // 2
    return Draws(
        crop_yx=np.full((images, 2), corner, np.int32),
        mirror=np.zeros(images, np.bool_),
        colour_offset=np.zeros((images, 3), np.float32),
    )


def augmented(
    pixels: npt.NDArray[np.uint8], draws: Draws, row: int, settings: AugmentSettings
) -> npt.NDArray[np.float32]:
    """Apply one row of draws to a decoded image, for people to look at; the stream's decoder does this on its own.

    `pixels`: uint8 (size, size, 3). Returns float32 (crop, crop, 3) on the 0-255 scale, before the mean is subtracted;
    lighting takes some values beyond 0 and 255.
    """
    y, x = draws.crop_yx[row].tolist()
    window = pixels[y : y + settings.crop_px, x : x + settings.crop_px]
    mirrored: npt.NDArray[np.uint8] = window[:, ::-1] if draws.mirror[row] else window
    shifted: npt.NDArray[np.float32] = mirrored.astype(np.float32) + draws.colour_offset[row]
    return shifted


@functools.cache
def normal_quantiles() -> npt.NDArray[np.float64]:
    """Return the upper half of the normal distribution as 32,768 equally likely values: float64, rising from 0.

    Midpoints of equal slices of probability, so draws reach 4.3 standard deviations and have variance 0.99993.
    """
    with (files("alexnet.pipeline") / "normals.npy").open("rb") as file:
        table: npt.NDArray[np.float32] = np.load(file, allow_pickle=False)
    return table.astype(np.float64)


def _below(hashed: npt.NDArray[np.uint64], first_bit: int, n: int) -> npt.NDArray[np.int32]:
    """Map 24 bits of each hash onto 0..n-1 by multiplication; the bias is below n / 2^24."""
    bits = (hashed >> np.uint64(first_bit)) & np.uint64(0xFFFFFF)
    return ((bits * np.uint64(n)) >> np.uint64(24)).astype(np.int32)


def _normal(hashed: npt.NDArray[np.uint64], first_bit: int) -> npt.NDArray[np.float64]:
    """Turn 16 bits of each hash into a draw from N(0, 1): 15 bits choose the magnitude, one the sign."""
    bits = (hashed >> np.uint64(first_bit)) & np.uint64(0xFFFF)
    magnitude = normal_quantiles()[(bits & np.uint64(0x7FFF)).astype(np.int64)]
    return np.where(bits >> np.uint64(15), -magnitude, magnitude)


def _colour_offset(
    settings: AugmentSettings, colour: ColourStatistics, hashed: npt.NDArray[np.uint64]
) -> npt.NDArray[np.float32]:
    if settings.lighting == "off":
        return np.zeros((len(hashed), 3), np.float32)
    coefficients = [_normal(hashed, 16 * k) * (settings.lighting_std * colour.standard_deviations[k]) for k in range(3)]
    axes = colour.eigenvectors
    channels = [
        coefficients[0] * axes[0][c] + coefficients[1] * axes[1][c] + coefficients[2] * axes[2][c] for c in range(3)
    ]
    return np.stack(channels, axis=1).astype(np.float32)
