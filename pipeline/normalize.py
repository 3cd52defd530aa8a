"""Normalizing a cut and mirrored uint8 pixel: `(pixel - mean + colour_offset) * scale`.

Whoever executes it (the host decoder, DALI, `normalize_torch.py`, a trainer that gathered the crops of several ranks)
takes the constants from here, so that all of them mean the same. A mean image is cut once, at its centre, and
subtracted from every crop as it is, neither moved nor mirrored along: so did the 2012 code.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.augment import AugmentSettings, centre_corner
from alexnet.shards.colour import ColourStatistics
from alexnet.shards.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """Hold the constants, RGB.

    `mean`: float32 (3,), or (crop, crop, 3) for a mean image; 0-255. `scale`: float32 (3,), what is multiplied with.
    """

    mean: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]

    @property
    def mean_image(self) -> npt.NDArray[np.float32] | None:
        """Return the mean of each pixel: float32 (crop, crop, 3); None where the channels' means are subtracted."""
        return self.mean if self.mean.ndim == 3 else None

    def means(self, colour_offset: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return what is subtracted from each image, a mean image apart: float32 (n, 3)."""
        means: npt.NDArray[np.float32] = (self.mean if self.mean.ndim == 1 else np.zeros(3, np.float32)) - colour_offset
        return means


def normalization_of(
    settings: AugmentSettings,
    colour: ColourStatistics,
    mean_image: npt.NDArray[np.float32] | None = None,
    *,
    training: bool,
    epoch: int = 0,
) -> Normalization:
    """Return the constants that settings and a data set give.

    `mean_image`: (size, size, 3), 0-255, as stored beside the shards; needed for `mean="image"` only. `training`:
    False leaves out `lighting_division`, which evaluation never had; so does an `epoch` without lighting.
    Raises InputError if the data set cannot be scaled so.
    """
    return Normalization(
        mean=np.array(colour.mean, np.float32) if settings.mean == "channel" else _centre_of(mean_image, settings),
        scale=_scale(settings, colour, divided=settings.lighting_division and training and settings.lit(epoch)),
    )


def normalized(
    pixels: npt.NDArray[np.uint8], colour_offset: npt.NDArray[np.float32], normalization: Normalization
) -> npt.NDArray[np.float32]:
    """Normalize crops in NumPy: the reference for every decoder.

    `pixels`: uint8 (n, crop, crop, 3), cut and mirrored. `colour_offset`: float32 (n, 3). Returns float32 of the shape
    of `pixels`.
    """
    mean = normalization.mean - colour_offset[:, None, None, :]
    result: npt.NDArray[np.float32] = (pixels.astype(np.float32) - mean) * normalization.scale
    return result


def _scale(settings: AugmentSettings, colour: ColourStatistics, *, divided: bool) -> npt.NDArray[np.float32]:
    """Combine the divisors in float64 and round once."""
    divisors = [1.0, 1.0, 1.0]
    if settings.scale == "unit-variance":
        divisors = list(colour.channel_standard_deviations)
        if not all(divisors):
            raise InputError("scale=unit-variance: a channel of this data set has one value only; use scale=pixel")
    if divided:
        divisors = [divisor * (1.0 + settings.lighting_std) for divisor in divisors]
    return np.array([1.0 / divisor for divisor in divisors], np.float32)


def _centre_of(mean_image: npt.NDArray[np.float32] | None, settings: AugmentSettings) -> npt.NDArray[np.float32]:
    if mean_image is None:
        raise ValueError("mean='image' needs the data set's mean image")
    if mean_image.ndim != 3 or mean_image.shape[0] != mean_image.shape[1] or mean_image.shape[2] != 3:
        raise InputError(
            f"mean=image: the mean image has shape {mean_image.shape}, not (size, size, 3); use mean=channel"
        )
    if len(mean_image) < settings.crop_px:
        raise InputError(f"mean=image: the mean image has {len(mean_image)} px, less than crop_px={settings.crop_px}")
    first = centre_corner(len(mean_image), settings.crop_px)
    centred = slice(first, first + settings.crop_px)
    return np.ascontiguousarray(mean_image[centred, centred], np.float32)
