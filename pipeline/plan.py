"""The order of an epoch and the plan of a batch: which samples, and what happens to each. No image is read to make one.

`Cursor` says which batch is next; all else are pure functions of the settings and (epoch, step). Two kinds of shuffle
say how far apart on storage neighbours in the order may lie:

- `global` is one permutation of all samples: any image may follow any other, which wants memory or an NVMe disk.
- `blocks` permutes the shards, takes them in windows of K and permutes the samples inside each window. So each shard is
  needed in one window only: a reader that holds K shards reads every shard once, front to back, from a network or a
  spinning disk. With K at least the number of shards, there is one window and the order *is* the global one: both sort
  the same hashes.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.augment import AugmentSettings, BatchPlan, centre, draw
from alexnet.pipeline.normalize import Normalization, normalization_of
from alexnet.pipeline.settings import flag, whole
from alexnet.shards.colour import ColourStatistics
from alexnet.shards.errors import InputError
from alexnet.shards.hashing import Purpose, hashes, key_of, permutation
from alexnet.shards.order import (
    batch_range,
    epoch_order,
    pairs_met_again,
    rank_part,
    shuffle_score,
    steps_per_epoch,
)

_KEPT_ORDERS = 2  # 10 MB each for ImageNet; reading ahead looks into the next epoch while this one goes on


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Settle what a stream yields, apart from how fast.

    `batch_images`: the global batch, over all ranks. `ranks`: the world size. `augment`, `shuffle`: off for evaluation;
    without a shuffle, which defaults to `augment`, the order is that of the ids. `drop_last`: leave out the partial
    batch at an epoch's end; by default with a shuffle. `window_shards`: K, how many shards the order `blocks` mixes at
    a time, or None for `global`: 16 shards of 1,000 images of 22 kB are 360 MB, to be held twice by a reader that reads
    ahead.
    """

    batch_images: int
    seed: int = 0
    rank: int = 0
    ranks: int = 1
    augment: bool = True
    shuffle: bool | None = None
    drop_last: bool | None = None
    window_shards: int | None = None

    def __post_init__(self) -> None:
        """Take numbers and flags of any library as Python's own."""
        augment = flag("augment", self.augment)
        shuffle = augment if self.shuffle is None else flag("shuffle", self.shuffle)
        drop_last = shuffle if self.drop_last is None else flag("drop_last", self.drop_last)
        batch_images, seed = whole("batch_images", self.batch_images, 1), whole("seed", self.seed)
        vars(self).update(augment=augment, shuffle=shuffle, drop_last=drop_last, batch_images=batch_images, seed=seed)
        if not 0 <= self.rank < self.ranks:
            raise InputError(f"rank={self.rank}: must be between 0 and world_size-1={self.ranks - 1}")

    @property
    def order_name(self) -> str:
        """Say which order this is: settings with one name give one order."""
        if not self.shuffle:
            return "ids"
        return f"blocks of {self.window_shards} shards" if self.window_shards else "global"


@dataclass(frozen=True, kw_only=True)
class Window:
    """Hold a stretch of an epoch's order and all that is read for it.

    `positions`: in the epoch's order. `shards`: int64 (k,), needed there and nowhere else in the epoch.
    """

    positions: range
    shards: npt.NDArray[np.int64]


def windows(shard_images: Sequence[int], window_shards: int, seed: int, epoch: int) -> tuple[Window, ...]:
    """Cut an epoch of the order `blocks` into its windows; `shard_images`: samples of each shard, by id."""
    sizes = np.asarray(shard_images, np.int64)
    order = permutation(len(sizes), key_of(Purpose.SHARD_ORDER, seed, epoch))
    ends = np.concatenate([[0], np.cumsum(sizes[order])]).tolist()
    firsts = range(0, len(order), window_shards)
    lasts = [min(first + window_shards, len(order)) for first in firsts]
    return tuple(
        Window(positions=range(ends[first], ends[last]), shards=order[first:last])
        for first, last in zip(firsts, lasts, strict=True)
    )


