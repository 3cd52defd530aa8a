"""The inner loop of alexnet.shards.colour, in C."""

import numpy as np
import numpy.typing as npt

def add(pixels: npt.NDArray[np.uint8], recent: npt.NDArray[np.uint16], /) -> tuple[int, int, int, int, int, int]:
    """Add RGB bytes to uint16 sums of the same order; return the sums rr, rg, rb, gg, gb, bb."""
