"""The plan of a batch: which samples, and what happens to each. No image is read to make one."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.augment import AugmentSettings, Draws, centre, draw
from alexnet.pipeline.order import batch_range, epoch_order, rank_part, steps_per_epoch
from alexnet.shards.colour import ColourStatistics
from alexnet.shards.errors import InputError


@dataclass(frozen=True, kw_only=True)
class BatchPlan(Draws):
    """Hold one rank's part of a global batch: `sample_ids` int64 (n,), and the draws of each sample, row by row."""

    sample_ids: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Settle what a stream yields, apart from how fast.

    `batch_images`: the global batch, over all ranks. `shuffle`, `augment`: off for evaluation. `drop_last`: leave out
    the partial batch at an epoch's end.
    """

    batch_images: int
    seed: int = 0
    rank: int = 0
    ranks: int = 1
    shuffle: bool = True
    augment: bool = True
    drop_last: bool = True

    def __post_init__(self) -> None:
        if self.batch_images < 1:
            raise InputError(f"batch_images={self.batch_images}: must be at least 1")
        if not 0 <= self.rank < self.ranks:
            raise InputError(f"rank={self.rank}: must be between 0 and ranks-1={self.ranks - 1}")


class Planner:
    """Answer what batch `step` of `epoch` is made of, for any step, in any order."""

    def __init__(
        self, settings: PlanSettings, augment: AugmentSettings, colour: ColourStatistics, size_px: int, images: int
    ) -> None:
        if settings.drop_last and settings.batch_images > images:
            raise InputError(
                f"batch_images={settings.batch_images}: the data set has only {images} images, so no full batch; "
                f"give at most {images}"
            )
        augment.check(size_px)
        self.settings = settings
        self._augment, self._colour, self._size_px, self._images = augment, colour, size_px, images
        self._cached = (-1, np.arange(images))  # (epoch, its order); replaced as one, for threads

    @property
    def steps(self) -> int:
        """Count an epoch's steps; all ranks take the same number."""
        return steps_per_epoch(self._images, self.settings.batch_images, self.settings.drop_last)

    def plan(self, epoch: int, step: int) -> BatchPlan:
        """Return this rank's part of a global batch; it may be empty."""
        s = self.settings
        positions = rank_part(batch_range(self._images, s.batch_images, step), s.rank, s.ranks)
        ids = self._epoch(epoch)[positions.start : positions.stop]
        if s.augment:
            draws = draw(self._augment, self._colour, self._size_px, s.seed, epoch, ids)
        else:
            draws = centre(self._augment, self._size_px, len(ids))
        return BatchPlan(sample_ids=ids, crop_yx=draws.crop_yx, mirror=draws.mirror, colour_offset=draws.colour_offset)

    def _epoch(self, epoch: int) -> npt.NDArray[np.int64]:
        """Keep the order of one epoch: 10 MB and 0.12 s for ImageNet, so it is worth keeping and not worth two."""
        cached_epoch, order = self._cached
        if self.settings.shuffle and epoch != cached_epoch:
            order = epoch_order(self._images, self.settings.seed, epoch)
            self._cached = (epoch, order)
        return order