def windowed_order(shard_images: Sequence[int], window_shards: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the permutation of all sample ids that `blocks` gives: int64 (images,)."""
    ends = np.cumsum(np.asarray(shard_images, np.int64))
    starts = ends - shard_images
    hashed = hashes(key_of(Purpose.EPOCH_ORDER, seed, epoch), np.arange(sum(shard_images), dtype=np.uint64))
    order = np.empty(len(hashed), np.int64)
    for window in windows(shard_images, window_shards, seed, epoch):
        of_shards = [np.arange(starts[s], ends[s]) for s in window.shards]
        ids = np.concatenate([*of_shards, np.empty(0, np.int64)])
        # No two hashes are equal, so every correct sort gives this order.
        order[window.positions.start : window.positions.stop] = ids[np.argsort(hashed[ids])]
    return order


class Planner:
    """Answer what batch `step` of `epoch` is made of, for any step, in any order, from any thread.

    `shard_images`: how many samples each shard of the split holds, in the order of the ids. `mean_image`: of the data
    set, float32 (size, size, 3); needed where the settings subtract it.
    """

    def __init__(
        self,
        settings: PlanSettings,
        augment: AugmentSettings,
        colour: ColourStatistics,
        size_px: int,
        shard_images: Sequence[int],
        mean_image: npt.NDArray[np.float32] | None = None,
    ) -> None:
        self.images = sum(shard_images)
        if settings.drop_last and settings.batch_images > self.images:
            raise InputError(
                f"batch_images={settings.batch_images}: the data set has only {self.images} images, so no full batch; "
                f"give at most {self.images}"
            )
        augment.check(size_px)
        self.settings, self.augment = settings, augment
        self._colour, self._size_px, self._mean_image = colour, size_px, mean_image
        self._shard_images = tuple(shard_images)
        # Not a cached method: it would keep a stream that nobody uses any more alive until the next collection.
        self._orders = functools.lru_cache(_KEPT_ORDERS)(functools.partial(_order, settings, self._shard_images))

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        made_from = self._colour, self._size_px, self._shard_images, self._mean_image
        return type(self), (self.settings, self.augment, *made_from)

    @property
    def steps(self) -> int:
        """Count an epoch's steps; all ranks take the same number."""
        return steps_per_epoch(self.images, self.settings.batch_images, bool(self.settings.drop_last))

    def plan(self, epoch: int, step: int) -> BatchPlan:
        """Return this rank's part of a global batch; it may be empty."""
        return self._plan(epoch, self._part(epoch, step))

    def sample_ids(self, epoch: int, step: int) -> npt.NDArray[np.int64]:
        """Return the samples of this rank's part of a global batch, without drawing what becomes of them."""
        part = self._part(epoch, step)
        return self.order(epoch)[part.start : part.stop]

    def global_plan(self, epoch: int, step: int) -> BatchPlan:
        """Return the whole global batch: the parts of all ranks, one after the other."""
        return self._plan(epoch, self._batch(epoch, step))

    def normalization(self, epoch: int) -> Normalization:
        """Return mean and scale of an epoch: the division that makes up for lighting ends with it."""
        training = self.settings.augment
        return normalization_of(self.augment, self._colour, self._mean_image, training=training, epoch=epoch)

    def identity(self) -> dict[str, Any]:
        """Return what a state says of a plan: those of one identity are equal. Ranks are not part of it."""
        s, digest = self.settings, self.augment.digest()
        return {
            "seed": s.seed,
            "batch_images": s.batch_images,
            "order": s.order_name,
            "augment": digest if s.augment else f"off {digest}",
            "drop_last": s.drop_last,
        }

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the ids in the order of an epoch: int64 (images,), read-only."""
        return self._orders(epoch)

    def windows(self, epoch: int) -> tuple[Window, ...]:
        """Cut an epoch into stretches whose shards are needed nowhere else in it; without a shuffle, shard by shard."""
        sizes, s = self._shard_images, self.settings
        if s.shuffle and s.window_shards:
            return windows(sizes, s.window_shards, s.seed, epoch)
        if s.shuffle:
            return (Window(positions=range(self.images), shards=np.arange(len(sizes))),)
        ends = np.cumsum(sizes).tolist()
        return tuple(
            Window(positions=range(end - size, end), shards=np.array([shard]))
            for shard, (size, end) in enumerate(zip(sizes, ends, strict=True))
        )

    def describe_order(self, labels: npt.NDArray[np.integer], epoch: int) -> str:
        """Say in one line how well an epoch's order mixes the classes; `labels`: (images,), by id."""
        window, s = min(256, len(labels)), self.settings
        classes, ideal = shuffle_score(labels[self.order(epoch)], window)
        name = s.order_name if s.shuffle else "of the ids"
        line = f"order {name}: {classes:.1f} classes in {window} consecutive images, {ideal:.1f} if perfectly shuffled"
        if s.shuffle and s.window_shards:
            met, chance = pairs_met_again(self.order(epoch), self.order(epoch + 1), s.batch_images)
            line += f"; {met:,.1f} pairs of a batch meet again in the next epoch, {chance:,.1f} by chance"
        return line

    def _batch(self, epoch: int, step: int) -> range:
        """Return the positions that a global batch covers."""
        if epoch < 0:
            raise InputError(f"epoch={epoch}: epochs count from 0")
        if not 0 <= step < self.steps:
            raise InputError(f"step={step}: an epoch has steps 0 to {self.steps - 1}")
        return batch_range(self.images, self.settings.batch_images, step)

    def _part(self, epoch: int, step: int) -> range:
        """Return the positions that this rank's part of a global batch covers."""
        batch = self._batch(epoch, step)
        part = rank_part(len(batch), self.settings.rank, self.settings.ranks)
        return batch[part.start : part.stop]

    def _plan(self, epoch: int, part: range) -> BatchPlan:
        positions = np.arange(part.start, part.stop)
        # A copy: a plan that is kept must not keep the order of its epoch.
        ids = self.order(epoch)[part.start : part.stop].copy()
        if self.settings.augment:
            return draw(self.augment, self._colour, self._size_px, self.settings.seed, epoch, ids, positions)
        return centre(self.augment, self._size_px, ids, positions)


def _order(settings: PlanSettings, shard_images: tuple[int, ...], epoch: int) -> npt.NDArray[np.int64]:
    """Compute an epoch's order: 0.12 s for ImageNet."""
    images = sum(shard_images)
    if not settings.shuffle:
        order = np.arange(images)
    elif settings.window_shards:
        order = windowed_order(shard_images, settings.window_shards, settings.seed, epoch)
    else:
        order = epoch_order(images, settings.seed, epoch)
    order.flags.writeable = False
    return order


class Cursor:
    """The next batch: `at`, its number over all epochs, each of so many `steps`. Who takes a batch adds 1."""

    def __init__(self, steps: int) -> None:
        self._none, self.steps = steps == 0, max(1, steps)
        self.at, self._end = 0, self.steps  # `_end`: the number behind the last batch of the epoch at hand
        self._entered = False  # whether an iteration has gone on since the last seek
        self._iterations = 0

    @property
    def epoch_number(self) -> int:
        """Return the epoch at hand: when its last batch is out, it is still that one until the iteration has ended."""
        return self._end // self.steps - 1

    def epoch(self) -> Iterator[None]:
        """Go through an epoch, from where `seek` left it or from the start of the next.

        There is one place to stand at: an iteration that is taken up again when another has begun raises RuntimeError.
        """
        if self._entered and self.at % self.steps:
            self.at = self._end
        self._end = (self.at // self.steps + 1) * self.steps
        self._iterations += 1
        mine = self._iterations
        while self.at < self._end and not self._none:
            self._entered = True
            yield
            if mine != self._iterations:
                raise RuntimeError("this iteration of the stream ended when another one began; go on with that one")
        self.at, self._end = self._end, self._end + self.steps

    def seek(self, epoch: int, step: int) -> None:
        """Move to a step of an epoch: an iteration that is going on, or else the next, continues there."""
        at = self.number_of(epoch, step)
        self.at, self._end, self._entered = at, self.number_of(epoch, 0) + self.steps, False

    def set_epoch(self, epoch: int) -> None:
        """Have the next iteration be an epoch, from its start or, where `seek` left it inside this one, from there."""
        if self._entered or self.at // self.steps != whole("epoch", epoch):
            self.seek(epoch, 0)

    def number_of(self, epoch: Any, step: Any) -> int:
        """Return a batch's number. Behind an epoch's last batch comes the next one's first."""
        epoch_number, step_number, steps = whole("epoch", epoch), whole("step", step), 0 if self._none else self.steps
        if epoch_number < 0 or not 0 <= step_number <= steps:
            raise InputError(f"epoch={epoch_number}, step={step_number}: epochs count from 0, steps from 0 to {steps}")
        return epoch_number * self.steps + step_number
