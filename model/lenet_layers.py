"""The layers of 1998 that PyTorch has not: subsampling with weights, a convolution by a table, the scaled tanh."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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

    def fan_in(self) -> list[int]:
        """Return how many values each output map's units read."""
        return (torch.bincount(self.outputs) * self.weight[0].numel()).tolist()

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
