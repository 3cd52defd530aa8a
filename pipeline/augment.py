"""What is done to each image: where it is cut, whether it is mirrored, how its colours are shifted.

Every augmentation parameter is an integer hash of (seed, epoch, sample id), so it does not matter who computes it,
when, or together with which other images. One setting departs from that, because the original did:
`crop_per="32-images"` cuts and mirrors 32 consecutive images of an epoch's order alike, so there the position counts
and not the image. Positions run over the global batches, hence ranks agree all the same.

What happens to a pixel afterwards (mean, scale) is settled here, too, and computed in `normalize.py`.
"""

import hashlib
from dataclasses import dataclass, fields
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.lighting import Lighting, channel_noise, colour_offsets, lighting_axes
from alexnet.pipeline.settings import check_kinds
from alexnet.shards.colour import ColourStatistics
from alexnet.shards.errors import InputError
from alexnet.shards.hashing import Purpose, hashes, key_of

CropPer = Literal["image", "32-images"]
Mean = Literal["channel", "image"]
Scale = Literal["pixel", "unit-variance"]

IMAGES_PER_SHARED_CROP = 32

_HASHES_PER_SAMPLE = 2
_FIRST_FIELDS = 9  # of `AugmentSettings`, which its first digest had: a new field goes behind all, or states differ


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """Settle the augmentation of a training stream, and the scale of its pixels.

    `crop_px`: side of the crop. `crop_per`: draw crop and mirror for each `image`, or, like the 2012 code, once for
    `32-images` that follow each other. `mirror`: flip half of the images. `lighting`: whose principal axes the colours
    are shifted along (see `lighting.py`). `lighting_std`: standard deviation of the three coefficients.
    `lighting_division`: divide training pixels, when mean and lighting are in, by 1 + lighting_std, as the 2012 code
    did to keep their scale near that of test images: 1.1 at its 0.1. `lighting_epochs`: shift colours and divide in so
    many epochs only, from the first on; 0: in all. The 2012 run stopped before its 67th.
    `mean`: subtract each `channel`'s mean, or the centre of the mean `image`, as in 2012. `scale`: `pixel` leaves
    0-255 minus the mean, as in 2012; `unit-variance` also divides by each channel's standard deviation.
    """

    crop_px: int = 224
    crop_per: CropPer = "image"
    mirror: bool = True
    lighting: Lighting = "measured"
    lighting_std: float = 0.1
    lighting_division: bool = False
    lighting_epochs: int = 0
    mean: Mean = "channel"
    scale: Scale = "pixel"

    def lit(self, epoch: int) -> bool:
        """Say whether colours are shifted in an epoch, counted from 0."""
        return self.lighting_epochs == 0 or epoch < self.lighting_epochs

    def digest(self) -> str:
        """Return 16 digits that differ where the settings do, for a stream's state.

        A field that came later than the first ones counts unless it has its default: earlier states still resume.
        """
        values = [(f.name, getattr(self, f.name), f.default) for f in fields(self)]
        counted = [
            (name, value) for n, (name, value, usual) in enumerate(values) if n < _FIRST_FIELDS or value != usual
        ]
        return hashlib.sha256(repr(sorted(counted)).encode()).hexdigest()[:16]

    def check(self, size_px: int) -> None:
        """Raise InputError unless the values are known, go together, and the crop fits the stored images."""
        check_kinds(self)
        if not 1 <= self.crop_px <= size_px:
            raise InputError(
                f"crop_px={self.crop_px}: must be between 1 and the shards' {size_px}; "
                f"rebuild them with `alexnet-prep shard --size {max(self.crop_px, 1)}` for larger crops"
            )
        if not 0 <= self.lighting_std <= 10:
            raise InputError(f"lighting_std={self.lighting_std}: must be between 0 and 10; the paper uses 0.1")
        if self.lighting_epochs < 0:
            raise InputError(f"lighting_epochs={self.lighting_epochs}: must be at least 1, or 0 for every epoch")
        if self.lighting_division and self.lighting == "off":
            raise InputError(
                "lighting_division=True: makes up for lighting, so lighting must not be off; "
                "set lighting_division=False as well"
            )


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Hold what some images of an epoch are and what becomes of them, one row an image: a batch or a rank's part.

    `sample_ids`: int64 (n,). `positions`: int64 (n,), places in the epoch's order. `crop_yx`: int32 (n, 2), the crop's
    top left corner. `mirror`: bool (n,). `colour_offset`: float32 (n, 3), RGB, what is added to every pixel on the
    0-255 scale.
    """

    sample_ids: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    crop_yx: npt.NDArray[np.int32]
    mirror: npt.NDArray[np.bool_]
    colour_offset: npt.NDArray[np.float32]

    def select(self, keep: npt.NDArray[np.bool_]) -> Self:
        """Return the rows that are marked: bool (n,)."""
        return type(self)(**{f.name: getattr(self, f.name)[keep] for f in fields(self)})


def draw(
    settings: AugmentSettings,
    colour: ColourStatistics,
    size_px: int,
    seed: int,
    epoch: int,
    sample_ids: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
) -> BatchPlan:
    """Draw the augmentation parameters of samples that stand at some positions of an epoch's order."""
    key = key_of(Purpose.AUGMENTATION, seed, epoch)
    if settings.crop_per == "image":
        geometry = hashes(key, sample_ids * _HASHES_PER_SAMPLE)
    else:
        geometry = hashes(key_of(Purpose.SHARED_CROP, seed, epoch), positions // IMAGES_PER_SHARED_CROP)
    places = size_px - settings.crop_px + 1
    light = hashes(key, sample_ids * _HASHES_PER_SAMPLE + 1)
    axes = lighting_axes(settings.lighting if settings.lit(epoch) else "off", colour)
    return BatchPlan(
        sample_ids=sample_ids,
        positions=positions,
        crop_yx=np.stack([_below(geometry, 0, places), _below(geometry, 24, places)], axis=1),
        mirror=(geometry >> np.uint64(63)).astype(np.bool_) & settings.mirror,
        colour_offset=colour_offsets(axes, settings.lighting_std, light),
    )


def centre(
    settings: AugmentSettings, size_px: int, sample_ids: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]
) -> BatchPlan:
    """Return what evaluation does to samples: the centre crop, no mirror, no lighting."""
    images = len(sample_ids)
    return BatchPlan(
        sample_ids=sample_ids,
        positions=positions,
        crop_yx=np.full((images, 2), centre_corner(size_px, settings.crop_px), np.int32),
        mirror=np.zeros(images, np.bool_),
        colour_offset=np.zeros((images, 3), np.float32),
    )


