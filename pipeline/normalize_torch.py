"""Normalize tensors: cut and mirrored uint8 crops become what was asked for.

`(pixel - mean) * scale`, as `normalize.py` defines it, in one fused kernel on a GPU. On a CPU it goes image by image,
so that the float32 in between stays in a core's cache. Types of 16 bits are the float32 result, rounded once.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from alexnet.pipeline.augment import ten_views
from alexnet.pipeline.normalize import Normalization
from alexnet.pipeline.settings import Output
from alexnet.shards.errors import InputError

DTYPES: dict[Output, torch.dtype] = {
    "uint8": torch.uint8,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def device_of(device_id: int | None) -> torch.device:
    """Return the GPU of a number, the CPU for None. Raises InputError for a GPU that is not there."""
    if device_id is None:
        return torch.device("cpu")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device_id >= gpus:
        raise InputError(
            f"device='cuda:{device_id}': this machine has {gpus or 'no'} GPU{'s' * (gpus > 1)} that PyTorch can use"
            f"{f', cuda:0 to cuda:{gpus - 1}' if gpus else ''}; device='cpu' works here"
        )
    return torch.device("cuda", device_id)


class Normalizer:
    """Turn uint8 crops into normalized tensors.

    `output`: `uint8` leaves pixels as they are. `channels_last`: memory format of the result. `device`: where the crops
    are. `views_px`: crops are whole images, and the ten views of this side are cut from each.
    """

    def __init__(
        self,
        normalization: Normalization,
        output: Output,
        *,
        channels_last: bool,
        device: torch.device,
        views_px: int | None = None,
    ) -> None:
        self.normalization, self._dtype = normalization, DTYPES[output]
        self._memory = torch.channels_last if channels_last else torch.contiguous_format
        image = normalization.mean_image
        self._mean = torch.from_numpy(np.zeros(3, np.float32) if image is None else image.copy()).to(device)
        self._scale = torch.from_numpy(normalization.scale.copy()).to(device)
        self._device, self._views_px = device, views_px

    def __call__(self, crops: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        """Normalize uint8 crops (n, H, W, 3), each with its mean, float32 (n, 3).

        Returns (n, 3, H, W), or (n, 10, 3, H, W) of ten views.
        """
        if self._views_px is None:
            return self._normalized(crops, means)
        views = self._cut(crops, self._views_px)
        images = self._normalized(views.flatten(0, 1), means.repeat_interleave(views.shape[1], dim=0))
        return images.reshape(*views.shape[:2], *images.shape[1:])

    def _cut(self, images: torch.Tensor, side: int) -> torch.Tensor:
        """Cut the ten views of all images: (n, H, W, 3) to (n, 10, side, side, 3)."""
        cuts = ((images[:, y : y + side, x : x + side], mirror) for y, x, mirror in ten_views(images.shape[1], side))
        return torch.stack([cut.flip(2) if mirror else cut for cut, mirror in cuts], dim=1)

    def _normalized(self, crops: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        """Return (n, 3, H, W) in the memory format and of the type that were asked for."""
        if self._dtype == torch.uint8:
            return crops.movedim(-1, 1).contiguous(memory_format=self._memory)
        if self._device.type == "cuda":
            arithmetic = _fused() if len(crops) else _arithmetic  # no kernel for an empty part
            images = arithmetic(crops, self._mean, means, self._scale, self._dtype)
            return images.movedim(-1, 1).contiguous(memory_format=self._memory)
        return self._on_cpu(crops, means)

    def _on_cpu(self, crops: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        """Go image by image, each in place, as rows of W * 3 numbers: three wide, they cost 3.3 times the time."""
        height, width = crops.shape[1:3]
        images = torch.empty((len(crops), 3, height, width), dtype=self._dtype, memory_format=self._memory)
        mean = self._mean.repeat(width) if self._mean.ndim == 1 else self._mean.flatten(1)
        scales, shifts = self._scale.repeat(width), means.repeat(1, width)
        in_between = torch.empty((height, width * 3), dtype=torch.float32)
        in_place = self._dtype == torch.float32 and self._memory == torch.channels_last
        for image, crop, shift in zip(images.movedim(1, -1), crops.flatten(2), shifts, strict=True):
            rows = image.view(height, width * 3) if in_place else in_between
            rows.copy_(crop).sub_(mean + shift).mul_(scales)
            if not in_place:
                image.copy_(rows.view(height, width, 3))
        return images


def _arithmetic(
    crops: torch.Tensor, mean: torch.Tensor, means: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Normalize (..., H, W, 3) with a common mean, (3,) or (H, W, 3), and further means of the images, (..., 3)."""
    return ((crops.float() - (mean + means[..., None, None, :])) * scale).to(dtype)


class _Fused:
    """The arithmetic compiled into one kernel, which reads a byte and writes a number, with nothing in between."""

    def __init__(self) -> None:
        self._run: Callable[..., torch.Tensor] = torch.compile(_arithmetic, dynamic=True)

    def __call__(self, *arguments: Any) -> torch.Tensor:
        """Run it; where it cannot be compiled, for want of a C compiler for instance, step by step to the same bits."""
        try:
            return self._run(*arguments)
        except Exception as error:
            from torch._dynamo.exc import TorchDynamoException

            if not isinstance(error, TorchDynamoException):
                raise
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(
                f"batches are normalized in steps, not in one kernel, as torch.compile fails: {reason}", stacklevel=1
            )
            self._run = _arithmetic
            return _arithmetic(*arguments)


@functools.cache
def _fused() -> _Fused:
    return _Fused()
