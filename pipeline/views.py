"""The ten views of the paper's evaluation (section 4.1): five windows of an image, and their mirror images.

The network's ten softmax outputs are averaged. An image is stored once and decoded once; its views are cut from the
decoded square.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alexnet.shards.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Views:
    """Hold windows to be cut from one image: `crop_yx` int32 (v, 2), top left corners; `mirror` bool (v,)."""

    crop_yx: npt.NDArray[np.int32]
    mirror: npt.NDArray[np.bool_]


def ten_views(size_px: int, crop_px: int) -> Views:
    """Return top left, top right, bottom left, bottom right and centre, then the mirror images of these in that order.

    The centre is the window of single-view evaluation, at (size_px - crop_px) // 2.
    """
    if not 1 <= crop_px <= size_px:
        raise InputError(f"crop_px={crop_px}: must be between 1 and the shards' {size_px}; give a smaller window")
    far, middle = size_px - crop_px, (size_px - crop_px) // 2
    windows = [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
    return Views(
        crop_yx=np.array(windows * 2, np.int32),
        mirror=np.repeat(np.array([False, True]), len(windows)),
    )
