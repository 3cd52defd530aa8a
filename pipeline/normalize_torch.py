"""Normalize tensors: cut and mirrored uint8 crops become what was asked for.

`(pixel - mean) * scale`, as `normalize.py` defines it, on a GPU in one kernel, to the bits of the CPU. On a CPU it goes
image by image, so that the float32 in between stays in a core's cache. Types of 16 bits are the float32 result, rounded
once.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import torch

from alexnet.pipeline.augment import ten_views
from alexnet.pipeline.normalize import Normalization
from alexnet.pipeline.settings import Output
from alexnet.shards.errors import InputError
from alexnet.shards.nvidia_driver import why_no_gpu

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
        which = f"cuda:0 to cuda:{gpus - 1}" if gpus else why_no_gpu(torch.__version__, torch.version.cuda)
        raise InputError(
            f"device='cuda:{device_id}': this machine has {gpus or 'no'} GPU{'s' * (gpus > 1)} that PyTorch can use "
            f"({which}); device='cpu' works here"
        )
    return torch.device("cuda", device_id)


def moved(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return an array as a tensor on a device. No thread waits for a GPU: from pinned memory it copies by itself."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


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
        self._mean_image = None if image is None else torch.from_numpy(image.copy()).to(device)
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
        images = torch.empty(
            (len(crops), 3, *crops.shape[1:3]), dtype=self._dtype, device=crops.device, memory_format=self._memory
        )
        if self._device.type == "cuda":
            with torch.cuda.device(self._device):
                on_gpu()(crops, means, self._scale, self._mean_image, images)
        else:
            self._on_cpu(crops, means, images)
        return images

    def _on_cpu(self, crops: torch.Tensor, means: torch.Tensor, images: torch.Tensor) -> None:
        """Go image by image, each in place, as rows of W * 3 numbers: three wide, they cost 3.3 times the time."""
        height, width = crops.shape[1:3]
        mean = torch.zeros(()) if self._mean_image is None else self._mean_image.flatten(1)
        scales, shifts = self._scale.repeat(width), means.repeat(1, width)
        in_between = torch.empty((height, width * 3), dtype=torch.float32)
        in_place = self._dtype == torch.float32 and self._memory == torch.channels_last
        for image, crop, shift in zip(images.movedim(1, -1), crops.flatten(2), shifts, strict=True):
            rows = image.view(height, width * 3) if in_place else in_between
            rows.copy_(crop).sub_(mean + shift).mul_(scales)
            if not in_place:
                image.copy_(rows.view(height, width, 3))


OnGpu = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor], None]
"""Normalize uint8 crops (n, H, W, 3) with means (n, 3), scale (3,) and perhaps a mean image (H, W, 3) into images."""


def in_one_kernel(
    crops: torch.Tensor,
    means: torch.Tensor,
    scale: torch.Tensor,
    mean_image: torch.Tensor | None,
    images: torch.Tensor,
    block: int = 4096,  # values a program, 16 a thread
) -> None:
    """Read a byte and write a number, with nothing in between."""
    from alexnet.pipeline.crops_kernels import normalize_crops  # which needs triton

    values = images[:1].numel()
    planar = images.is_contiguous()
    grid = (len(images), -(-values // block))
    if values:  # no kernel for an empty part
        tensors = (crops.contiguous(), means.contiguous(), scale, mean_image, images)
        normalize_crops[grid](*tensors, values, PLANAR=planar, BLOCK=block, num_warps=8)


def step_by_step(
    crops: torch.Tensor,
    means: torch.Tensor,
    scale: torch.Tensor,
    mean_image: torch.Tensor | None,
    images: torch.Tensor,
) -> None:
    """Do the same in PyTorch's operations, to the same bits: five kernels, which write float32 in between."""
    means = means[:, None, None]
    images.movedim(1, -1).copy_((crops.float() - (means if mean_image is None else mean_image + means)) * scale)


@functools.cache
def on_gpu() -> OnGpu:
    """Return the quickest way that works here: Triton may be missing, or the C compiler that it needs."""
    try:
        one = torch.zeros(3, device="cuda")
        in_one_kernel(one.byte().view(1, 1, 1, 3), one.view(1, 3), one, None, one.view(1, 3, 1, 1).clone())
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        what = "batches are normalized in steps, not in one kernel, and a GPU keeps no images"
        warnings.warn(f"{what}, as Triton fails: {reason}", stacklevel=1)
        return step_by_step
    return in_one_kernel
