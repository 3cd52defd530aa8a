"""What a GPU makes of planes, in Triton's interpreter: the bits of the host decoder, whatever is asked for."""

import os

os.environ["TRITON_INTERPRET"] = "1"  # before the kernel is imported

from typing import Any

import numpy as np
import pytest
import torch

from alexnet.pipeline.host.pool import DTYPES, JpegPool
from alexnet.pipeline.planes_gpu import Constants, finish
from alexnet.shards.planes import planes_bytes
from tests.unit.pipeline.photographs import photograph

ENCODINGS = ["4:2:0", "grey", "progressive", "4:2:0"]


def both(size: int, crop: int, output: str, *, channels_last: bool, mean_image: bool, block: int) -> Any:
    """Return what the kernel and what the host decoder make of four images, cut at corners and somewhere."""
    rng = np.random.default_rng(size)
    jpegs = [photograph(i, size, size, encoding) for i, encoding in enumerate(ENCODINGS)]
    far = size - crop
    crop_yx = np.array([(0, 0), (far, far), (0, far), rng.integers(0, far + 1, 2)], np.int32)
    mirror = np.array([False, True, True, False])
    means = rng.normal(120, 30, (4, 3)).astype(np.float32)
    scale = (1 / rng.uniform(50, 70, 3)).astype(np.float32)
    image = rng.normal(0, 9, (crop, crop, 3)).astype(np.float32) if mean_image else None
    expected = np.empty((4, crop, crop, 3) if channels_last else (4, 3, crop, crop), DTYPES[output])
    planes = np.empty((4, planes_bytes(size, size)), np.uint8)
    with JpegPool(1) as pool:
        normal: dict[str, Any] = {"mean": means, "scale": scale, "mean_image": image, "planar": not channels_last}
        assert not pool.decode(jpegs, size=(size, size), crop_yx=crop_yx, mirror=mirror, out=expected, **normal)
        assert not pool.decode_planes(jpegs, size=(size, size), out=planes)
    memory = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.empty((4, 3, crop, crop), dtype=getattr(torch, output), memory_format=memory)
    addresses = planes.ctypes.data + np.arange(4) * planes.shape[1]
    rows = tuple(map(torch.from_numpy, (addresses, crop_yx, mirror.view(np.uint8), means)))
    constants = Constants(torch.from_numpy(scale), None if image is None else torch.from_numpy(image))
    finish(rows, constants, images, size, block=block)
    return (images.movedim(1, -1) if channels_last else images).numpy(), expected


@pytest.mark.parametrize(
    ("output", "channels_last", "mean_image"),  # the interpreter cuts bfloat16 off
    [("uint8", False, False), ("uint8", True, False), ("float32", True, False), ("float32", False, True),
     ("float16", True, True)],
)  # fmt: skip
@pytest.mark.parametrize(("size", "crop"), [(29, 27), (28, 28)])
def test_equals_the_host_decoder_to_the_bit(
    size: int, crop: int, output: str, channels_last: bool, mean_image: bool
) -> None:
    given, expected = both(size, crop, output, channels_last=channels_last, mean_image=mean_image, block=1024)
    assert np.array_equal(given, expected)


def test_many_programs_make_one_image() -> None:
    """Columns and rows are divided, and the last of each are not all inside."""
    given, expected = both(330, 301, "float32", channels_last=True, mean_image=False, block=256 * 128)
    assert np.array_equal(given, expected)


def test_no_images_need_no_kernel() -> None:
    finish((), Constants(torch.ones(3), None), torch.empty(0, 3, 5, 5), 8)