def centre_corner(size_px: int, crop_px: int) -> int:
    """Return where the centre crop begins, vertically and horizontally."""
    return (size_px - crop_px) // 2


def ten_views(size_px: int, crop_px: int) -> list[tuple[int, int, bool]]:
    """Return the ten views of the paper's evaluation (section 4.1) as (y, x, mirror).

    Top left, top right, bottom left, bottom right and the centre crop, then the mirror images of these in that order.
    The network's ten softmax outputs are averaged. An image is decoded once; its views are cut from the whole of it.
    """
    far, middle = size_px - crop_px, centre_corner(size_px, crop_px)
    corners = [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
    return [(y, x, mirror) for mirror in (False, True) for y, x in corners]


def augmented(
    pixels: npt.NDArray[np.uint8], plan: BatchPlan, row: int, settings: AugmentSettings
) -> npt.NDArray[np.float32]:
    """Do what one row of a plan says to a decoded image, for people to look at; the stream's decoder does it itself.

    `pixels`: uint8 (size, size, 3). Returns float32 (crop, crop, 3) on the 0-255 scale, before the mean is subtracted;
    lighting takes some values beyond 0 and 255.
    """
    y, x = plan.crop_yx[row].tolist()
    crop = pixels[y : y + settings.crop_px, x : x + settings.crop_px]
    mirrored: npt.NDArray[np.uint8] = crop[:, ::-1] if plan.mirror[row] else crop
    shifted: npt.NDArray[np.float32] = mirrored.astype(np.float32) + plan.colour_offset[row]
    return shifted


def describe_lighting(settings: AugmentSettings, colour: ColourStatistics) -> str:
    """Say in one line how strong the colour noise is, for the start of a run."""
    axes = lighting_axes(settings.lighting, colour)
    if axes is None:
        return "lighting off: no colour noise"
    channels = channel_noise(axes, settings.lighting_std)
    along = tuple(settings.lighting_std * deviation for deviation in axes.standard_deviations)
    line = (
        f"lighting {settings.lighting}: colour noise of standard deviation {_row(channels)} on R, G, B of 0-255 "
        f"({_row(along)} along the principal axes)"
    )
    if settings.lighting == "torch":
        line += "; Torch's variances used as deviations: 2.2, 7.7 and 17 times weaker along the axes than krizhevsky"
    if settings.lighting_division:
        line += f"; pixels then divided by {1 + settings.lighting_std:g}"
    if settings.lighting_epochs:
        line += f"; in the first {settings.lighting_epochs:,} epochs"
    return line


def _row(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _below(hashed: npt.NDArray[np.uint64], first_bit: int, n: int) -> npt.NDArray[np.int32]:
    """Map 24 bits of each hash onto 0..n-1 by multiplication; the bias is below n / 2^24."""
    bits = (hashed >> np.uint64(first_bit)) & np.uint64(0xFFFFFF)
    return ((bits * np.uint64(n)) >> np.uint64(24)).astype(np.int32)
