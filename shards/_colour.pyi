"""The inner loops of alexnet.shards.colour, in C."""

import numpy as np
import numpy.typing as npt

_Pixels = npt.NDArray[np.uint8]

def products(pixels: _Pixels, channels: int, /) -> tuple[int, int, int, int, int, int]:
    """Return the sums rr, rg, rb, gg, gb, bb of pixels of 3 or 4 channels."""

def add_four(a: _Pixels, b: _Pixels, c: _Pixels, d: _Pixels, recent: npt.NDArray[np.uint16], /) -> None:
    """Add four images to uint16 sums of their shape."""
