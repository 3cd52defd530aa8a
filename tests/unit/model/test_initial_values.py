"""Initial values: the papers' and the authors' tables, and the same numbers in every layout."""

import math

import pytest
import torch
from torch import Tensor

from alexnet.model.initialise import InitSettings, Kind, initialise
from alexnet.model.networks.build import Network
from alexnet.model.networks.settings import NetSettings
from alexnet.shards.errors import InputError


def initialised(arch: str, kind: Kind, seed: int = 0, towers: list[int] | None = None, classes: int = 7) -> Network:
    net = Network(NetSettings(arch=arch, classes=classes), towers)
    initialise(net, InitSettings(kind=kind), seed)
    return net


def values(net: Network, layer: str, what: str) -> Tensor:
    modules = [module for module in net.weighted()[layer] if module is not None]
    return torch.cat([module.get_parameter(what).detach().flatten() for module in modules])


# By network and kind: standard deviations of the layers' weights in order, and which have biases of 1.
_CIFAR = {"conv1": 0.0001, "conv2": 0.01, "conv3": 0.01}
_2012 = {"conv1": 0.01, "conv2": 0.01, "conv3": 0.03, "conv4": 0.03, "conv5": 0.03, "conv6": 0.03, "fc6": 0.01}
_ONES = frozenset({"conv2", "conv4", "conv5", "conv6", "fc6", "fc7"})
_PAPERS = dict.fromkeys(["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"], 0.01)
_TABLES: list[tuple[str, Kind, dict[str, float], frozenset[str]]] = [
    ("alexnet-2012", "paper", _PAPERS, _ONES),
    ("alexnet-owt", "paper", _PAPERS, _ONES),
    ("alexnet-2012-conv6", "source-2012", {**_2012, "fc7": 0.01, "fc8": 0.01}, _ONES),  # layers-145 and -146-2009.cfg
    ("cuda-convnet-cifar", "cuda-convnet", {**_CIFAR, "fc10": 0.01}, frozenset()),
    ("cuda-convnet-cifar-80s", "cuda-convnet-80s", {**_CIFAR, "fc64": 0.1, "fc10": 0.1}, frozenset()),
]


@pytest.mark.parametrize(("arch", "kind", "deviations", "ones"), _TABLES)
def test_tables(arch: str, kind: Kind, deviations: dict[str, float], ones: frozenset[str]) -> None:
    """The standard deviation of n draws is itself off by deviation / sqrt(2n): five of those."""
    net = initialised(arch, kind)
    assert list(net.weighted()) == list(deviations)
    for layer, deviation in deviations.items():
        weights = values(net, layer, "weight")
        assert float(weights.std()) == pytest.approx(deviation, rel=5 / math.sqrt(2 * len(weights))), layer
        assert abs(float(weights.mean())) < 5 * deviation / math.sqrt(len(weights)), layer
        assert set(values(net, layer, "bias").tolist()) == {float(layer in ones)}, layer


# How many values a unit reads, in LeNet-5's layers in order; in C3, that differs from map to map.
_FAN_IN = {"c1": 25, "s2": 4, "s4": 4, "c5": 400, "f6": 120, "output": 84}


def test_lecuns_are_even_within_what_a_unit_reads() -> None:
    net = initialised("lenet-5", "lecun")
    for layer, fan_in in _FAN_IN.items():
        weights = values(net, layer, "weight")
        assert float(weights.abs().max()) <= 2.4 / fan_in
        assert float(weights.abs().max()) > 2.4 / fan_in * (1 - 5 / len(weights) if len(weights) > 5 else 0.3)
    c3 = net.weighted()["c3"][0]
    assert c3 is not None
    of_maps = c3.get_parameter("weight").abs().flatten(1).amax(dim=1)
    reads = torch.tensor([3.0] * 18 + [4.0] * 36 + [6.0] * 6)
    assert bool((of_maps <= 2.4 / (25 * reads)).all())
    assert bool((of_maps > 0.6 * 2.4 / (25 * reads)).all())
    assert all(values(net, layer, "bias").abs().max() == 0 for layer in net.weighted())


def test_torchs_are_pytorchs_own() -> None:
    """A network that is not initialised yet has what PyTorch gives its layers."""
    net = Network(NetSettings(arch="alexnet-owt", classes=7))
    layers = ("conv1", "conv5", "fc7")
    theirs = {(layer, what): values(net, layer, what) for layer in layers for what in ("weight", "bias")}
    initialise(net, InitSettings(kind="torch"), seed=2)
    for (layer, what), their in theirs.items():
        mine = values(net, layer, what)
        assert float(mine.abs().max()) == pytest.approx(float(their.abs().max()), rel=0.2), (layer, what)
        spread = 5 * 0.5 / len(mine) ** 0.5  # of the standard deviation of n even draws, at five sigmas
        assert float(mine.std()) == pytest.approx(float(their.std()), rel=2 * spread), (layer, what)
        assert not torch.equal(mine, their)


@pytest.mark.parametrize("arch", ["lenet-5", "cuda-convnet-cifar"])
def test_they_follow_from_the_seed(arch: str) -> None:
    first, again, other = (list(initialised(arch, "he", seed).parameters()) for seed in (0, 0, 1))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize(("classes", "kind"), [(7, "paper"), (1, "he")])
def test_a_tower_alone_starts_as_it_does_beside_the_other(classes: int, kind: Kind) -> None:
    """Of a single class the second tower has none."""
    both, second = (
        dict(initialised("alexnet-2012", kind, 5, towers, classes).named_parameters()) for towers in (None, [1])
    )
    assert {name for name in both if name.startswith("towers.1.")} == set(second)
    assert second["towers.1.fc8.weight"].shape == (classes // 2, 4096)
    assert all(torch.equal(parameter, both[name]) for name, parameter in second.items())
    assert not torch.equal(both["towers.0.conv1.weight"], both["towers.1.conv1.weight"])


def test_a_table_without_the_networks_layers_is_refused() -> None:
    with pytest.raises(InputError, match=r"init\.kind=source-2012: has no values for c1, s2, .* of lenet-5; he, lecun"):
        initialised("lenet-5", "source-2012")
