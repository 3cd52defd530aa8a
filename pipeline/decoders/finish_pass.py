"""The finishing pass: cut and mirrored uint8 windows become the tensor that was asked for.

`(pixel - mean) * scale`, as `pipeline.finish` defines it, in one fused kernel on a GPU. On a CPU it goes image by
image, so that the float32 in between stays in a core's cache. Types of 16 bits are the float32 result, rounded once.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from alexnet.pipeline.decoders.seam import DTYPES
from alexnet.pipeline.finish import Finish
from alexnet.pipeline.settings import Output
from alexnet.pipeline.views import Views


class FinishPass:
    """Turn windows into finished tensors.

    `finish`: constants. `output`: `uint8` leaves pixels as they are. `channels_last`: memory format of the result.
    `views`: cut these from each window, of `crop_px`, instead of using it whole. `device`: where windows are.
    """

    def __init__(
        self,
        finish: Finish,
        output: Output,
        *,
        channels_last: bool,
        device: torch.device,
        views: Views | None = None,
        crop_px: int = 0,
    ) -> None:
        self._dtype = DTYPES[output]
        self._memory = torch.channels_last if channels_last else torch.contiguous_format
        self._views, self._crop_px = views, crop_px
        mean = finish.mean if finish.mean.ndim > 1 else np.zeros(3, np.float32)
        self._mean = torch.from_numpy(mean.copy()).to(device)
        self._scale = torch.from_numpy(finish.scale.copy()).to(device)
        self._device = device

    def __call__(self, windows: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        """Finish uint8 windows (n, H, W, 3), each with its mean, float32 (n, 3).

        Returns (n, 3, H, W), or (n, v, 3, H, W) with v views.
        """
        if self._views is None:
            return self._finished(windows, means)
        count = len(self._views.mirror)
        images = self._finished(self._cut(windows, self._views), means.repeat_interleave(count, dim=0))
        return images.reshape(len(windows), count, *images.shape[1:])

    def _cut(self, windows: torch.Tensor, views: Views) -> torch.Tensor:
        """Cut all views of all images: (n, H, W, 3) to (n * v, crop, crop, 3), an image's views together."""
        cuts = []
        for (y, x), mirror in zip(views.crop_yx.tolist(), views.mirror.tolist(), strict=True):
            cut = windows[:, y : y + self._crop_px, x : x + self._crop_px]
            cuts.append(cut.flip(2) if mirror else cut)
        return torch.stack(cuts, dim=1).flatten(0, 1)

    def _finished(self, windows: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        """Return (n, 3, H, W) in the memory format and of the type that were asked for."""
        if self._dtype == torch.uint8:
            return windows.movedim(-1, 1).contiguous(memory_format=self._memory)
        if self._device.type == "cuda":
            arithmetic = _fused() if len(windows) else _arithmetic  # no kernel for an empty part
            images = arithmetic(windows, self._mean, means, self._scale, self._dtype)
            return images.movedim(-1, 1).contiguous(memory_format=self._memory)
        return self._on_cpu(windows, means)

    def _on_cpu(self, windows: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
        """Finish image by image, each in place, as rows of W * 3 numbers: three wide, they cost 3.3 times the time."""
        height, width = windows.shape[1:3]
        images = torch.empty((len(windows), 3, height, width), dtype=self._dtype, memory_format=self._memory)
        mean = self._mean.repeat(width) if self._mean.ndim == 1 else self._mean.flatten(1)
        scale = self._scale.repeat(width)
        shifts = means.repeat(1, width)
        in_between = torch.empty((height, width * 3), dtype=torch.float32)
        in_place = self._dtype == torch.float32 and self._memory == torch.channels_last
        for image, window, shift in zip(images.movedim(1, -1), windows.flatten(2), shifts, strict=True):
            rows = image.view(height, width * 3) if in_place else in_between
            rows.copy_(window).sub_(mean + shift).mul_(scale)
            if not in_place:
                image.copy_(rows.view(height, width, 3))
        return images


def _arithmetic(
    windows: torch.Tensor, mean: torch.Tensor, means: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Finish (..., H, W, 3) with a common mean, (3,) or (H, W, 3), and further means of the images, (..., 3)."""
    return ((windows.float() - (mean + means[..., None, None, :])) * scale).to(dtype)


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
                f"batches are finished in steps, not in one kernel, as torch.compile fails: {reason}", stacklevel=1
            )
            self._run = _arithmetic
            return _arithmetic(*arguments)


@functools.cache
def _fused() -> _Fused:
    return _Fused()
