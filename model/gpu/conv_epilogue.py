"""What follows a convolution, up to its pooling: bias, ReLU, response normalisation, max pooling, ReLU."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Epilogue:
    """Say what follows a convolution.

    `relu`: `before` normalisation and pooling, `after`, or `none`. `norm`: size, alpha, beta, k, within a tower.
    `pool`: window and stride. `towers`: as many equal parts the maps are. `outputs`: tensors to give, 1 or one a tower.
    """

    relu: Literal["before", "after", "none"] = "before"
    norm: tuple[int, float, float, float] | None = None
    pool: tuple[int, int] | None = None
    towers: int = 1
    outputs: int = 1


def conv_epilogue(parts: Sequence[Tensor], bias: Tensor, epilogue: Epilogue) -> tuple[Tensor, ...]:
    """Apply it to convolutions without bias, (n, maps, H, W), that together are all towers' maps."""
    x = torch.cat(list(parts), dim=1) + bias[None, :, None, None]
    x = x.relu() if epilogue.relu == "before" else x
    if epilogue.norm:
        size, alpha, beta, k = epilogue.norm
        towers = x.unflatten(1, (epilogue.towers, -1))
        squares = F.pad(towers.square(), (0, 0, 0, 0, size // 2, size // 2)).unfold(2, size, 1).sum(-1)
        x = (towers * (k + alpha * squares) ** -beta).flatten(1, 2)
    x = F.max_pool2d(x, *epilogue.pool) if epilogue.pool else x
    x = x.relu() if epilogue.relu == "after" else x
    return tuple(part.contiguous(memory_format=torch.channels_last) for part in x.chunk(epilogue.outputs, dim=1))
