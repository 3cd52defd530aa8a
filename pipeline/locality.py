"""How far apart on storage the neighbours of an epoch's order may lie.

`global` is one permutation of all samples: any image may follow any other, which wants memory or an NVMe disk.
`blocks` permutes the shards, takes them in windows of K and permutes the samples inside each window. So each shard is
needed in one window only: a reader that holds K shards reads every shard once, front to back, from a network or a
spinning disk. With K at least the number of shards, there is one window and the order *is* the global one: both sort
the same hashes.

Pure functions of (seed, epoch) and the sizes of the shards; ranks and storage have no part in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.kinds import check_kinds
from alexnet.shards.errors import InputError
from alexnet.shards.hashing import Purpose, hashes, key_of, permutation

Order = Literal["global", "blocks"]


@dataclass(frozen=True, kw_only=True)
class LocalitySettings:
    """Settle the kind of order; `window_shards`: K, how many shards `blocks` mixes at a time.

    16 shards of 1,000 images of 22 kB are 360 MB, to be held twice by a reader that reads ahead.
    """

    order: Order = "global"
    window_shards: int = 16

    def __post_init__(self) -> None:
        check_kinds(self)
        if self.window_shards < 1:
            raise InputError(f"window_shards={self.window_shards}: must be at least 1; 16 is the default")

    @property
    def name(self) -> str:
        """Say which order this is: settings with one name give one order."""
        return self.order if self.order == "global" else f"blocks of {self.window_shards} shards"


@dataclass(frozen=True, kw_only=True)
class Window:
    """Hold a stretch of an epoch's order and all that is read for it.

    `positions`: in the epoch's order. `shards`: int64 (k,), needed there and nowhere else in the epoch.
    """

    positions: range
    shards: npt.NDArray[np.int64]


def windows(settings: LocalitySettings, shard_images: Sequence[int], seed: int, epoch: int) -> tuple[Window, ...]:
    """Cut an epoch into the windows that its order mixes; `global` is one window of everything.

    `shard_images`: how many samples each shard holds, in the order of the ids.
    """
    sizes = np.asarray(shard_images, np.int64)
    if settings.order == "global":
        return (Window(positions=range(int(sizes.sum())), shards=np.arange(len(sizes))),)
    order = permutation(len(sizes), key_of(Purpose.SHARD_ORDER, seed, epoch))
    ends = np.concatenate([[0], np.cumsum(sizes[order])]).tolist()
    k = settings.window_shards
    firsts = range(0, len(order), k)
    return tuple(
        Window(positions=range(ends[i], ends[min(i + k, len(order))]), shards=order[i : i + k]) for i in firsts
    )


def windowed_order(
    settings: LocalitySettings, shard_images: Sequence[int], seed: int, epoch: int
) -> npt.NDArray[np.int64]:
    """Return the permutation of all sample ids that (seed, epoch) and the locality name: int64 (images,)."""
    ends = np.cumsum(np.asarray(shard_images, np.int64))
    starts = ends - shard_images
    hashed = hashes(key_of(Purpose.EPOCH_ORDER, seed, epoch), np.arange(sum(shard_images), dtype=np.uint64))
    order = np.empty(len(hashed), np.int64)
    for window in windows(settings, shard_images, seed, epoch):
        stretches = [np.arange(starts[s], ends[s]) for s in window.shards]
        ids = np.concatenate([*stretches, np.empty(0, np.int64)])
        # No two hashes are equal, so every correct sort gives this order.
        order[window.positions.start : window.positions.stop] = ids[np.argsort(hashed[ids])]
    return order


def shards_in_order_of_use(sample_ids: npt.NDArray[np.int64], shard_images: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return each shard that holds one of these samples, once, in the order in which they first need it: int64 (k,)."""
    shards = np.searchsorted(np.cumsum(shard_images), sample_ids, side="right")
    used, first_use = np.unique(shards, return_index=True)
    return used[np.argsort(first_use)].astype(np.int64)
