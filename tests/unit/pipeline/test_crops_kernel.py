"""What a GPU does with uint8 crops, in Triton's interpreter: the bits of the NumPy reference, whatever is asked for."""

import os

os.environ["TRITON_INTERPRET"] = "1"  # before the kernel is imported

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from alexnet.pipeline import normalize_torch
from alexnet.pipeline.normalize import Normalization, normalized
from alexnet.pipeline.normalize_torch import in_one_kernel, step_by_step

WAYS = [in_one_kernel, step_by_step]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("mean_image", [True, False])
@pytest.mark.parametrize("output", ["float32", "float16"])
@pytest.mark.parametrize("side", [7, 32])  # 147 and 3,072 values an image, of which a program takes 1,024
def test_equals_the_reference_to_the_bit(
    way: Callable[..., None], channels_last: bool, mean_image: bool, output: str, side: int
) -> None:
    rng = np.random.default_rng(side)
    crops = rng.integers(0, 256, (3, side, side, 3), np.uint8)
    offsets = rng.normal(0, 20, (3, 3)).astype(np.float32)
    shape = (side, side, 3) if mean_image else 3
    constants = Normalization(
        mean=rng.normal(120, 30, shape).astype(np.float32), scale=(1 / rng.uniform(50, 70, 3)).astype(np.float32)
    )
    memory = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.empty((3, 3, side, side), dtype=getattr(torch, output), memory_format=memory)
    image = None if constants.mean_image is None else torch.from_numpy(constants.mean_image)
    options: dict[str, Any] = {"block": 1024} if way is in_one_kernel else {}
    inputs = (torch.from_numpy(crops), torch.from_numpy(constants.means(offsets)), torch.from_numpy(constants.scale))
    way(*inputs, image, images, **options)
    expected = torch.from_numpy(normalized(crops, offsets, constants)).to(images.dtype)
    assert torch.equal(images.movedim(1, -1), expected)


def test_no_images_need_no_kernel() -> None:
    empty = torch.empty(0, 3, 5, 5)
    in_one_kernel(torch.empty(0, 5, 5, 3, dtype=torch.uint8), torch.empty(0, 3), torch.ones(3), None, empty)


@pytest.mark.parametrize("missing", ["", "Failed to find C compiler"])
def test_where_triton_fails_it_goes_step_by_step_and_says_so(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError(missing + "\nand much more")

    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: zeros(*shape))
    normalize_torch.on_gpu.cache_clear()
    if missing:
        monkeypatch.setattr(normalize_torch, "in_one_kernel", fails)
        with pytest.warns(UserWarning, match=f"in steps, not in one kernel, .*as Triton fails: {missing}$"):
            assert normalize_torch.on_gpu() is step_by_step
    assert normalize_torch.on_gpu() is (step_by_step if missing else in_one_kernel)
    normalize_torch.on_gpu.cache_clear()
