"""Recompute the colour statistics from the stored JPEGs and compare them with the manifest's.

They cannot be equal: the manifest's are of the pixels before encoding. A stored JPEG has rounded frequencies, and half
the colour resolution (4:2:0): fine detail goes, fine colour most of all, and hardly anything comes. So each figure has
a range. The mean moves by little. A spread grows by little, and shrinks by at most 75% of what in its axis is colour
(noise of single pixels loses 65%; photographs of 256 px lose 0.4%, of 40 px 2%) and by more where steps are coarse.
The ranges were set on photographs of 256 and 40 px and on noise, at qualities from 100 to 1; no figure used more than
88% of its range (docs/measurements.md). Swapped channels, another scale or another data set lie far outside.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alexnet.shards.colour import ColourStatistics, ColourSums, statistics_of

_COLOUR_LOSS = 0.75  # of the spread of colour, by halving its resolution
_COARSE_STEP = 64  # a quality of about 13: from here on, anything but a block's mean may be rounded away

Row = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ColourCheck:
    """Hold the colours of the stored JPEGs beside what the manifest says, in levels of 0-255.

    `mean`, `deviations`: (3,), of the stored images; the latter along the manifest's principal axes. `..._said`: what
    the manifest says. `..._low`, `..._high`: between what encoding lets the stored ones lie. `mean_image`: root mean
    square of the difference to the stored mean image, None if there is no sound one; `mean_image_high`: its limit.
    """

    mean: Row
    mean_said: Row
    mean_low: Row
    mean_high: Row
    deviations: Row
    deviations_said: Row
    deviations_low: Row
    deviations_high: Row
    mean_image: float | None
    mean_image_high: float

    @property
    def problems(self) -> tuple[str, ...]:
        """Say which of the manifest's figures encoding does not explain."""
        found = []
        for name, stored, said, low, high in (
            ("mean", self.mean, self.mean_said, self.mean_low, self.mean_high),
            ("standard_deviations", self.deviations, self.deviations_said, self.deviations_low, self.deviations_high),
        ):
            if not all(a <= v <= b for a, v, b in zip(low, stored, high, strict=True)):
                texts = [", ".join(f"{v:.2f}" for v in row) for row in (said, stored, low, high)]
                text = "says colour.{} {} where the stored images have {}; encoding explains {} to {}"
                found.append(text.format(name, *texts))
        return tuple(found)

    @property
    def mean_image_problem(self) -> str | None:
        """Say that the mean image is not of these images."""
        if self.mean_image is None or self.mean_image <= self.mean_image_high:
            return None
        return (
            f"differs from the stored images' mean by {self.mean_image:.2f} (root mean square); encoding explains "
            f"{self.mean_image_high:.2f}"
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
    spread = np.array(said.standard_deviations)
    colour = 1.0 - axes.sum(axis=1) ** 2 / n  # share of a unit axis: nothing of (1, 1, 1) / sqrt(3), all across it
    loss = np.minimum(1.0, _COLOUR_LOSS * colour + dc_step / _COARSE_STEP)
    level, margin = 0.5 + dc_step / 64, 2.0 + dc_step / 8
    # What an image lost, and rounding, is its own error; the mean of many images has a share of 1 / sqrt(images) of it.
    lost = math.sqrt(max(float((spread**2 - deviations**2).mean()), 0.0))
    return ColourCheck(
        mean=stored.mean[:n],
        mean_said=said.mean,
        mean_low=tuple(v - level for v in said.mean),
        mean_high=tuple(v + level for v in said.mean),
        deviations=tuple(deviations.tolist()),
        deviations_said=said.standard_deviations,
        deviations_low=tuple((spread * (1.0 - loss) - margin).tolist()),
        deviations_high=tuple((spread + margin).tolist()),
        mean_image=_distance(sums, mean_image),
        mean_image_high=0.5 + (12.0 + dc_step / 2 + 1.5 * lost) / math.sqrt(max(sums.images, 1)),
    )


def _distance(sums: ColourSums, mean_image: npt.NDArray[np.float32] | None) -> float | None:
    if mean_image is None:
        return None
    difference = mean_image.astype(np.float64) - sums.mean_image()[..., : mean_image.shape[2]]
    return math.sqrt(float(np.square(difference).mean()))
