"""Write `pipeline/normals.npy`, the committed table of normal quantiles.

    python -m alexnet.tools.samples.normal_table

It is committed rather than computed because logarithms and square roots of different C libraries differ in their last
bits, and the draws of every epoch must be the same everywhere.
"""

from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

import alexnet.pipeline

SLICES = 1 << 15


def normal_table() -> npt.NDArray[np.float32]:
    """Return the midpoints of 32,768 equal slices of the upper half of N(0, 1): float32, rising."""
    normal = NormalDist()
    return np.array([normal.inv_cdf(0.5 + (i + 0.5) / (2 * SLICES)) for i in range(SLICES)], np.float32)


if __name__ == "__main__":
    target = Path(alexnet.pipeline.__file__).with_name("normals.npy")
    np.save(target, normal_table())
    print(target)
