"""The colour noise of section 4.1: one shift an image, along the principal axes of the training set's colours.

All pixels of an image get the same offset, the sum of three axes, each times its *standard deviation* times a draw
from N(0, 0.1). The paper's text says eigenvalue; the 2012 code multiplies by the square root, and on 0-255 pixels the
eigenvalue would bleach everything. Four settings say whose axes and deviations:

- `measured`: those of the data set at hand, which `alexnet-prep` took from every training pixel.
- `krizhevsky`: the constants that were published with the 2012 code's successor.
- `torch`: what scripts do that descend from Torch's. They carry *variances* on a 0-1 scale and multiply with them as
  if they were deviations, so on 0-255 the deviations are 55.5, 4.8 and 1.1: 2.2, 7.7 and 17 times weaker than
  Krizhevsky's. It is meant for comparing with such a run, and therefore repeats the slip. Their square roots, 118.9,
  35.0 and 17.1, are Krizhevsky's figures within 14%: for those, say `krizhevsky`.
- `off`: no noise.

Normal deviates come from a committed table indexed by 16 hash bits, and sums have a fixed order: NumPy's
transcendental functions and reductions change their last bits from CPU to CPU. This module knows nothing of epochs
and samples; it is handed hashes.
"""

import functools
import math
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import numpy as np
import numpy.typing as npt

from alexnet.shards.colour import ColourStatistics

Lighting = Literal["measured", "krizhevsky", "torch", "off"]


@dataclass(frozen=True, kw_only=True)
class LightingAxes:
    """Hold what coefficients are multiplied with.

    `standard_deviations`: (3,), on the 0-255 scale. `directions`: (3, 3), RGB; row k, of unit length, is deviation k's.
    """

    standard_deviations: tuple[float, ...]
    directions: tuple[tuple[float, ...], ...]


KRIZHEVSKY = LightingAxes(
    standard_deviations=(121.780061, 37.0938885, 19.720833),
    directions=(
        (-0.5635105, -0.5761844, -0.592003),
        (-0.7125795, -0.0235417, 0.7011963),
        (0.4179551, -0.8169806, 0.3973112),
    ),
)
TORCH_VARIANCES = (0.2175, 0.0188, 0.0045)
"""Variances of RGB pixels on a 0-1 scale."""
TORCH = LightingAxes(
    standard_deviations=tuple(255 * variance for variance in TORCH_VARIANCES),
    directions=((-0.5675, -0.5808, -0.5836), (0.7192, -0.0045, -0.6948), (0.4009, -0.8140, 0.4203)),
)


def lighting_axes(lighting: Lighting, colour: ColourStatistics) -> LightingAxes | None:
    """Return the axes that a setting names, None for `off`."""
    if lighting == "off":
        return None
    if lighting == "measured":
        return LightingAxes(standard_deviations=colour.standard_deviations, directions=colour.eigenvectors)
    return KRIZHEVSKY if lighting == "krizhevsky" else TORCH


def colour_offsets(
    axes: LightingAxes | None, coefficient_std: float, hashed: npt.NDArray[np.uint64]
) -> npt.NDArray[np.float32]:
    """Turn one hash an image into what is added to each of its pixels: float32 (n, 3), RGB on the 0-255 scale."""
    if axes is None:
        return np.zeros((len(hashed), 3), np.float32)
    coefficients = [_normal(hashed, 16 * k) * (coefficient_std * axes.standard_deviations[k]) for k in range(3)]
    rows = axes.directions
    channels = [
        coefficients[0] * rows[0][c] + coefficients[1] * rows[1][c] + coefficients[2] * rows[2][c] for c in range(3)
    ]
    return np.stack(channels, axis=1).astype(np.float32)


def channel_noise(axes: LightingAxes | None, coefficient_std: float) -> tuple[float, float, float]:
    """Return the standard deviation of the offset of R, G and B, 0-255."""
    if axes is None:
        return 0.0, 0.0, 0.0
    red, green, blue = (
        coefficient_std
        * math.hypot(*(s * row[c] for s, row in zip(axes.standard_deviations, axes.directions, strict=True)))
        for c in range(3)
    )
    return red, green, blue


@functools.cache
def normal_quantiles() -> npt.NDArray[np.float64]:
    """Return the upper half of the normal distribution as 32,768 equally likely values: float64, rising from 0.

    Midpoints of equal slices of probability, so draws reach 4.3 standard deviations and have variance 0.99993.
    """
    with (files("alexnet.pipeline") / "normals.npy").open("rb") as file:
        table: npt.NDArray[np.float32] = np.load(file, allow_pickle=False)
    return table.astype(np.float64)


def _normal(hashed: npt.NDArray[np.uint64], first_bit: int) -> npt.NDArray[np.float64]:
    """Turn 16 bits of each hash into a draw from N(0, 1): 15 bits choose the magnitude, one the sign."""
    bits = (hashed >> np.uint64(first_bit)) & np.uint64(0xFFFF)
    magnitude = normal_quantiles()[(bits & np.uint64(0x7FFF)).astype(np.int64)]
    return np.where(bits >> np.uint64(15), -magnitude, magnitude)
