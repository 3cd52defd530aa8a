"""How well an order mixes: the classes inside an epoch, and the company of each image from epoch to epoch."""

import numpy as np
import numpy.typing as npt


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
