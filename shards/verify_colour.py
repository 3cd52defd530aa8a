"""Recompute the colour statistics from the stored JPEGs and compare them with the manifest's.

They cannot be equal: the manifest's are of the pixels before encoding. A stored JPEG has rounded frequencies, and half
the colour resolution (4:2:0), which takes fine colour detail out of every axis that is not grey. So the comparison has
a tolerance, which grows with the encoder's coarsest step and, for the share of an axis that is colour, with the spread
along it. It was measured on photographs of 256 and 40 px at qualities from 100 to 1 and on coloured noise
(docs/measurements.md): no difference was above 51% of it. Swapped channels, another scale, another split of unlike
images or another data set differ by several times as much.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alexnet.shards.colour import ColourStatistics, ColourSums, statistics_of

_COLOUR_LOSS = 0.1  # of the spread of colour: photographs of 256 px lose 0.4%, of 40 px 2%, blobs of 6 px 6%


@dataclass(frozen=True, kw_only=True)
class ColourCheck:
    """Hold the colours of the stored JPEGs beside what the manifest says, in levels of 0-255.

    `mean`: (3,). `deviations`: (3,), along the manifest's principal axes, each with its tolerance. `mean_image`: root
    mean square of the difference to the stored mean image, None if there is no sound one.
    """

    mean: tuple[float, ...]
    mean_said: tuple[float, ...]
    mean_tolerance: float
    deviations: tuple[float, ...]
    deviations_said: tuple[float, ...]
    deviations_tolerance: tuple[float, ...]
    mean_image: float | None
    mean_image_tolerance: float

    @property
    def problems(self) -> tuple[str, ...]:
        """Say which figures differ by more than encoding explains."""
        found = []
        for name, stored, said, tolerance in (
            ("mean", self.mean, self.mean_said, (self.mean_tolerance,) * len(self.mean)),
            ("standard_deviations", self.deviations, self.deviations_said, self.deviations_tolerance),
        ):
            if any(abs(a - b) > most for a, b, most in zip(stored, said, tolerance, strict=True)):
                texts = [", ".join(f"{v:.2f}" for v in row) for row in (said, stored, tolerance)]
                found.append(
                    "says colour.{} {} where the stored images have {}; encoding explains {}".format(name, *texts)
                )
        return tuple(found)

    @property
    def mean_image_problem(self) -> str | None:
        """Say that the mean image is not of these images."""
        if self.mean_image is None or self.mean_image <= self.mean_image_tolerance:
            return None
        return (
            f"differs from the stored images' mean by {self.mean_image:.2f} (root mean square); encoding explains "
            f"{self.mean_image_tolerance:.2f}"
        )


def compare_colour(
    sums: ColourSums, dc_step: int, said: ColourStatistics, mean_image: npt.NDArray[np.float32] | None
) -> ColourCheck:
    """Compare the sums over all stored training images with the manifest's statistics and the mean image.

    `dc_step`: the coarsest step that an image's DC terms are rounded to, from its quantisation tables.
    """
    stored = statistics_of(sums)
    n = len(said.mean)
    axes, covariance = np.array(said.eigenvectors), np.array(stored.covariance)[:n, :n]
    deviations = np.sqrt(np.maximum(np.einsum("ki,ij,kj->k", axes, covariance, axes), 0.0))
    # How much of a unit axis is colour: nothing of (1, 1, 1) / sqrt(3), all of what is perpendicular to it.
    shares = [
        (1.0 - sum(axis) ** 2 / n, s) for axis, s in zip(said.eigenvectors, said.standard_deviations, strict=True)
    ]
    rms = None
    if mean_image is not None:
        difference = mean_image.astype(np.float64) - sums.mean_image()[..., : mean_image.shape[2]]
        rms = math.sqrt(float(np.square(difference).mean()))
    return ColourCheck(
        mean=stored.mean[:n],
        mean_said=said.mean,
        mean_tolerance=0.5 + dc_step / 64,
        deviations=tuple(float(v) for v in deviations),
        deviations_said=said.standard_deviations,
        deviations_tolerance=tuple(2.0 + dc_step / 32 + _COLOUR_LOSS * share * s for share, s in shares),
        mean_image=rms,
        # An image's own error is up to 32 levels at quality 1; the mean of n of them differs by a share of 1 / sqrt(n).
        mean_image_tolerance=0.5 + (12.0 + dc_step / 4) / math.sqrt(max(sums.images, 1)),
    )
