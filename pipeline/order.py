"""The order of an epoch: which samples make up global batch s of epoch e, and which of them are one rank's.

Pure functions of integers. Ranks, threads and machines have no part in them, so each sample comes exactly once an
epoch and resuming is a cursor (epoch, step).
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


def rank_part(batch: range, rank: int, ranks: int) -> range:
    """Cut a global batch into contiguous parts of floor or ceiling size and return one; it may be empty."""
    return batch[len(batch) * rank // ranks : len(batch) * (rank + 1) // ranks]
