"""Initial values. Drawn for a whole layer and then cut by tower, so that every layout starts from the same numbers."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from alexnet.model.towers import LAYERS, TOWERS, Tower, TwoTowers, class_range

_ONES = frozenset({"conv2", "conv4", "conv5", "fc6", "fc7"})  # paper, section 5: "the rectifiers start with positive"


@dataclass(frozen=True, kw_only=True)
class InitSettings:
    """Settle the initial values.

    `paper`: N(0, 0.01) weights, biases of 1 in conv2, conv4, conv5, fc6 and fc7 (section 5). It needs ImageNet: on 80
    images it stays at chance for at least 48 epochs. `he`: N(0, 2 / fan-in) weights, zero biases, for inputs of unit
    variance; learns a small set at once.
    """

    kind: Literal["paper", "he"] = "paper"


@torch.no_grad()
def initialise(net: TwoTowers, settings: InitSettings, seed: int) -> None:
    """Fill every parameter in place from the seed."""
    for number, name in enumerate(LAYERS):
        generator = torch.Generator().manual_seed(seed * len(LAYERS) + number)
        for tower in range(TOWERS):  # towers that live elsewhere are drawn, too: the generator must move on
            local = _tower(net, tower)
            layer = getattr(local or net.local_towers()[0], name)
            weight, bias = layer.weight, layer.bias
            shape = list(weight.shape)
            if name == "fc8":
                shape[0] = _classes_of(net, tower)
            drawn = torch.randn(shape, generator=generator) * _deviation(weight, settings)
            if local is not None:
                weight.copy_(drawn)
                bias.fill_(1.0 if settings.kind == "paper" and name in _ONES else 0.0)


def parameter_count(net: nn.Module) -> int:
    """Count the parameters held here."""
    return sum(p.numel() for p in net.parameters())


def _deviation(weight: Tensor, settings: InitSettings) -> float:
    return 0.01 if settings.kind == "paper" else math.sqrt(2.0 / weight[0].numel())


def _tower(net: TwoTowers, index: int) -> Tower | None:
    return next((tower for tower in net.local_towers() if tower.index == index), None)


def _classes_of(net: TwoTowers, tower: int) -> int:
    return len(class_range(net.settings.classes, tower))
