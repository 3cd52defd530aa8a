"""Arithmetic on an epoch's order: its permutation, a batch's slice of it, a rank's part, how well it mixes the classes.

Pure functions of integers. Threads and machines have no part in them, so each sample comes exactly once an epoch and
resuming is a cursor (epoch, step).
"""

import numpy as np
import numpy.typing as npt

from alexnet.shards.hashing import Purpose, key_of, permutation


def epoch_order(images: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the permutation of all sample ids that (seed, epoch) names: int64 (images,)."""
    return permutation(images, key_of(Purpose.EPOCH_ORDER, seed, epoch))


def steps_per_epoch(images: int, batch_images: int, drop_last: bool) -> int:
    """Count an epoch's global batches; the last may be partial, and is dropped if `drop_last`."""
    return images // batch_images if drop_last else -(-images // batch_images)


def batch_range(images: int, batch_images: int, step: int) -> range:
    """Return the positions in the epoch's order that global batch `step` covers."""
    first = step * batch_images
    return range(first, min(first + batch_images, images))


def rank_part(images: int, rank: int, world_size: int) -> range:
    """Return the rows of a global batch of so many images that a rank decodes: a floor or ceiling share, or none."""
    return range(images * rank // world_size, images * (rank + 1) // world_size)


def shuffle_score(labels: npt.NDArray[np.integer], window: int = 256) -> tuple[float, float]:
    """Return the mean count of distinct classes in consecutive windows, and what a perfect shuffle would give.

    `labels`: (n,), in the order to be judged. The ideal is the expectation for independent draws with the classes'
    own frequencies: for ImageNet and windows of 256 about 225 of 1,000.
    """
    window = min(window, len(labels))
    if window == 0:
        return 0.0, 0.0
    rows = np.sort(labels[: len(labels) // window * window].reshape(-1, window), axis=1)
    distinct = 1 + (rows[:, 1:] != rows[:, :-1]).sum(axis=1)
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(np.mean(distinct)), float((1.0 - (1.0 - shares) ** window).sum())


def pairs_met_again(
    order: npt.NDArray[np.int64], following: npt.NDArray[np.int64], batch_images: int
) -> tuple[float, float]:
    """Return how many pairs of a batch share one again in another epoch, and what independent shuffles would give.

    `order`, `following`: the two epochs' orders, (n,) each. A set that was shuffled when it was written looks perfect
    to `shuffle_score` in any order; this tells orders that keep images together from those that do not.
    """
    n = len(order)
    batch = min(batch_images, n)
    if batch < 2:
        return 0.0, 0.0
    batches, rest = divmod(n, batch)
    batch_of = np.empty(n, np.int64)
    batch_of[following] = np.arange(n) // batch
    met = batch_of[order[: batches * batch]].reshape(batches, batch) + np.arange(batches)[:, None] * (batches + 1)
    together = np.unique(met, return_counts=True)[1]
    shared = (batches * batch * (batch - 1) + rest * (rest - 1)) / (n * (n - 1))  # the chance that a given pair meets
    return float((together * (together - 1) // 2).sum() / batches), batch * (batch - 1) / 2 * shared
