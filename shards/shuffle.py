"""How well an order mixes the classes."""

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
    starts = range(0, len(labels) - window + 1, window)
    distinct = [len(np.unique(labels[start : start + window])) for start in starts]
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(np.mean(distinct)), float((1.0 - (1.0 - shares) ** window).sum())
