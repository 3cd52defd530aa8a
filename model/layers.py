"""Layers that PyTorch lacks, or computes in another way.

Of 2012: response normalisation and dropout that does not depend on the layout. Of 1998: subsampling with weights, a
convolution by a table, the scaled tanh.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LocalResponseNorm(nn.Module):
    """Divide each unit by (k + alpha * sum of squares over `size` neighbouring maps)^beta (paper, section 3.3).

    (n, channels, H, W) in and out. Alpha is the paper's: PyTorch's own layer divides it by `size`. The sum runs as a
    1x1 convolution with a banded matrix, which keeps channels-last memory and bf16: on a CPU a training step costs 1.16
    CPU-seconds a batch of 32 with it and 2.14 with PyTorch's (1.06 with no normalisation at all).
    """

    band: Tensor

    def __init__(self, channels: int, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k
        index = torch.arange(channels)
        near = (index[:, None] - index[None, :]).abs() <= size // 2
        self.register_buffer("band", near.float()[:, :, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise across maps."""
        with _without_autocast(x):
            squares = F.conv2d(x.square(), self.band.to(x.dtype))
            return x * (squares * self.alpha + self.k).pow(-self.beta)


class SameMapNorm(nn.Module):
    """Divide each unit by (1 + alpha * sum of squares over `size` x `size` units of its own map around it)^beta.

    (n, channels, H, W) in and out; beyond the edge there are zeros. The layer that cuda-convnet calls `rnorm`, and that
    the 2012 code has after conv2 though the paper does not mention it. Its configuration gives alpha times size ** 2.
    """

    def __init__(self, size: int, alpha: float, beta: float = 0.75) -> None:
        super().__init__()
        self.size, self.alpha, self.beta = size, alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        """Normalise across the plane."""
        with _without_autocast(x):
            squares = F.avg_pool2d(x.square(), self.size, stride=1, padding=self.size // 2, divisor_override=1)
            return x * (squares * self.alpha + 1.0).pow(-self.beta)


def _without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Return a context that computes in the type of `x`.

    A GPU's autocast takes squares and powers in fp32, and whatever follows would be fp32, too: twice the bytes of the
    two largest layers, to read and to keep for the backward pass.
    """
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()  # not `meta`


class StepClock(nn.Module):
    """Hold what dropout masks are drawn from: the run's seed, the step, and this rank's first row of the global batch.

    Tensors, so that a captured CUDA graph draws a new mask at each replay. Not part of a checkpoint: the trainer sets
    them.
    """

    now: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("now", torch.zeros(3, dtype=torch.int64), persistent=False)
        self._known: tuple[Tensor, int, tuple[int, ...]] | None = None  # a tensor, its version, its values

    def set(self, seed: int, step: int, first_row: int = 0) -> None:
        """Set the clock for one training step: on a GPU a kernel for each value that is another."""
        values = (seed & _MASK, step & _MASK, first_row)
        tensor, version, known = self._known or (None, -1, ())
        unchanged = tensor is self.now and version == self.now._version  # no other wrote to it, nor was it moved
        for place, value in enumerate(values):
            if not unchanged or value != known[place]:
                self.now[place].fill_(value)  # a kernel argument: a copied tensor would make the CPU wait for the GPU
        self._known = self.now, self.now._version, values


class HashDropout(nn.Module):
    """Zero each unit with probability `rate` while training, multiply by 1 - rate otherwise (paper, section 4.2).

    (n, width) in and out. Whether a unit stays is an integer hash of (seed, step, layer, row in the global batch, unit
    in the whole layer): the same in every layout of towers and ranks, and nothing to save in a checkpoint. `scaled`:
    multiply by 1 / (1 - rate) while training instead, and leave evaluation alone, as is done since.
    """

    def __init__(
        self, clock: StepClock, layer: int, first_unit: int, rate: float = 0.5, *, scaled: bool = False
    ) -> None:
        super().__init__()
        self._clock = [clock]  # in a list, so that it is not registered once for every layer
        self.layer, self.first_unit, self.rate, self.scaled = layer, first_unit, rate, scaled

    def forward(self, x: Tensor) -> Tensor:
        """Drop units while training; scale what that asks for."""
        if not self.rate:
            return x
        if not self.training:
            return x if self.scaled else x * (1.0 - self.rate)
        seed, step, first_row = self._clock[0].now.unbind()
        rows = first_row + torch.arange(x.shape[0], device=x.device)
        units = self.first_unit + torch.arange(x.shape[1], device=x.device)
        row_keys = mix32(rows + mix32(step + mix32(seed + mix32(torch.full_like(seed, self.layer)))))
        bits = mix32(row_keys[:, None] + mix32(units * _GOLDEN)[None, :])
        kept = x * (bits >= int(self.rate * 2**32))
        return kept / (1.0 - self.rate) if self.scaled else kept


_MASK = 0xFFFFFFFF
_GOLDEN = 0x1E3779B1


def mix32(x: Tensor) -> Tensor:
    """Mix 32-bit words held in int64; multipliers are below 2^31, so that no product overflows."""
    x = x & _MASK
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _MASK
    x = ((x ^ (x >> 15)) * 0x735A2D97) & _MASK
    return x ^ (x >> 15)


class TableConv2d(nn.Module):
    """Convolve, each output map with the input maps that a table lists for it.

    `table`: for each output map its input maps. Only what is connected is a parameter: `weight` is (connections,
    window, window), in the table's order, and LeNet-5's C3 has the 1,516 parameters of its paper.
    """

    outputs: Tensor
    inputs: Tensor

    def __init__(self, table: tuple[tuple[int, ...], ...], maps: int, window: int) -> None:
        super().__init__()
        pairs = torch.tensor([(out, read) for out, reads in enumerate(table) for read in reads])
        self.register_buffer("outputs", pairs[:, 0].clone(), persistent=False)
        self.register_buffer("inputs", pairs[:, 1].clone(), persistent=False)
        self.maps = maps
        self.weight = nn.Parameter(torch.zeros(len(pairs), window, window))
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def forward(self, x: Tensor) -> Tensor:
        """(n, maps, H, W) -> (n, len(table), H - window + 1, W - window + 1)."""
        whole = self.weight.new_zeros(len(self.bias), self.maps, *self.weight.shape[1:])
        return F.conv2d(x, whole.index_put((self.outputs, self.inputs), self.weight), self.bias)


class SubsampleSum(nn.Module):
    """Add up windows that do not overlap, times a coefficient, plus a bias, both a map's own."""

    def __init__(self, maps: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.weight = nn.Parameter(torch.zeros(maps, 1, 1))
        self.bias = nn.Parameter(torch.zeros(maps, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, maps, H, W) -> (n, maps, H / window, W / window)."""
        return F.avg_pool2d(x, self.window, divisor_override=1) * self.weight + self.bias


class ScaledTanh(nn.Module):
    """1.7159 tanh(2x / 3), which takes 1 to 1 and -1 to -1 (the 1998 paper's appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each value."""
        return 1.7159 * torch.tanh(x * (2 / 3))


class CentreIn(nn.Module):
    """Set images into the middle of a square of zeros; larger ones stay as they are."""

    def __init__(self, px: int) -> None:
        super().__init__()
        self.px = px

    def forward(self, x: Tensor) -> Tensor:
        """(n, maps, H, W) -> (n, maps, px, px)."""
        rows, columns = (max(0, self.px - side) for side in x.shape[2:])
        return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


class AveragePoolTo(nn.AdaptiveAvgPool2d):
    """Take means over as many windows as give maps of a fixed size."""

    def forward(self, x: Tensor) -> Tensor:
        """Leave maps alone that have the size: means of single values, whose gradient varies on GPUs."""
        return x if x.shape[2:] == (self.output_size, self.output_size) else super().forward(x)
