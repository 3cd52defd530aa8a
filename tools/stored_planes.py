"""Look into stored planes for `alexnet-prep verify --deep`: their pixels, and how coarsely the JPEGs were encoded."""

import numpy as np
import numpy.typing as npt

from alexnet.shards.manifest import StoredSettings
from alexnet.shards.planes import rgb_of_planes

_FLAT = 128  # chroma of grey
_DC_STEPS = 16, 17  # of luma and chroma at quality 50, in the tables of JPEG's annex K


def decode_planes(planes: bytes, stored: StoredSettings) -> tuple[npt.NDArray[np.uint8], int]:
    """Turn stored planes into pixels: uint8 (size, size, channels), and the step that their DC terms were rounded to.

    Raises ValueError for planes of a grey set that hold a colour.
    """
    scale = 5000 // stored.quality if stored.quality < 50 else 200 - 2 * stored.quality
    dc_step = max(1, (_DC_STEPS[stored.channels == 3] * scale + 50) // 100)
    pixels = rgb_of_planes(planes, stored.size_px, stored.size_px)
    if stored.channels == 1:
        if planes[stored.size_px**2 :].strip(bytes([_FLAT])):
            raise ValueError("holds a colour, where settings.channels is 1")
        pixels = pixels[:, :, :1]
    return pixels, min(dc_step, 255)
