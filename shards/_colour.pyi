"""The inner loop of alexnet.shards.colour, in C."""

import numpy as np
import numpy.typing as npt

def add(
    pixels: npt.NDArray[np.uint8], recent: npt.NDArray[np.uint16], channels: int, /
) -> tuple[int, int, int, int, int, int]:
    """Add pixels of 3 or 4 channels to uint16 sums of their shape; return the sums rr, rg, rb, gg, gb, bb."""
