"""Initial values. Drawn for a whole layer and then cut by tower, so that every layout starts from the same numbers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alexnet.model.networks.architecture import Weighted
from alexnet.model.networks.build import Network
from alexnet.model.networks.figures import Placed, trace
from alexnet.shards.errors import InputError, nearest

Kind = Literal["paper", "he", "source-2012", "cuda-convnet", "cuda-convnet-80s", "lecun", "torch"]

# Standard deviations of weights, as `initW` in the authors' layer files.
_DEVIATIONS: dict[Kind, dict[str, float]] = {
    "source-2012": dict.fromkeys(("conv1", "conv2", "fc6", "fc7", "fc8"), 0.01)
    | dict.fromkeys(("conv3", "conv4", "conv5", "conv6"), 0.03),
    "cuda-convnet": {"conv1": 0.0001, "conv2": 0.01, "conv3": 0.01, "fc10": 0.01},
    "cuda-convnet-80s": {"conv1": 0.0001, "conv2": 0.01, "conv3": 0.01, "fc64": 0.1, "fc10": 0.1},
}
_PAPERS_DEVIATION = 0.01
_WITH_FIRST_BIASES: tuple[Kind, ...] = ("paper", "source-2012")


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
        missing = [name for name in names if name not in _DEVIATIONS.get(self.kind, {name: None})]
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
    towers = [{place.name: place for place in trace(net.settings, tower)} for tower in range(net.architecture.towers)]
    for number, (name, modules) in enumerate(layers.items()):
        generator = torch.Generator().manual_seed(seed * len(layers) + number)
        like = next(module.get_parameter("weight") for module in modules if module is not None)
        for places, module in zip(towers, modules, strict=True):  # those elsewhere, too: the generator must move on
            weight, bias = _drawn(settings.kind, places[name], like, generator)
            if module is not None:
                module.get_parameter("weight").copy_(weight)
                module.get_parameter("bias").copy_(bias.view_as(module.get_parameter("bias")))


def _drawn(kind: Kind, place: Placed, like: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw one tower's weights and biases of a layer. `like`: weights of any tower."""
    layer, outputs = place.layer, place.gives[0]
    assert isinstance(layer, Weighted)
    values = like.shape[1:].numel()  # in a row of weights
    shape = (layer.weights(place.reads) // values, *like.shape[1:])
    if kind not in _BY_FAN_IN:
        deviation = _DEVIATIONS.get(kind, {}).get(layer.name, _PAPERS_DEVIATION)
        bias = float(layer.first_bias) if kind in _WITH_FIRST_BIASES else 0.0
        return torch.randn(shape, generator=generator) * deviation, torch.full((outputs,), bias)
    noise, rule, biases_too = _BY_FAN_IN[kind]
    read = layer.fan_in(place.reads)
    of_biases = of_rows = torch.tensor([rule(number) for number in read])
    if len(read) > 1:  # by a table, which has a row of weights for each map that is read
        of_rows = of_biases.repeat_interleave(torch.tensor(read) // values)
    weight = noise(shape, generator) * of_rows.view(-1, *[1] * len(like.shape[1:]))
    return weight, noise((outputs,), generator) * of_biases if biases_too else torch.zeros(outputs)


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
