"""Initial values. Drawn for a whole layer and then cut by tower, so that every layout starts from the same numbers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from alexnet.model.layers import SubsampleSum, TableConv2d
from alexnet.model.networks.build import Network
from alexnet.shards.errors import InputError, nearest

Kind = Literal["paper", "he", "source-2012", "cuda-convnet", "cuda-convnet-80s", "lecun", "torch"]

_ONES = frozenset({"conv2", "conv4", "conv5", "conv6", "fc6", "fc7"})  # section 5: "the rectifiers start with positive"

# Standard deviations of weights and values of biases, as `initW` and `initB` in the authors' layer files.
_TABLES: dict[Kind, dict[str, tuple[float, float]]] = {
    "source-2012": {
        "conv1": (0.01, 0.0),
        "conv2": (0.01, 1.0),
        "conv3": (0.03, 0.0),
        "conv4": (0.03, 1.0),
        "conv5": (0.03, 1.0),
        "conv6": (0.03, 1.0),
        "fc6": (0.01, 1.0),
        "fc7": (0.01, 1.0),
        "fc8": (0.01, 0.0),
    },
    "cuda-convnet": {"conv1": (0.0001, 0.0), "conv2": (0.01, 0.0), "conv3": (0.01, 0.0), "fc10": (0.01, 0.0)},
    "cuda-convnet-80s": {
        "conv1": (0.0001, 0.0),
        "conv2": (0.01, 0.0),
        "conv3": (0.01, 0.0),
        "fc64": (0.1, 0.0),
        "fc10": (0.1, 0.0),
    },
}


@dataclass(frozen=True, kw_only=True)
class InitSettings:
    """Settle the initial values.

    `paper`: N(0, 0.01) weights, biases of 1 in conv2, conv4, conv5, fc6 and fc7 (section 5). It needs ImageNet: on 80
    images it stays at chance for at least 48 epochs. `source-2012`: the table of the authors' code, 0.03 in conv3 to
    conv5. `he`: N(0, 2 / fan-in) weights, zero biases, for inputs of unit variance; learns a small set at once.
    `cuda-convnet`, `cuda-convnet-80s`: the tables of those two networks. `lecun`: weights even within 2.4 / fan-in,
    zero biases (LeNet-5's paper). `torch`: weights and biases even within 1 / sqrt(fan-in), PyTorch's default.

    `up_to`: the last layer whose values come from the file that `--init` names, if one is given; empty: all that fit.
    """

    kind: Kind = "paper"
    up_to: str = ""

    def check(self, arch: str, names: list[str]) -> None:
        """Raise InputError unless a network's layers, by name, have values here and `up_to` is one of them."""
        if self.up_to and self.up_to not in names:
            allowed = f"must be one of {arch}'s layers, {', '.join(names)}{nearest(self.up_to, names)}"
            raise InputError(f"init.up_to={self.up_to}: {allowed}")
        missing = [name for name in names if name not in _TABLES.get(self.kind, {name: None})]
        if missing:
            raise InputError(
                f"init.kind={self.kind}: has no values for {', '.join(missing)} of {arch}; "
                "he, lecun, paper and torch fit every network"
            )


@torch.no_grad()
def initialise(net: Network, settings: InitSettings, seed: int) -> None:
    """Fill every parameter in place from the seed. Raises InputError if the settings have no values for a layer."""
    layers = net.weighted()
    settings.check(net.settings.arch, list(layers))
    for number, (name, by_tower) in enumerate(layers.items()):
        generator = torch.Generator().manual_seed(seed * len(layers) + number)
        like = next(module for module in by_tower if module is not None)
        for tower, module in enumerate(by_tower):  # those elsewhere are drawn, too: the generator must move on
            shapes = _shapes(like, net, name, tower)
            weight, bias = _drawn(settings.kind, name, like, shapes, generator)
            if module is not None:
                module.get_parameter("weight").copy_(weight)
                module.get_parameter("bias").copy_(bias)


def _shapes(like: nn.Module, net: Network, name: str, tower: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of a tower's weights and biases; towers differ in how many classes they have."""
    weight, bias = like.get_parameter("weight").shape, like.get_parameter("bias").shape
    if not isinstance(like, nn.Linear):
        return weight, bias
    outputs = next(place.gives[0] for place in net.placed(tower) if place.name == name)
    return (outputs, *weight[1:]), (outputs,)


def _drawn(
    kind: Kind,
    name: str,
    like: nn.Module,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw one tower's weights and biases of a layer."""
    if kind not in _BY_FAN_IN:
        deviation, constant = _TABLES[kind][name] if kind in _TABLES else (0.01, 1.0 if name in _ONES else 0.0)
        return torch.randn(shapes[0], generator=generator) * deviation, torch.full(shapes[1], constant)
    noise, rule, biases_too = _BY_FAN_IN[kind]
    of_weights, of_biases = _spreads(like, rule)
    weight = noise(shapes[0], generator) * of_weights
    return weight, noise(shapes[1], generator) * of_biases if biases_too else torch.zeros(shapes[1])


def _spreads(like: nn.Module, rule: Callable[[int], float]) -> tuple[Tensor | float, Tensor | float]:
    """Return what noise is multiplied with, for weights and for biases, from how many values an output reads."""
    if isinstance(like, TableConv2d):
        by_output = torch.tensor([rule(n) for n in like.fan_in()])
        return by_output[like.outputs.cpu()][:, None, None], by_output
    if isinstance(like, SubsampleSum):
        return rule(like.window**2), rule(like.window**2)
    fan_in = like.get_parameter("weight").shape[1:].numel()  # not weight[0]: of one class, the second tower has none
    return rule(fan_in), rule(fan_in)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


def _even(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * 2 - 1


# Noise, what it is multiplied with, and whether biases get it, too.
_BY_FAN_IN: dict[Kind, tuple[Callable[[tuple[int, ...], torch.Generator], Tensor], Callable[[int], float], bool]] = {
    "he": (_normal, lambda fan_in: math.sqrt(2.0 / fan_in), False),
    "lecun": (_even, lambda fan_in: 2.4 / fan_in, False),
    "torch": (_even, lambda fan_in: 1.0 / math.sqrt(fan_in), True),
}
