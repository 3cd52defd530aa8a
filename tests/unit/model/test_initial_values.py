"""Initial values: the papers' and the authors' tables, and the same numbers in every layout."""

import math

import pytest
import torch
from torch import Tensor

from alexnet.model.initialise import InitSettings, Kind, initialise
from alexnet.model.networks.build import Network, build_network
from alexnet.model.networks.settings import NetSettings
from alexnet.shards.errors import InputError


def initialised(arch: str, kind: Kind, seed: int = 0, towers: list[int] | None = None) -> Network:
    net = build_network(NetSettings(arch=arch, classes=7), towers)
    initialise(net, InitSettings(kind=kind), seed)
    return net


def values(net: Network, layer: str, what: str) -> Tensor:
    modules = [module for module in net.weighted()[layer] if module is not None]
    return torch.cat([module.get_parameter(what).detach().flatten() for module in modules])


def check(net: Network, layer: str, deviation: float, bias: float) -> None:
    """The standard deviation of n draws is itself off by deviation / sqrt(2n): five of those."""
    weights = values(net, layer, "weight")
    assert float(weights.std()) == pytest.approx(deviation, rel=5 / math.sqrt(2 * len(weights))), layer
    assert abs(float(weights.mean())) < 5 * deviation / math.sqrt(len(weights)), layer
    assert set(values(net, layer, "bias").tolist()) == {bias}, layer


def test_the_papers() -> None:
    net = initialised("alexnet-2012", "paper")
    for layer in net.weighted():
        check(net, layer, 0.01, 1.0 if layer in {"conv2", "conv4", "conv5", "fc6", "fc7"} else 0.0)
    towers = net.weighted()["conv1"]
    assert towers[0] is not None
    assert towers[1] is not None
    assert not torch.equal(towers[0].get_parameter("weight"), towers[1].get_parameter("weight"))


def test_the_authors_of_2012() -> None:
    """initW and initB of layers-145.cfg and, for conv6, of layers-146-2009.cfg."""
    expected = {
        "conv1": (0.01, 0), "conv2": (0.01, 1), "conv3": (0.03, 0), "conv4": (0.03, 1), "conv5": (0.03, 1),
        "conv6": (0.03, 1), "fc6": (0.01, 1), "fc7": (0.01, 1), "fc8": (0.01, 0),
    }  # fmt: skip
    net = initialised("alexnet-2012-conv6", "source-2012")
    assert list(net.weighted()) == list(expected)
    for layer, (deviation, bias) in expected.items():
        check(net, layer, deviation, bias)


@pytest.mark.parametrize(
    ("arch", "kind", "deviations"),
    [
        ("cuda-convnet-cifar", "cuda-convnet", {"conv1": 0.0001, "conv2": 0.01, "conv3": 0.01, "fc10": 0.01}),
        (
            "cuda-convnet-cifar-80s",
            "cuda-convnet-80s",
            {"conv1": 0.0001, "conv2": 0.01, "conv3": 0.01, "fc64": 0.1, "fc10": 0.1},
        ),
    ],
)
def test_cuda_convnets(arch: str, kind: Kind, deviations: dict[str, float]) -> None:
    net = initialised(arch, kind)
    assert list(net.weighted()) == list(deviations)
    for layer, deviation in deviations.items():
        check(net, layer, deviation, 0.0)


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
    net = build_network(NetSettings(arch="alexnet-owt", classes=7))
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
    nets = [initialised(arch, "he", seed) for seed in (0, 0, 1)]
    flat = [torch.cat([p.flatten() for p in net.parameters()]) for net in nets]
    assert torch.equal(flat[0], flat[1])
    assert not torch.equal(flat[0], flat[2])


def test_a_tower_alone_starts_as_it_does_beside_the_other() -> None:
    both, second = initialised("alexnet-2012", "paper"), initialised("alexnet-2012", "paper", towers=[1])
    together = dict(both.named_parameters())
    alone = dict(second.named_parameters())
    assert {name for name in together if name.startswith("towers.1.")} == set(alone)
    for name, parameter in alone.items():
        assert torch.equal(parameter, together[name]), name


def test_of_a_single_class_the_second_tower_has_none() -> None:
    settings = NetSettings(arch="alexnet-2012", classes=1)
    whole, alone = build_network(settings), build_network(settings, (1,))
    for net in (whole, alone):
        initialise(net, InitSettings(kind="he"), seed=5)
    of_whole = dict(whole.named_parameters())
    assert of_whole["towers.1.fc8.weight"].shape == (0, 4096)
    for name, parameter in alone.named_parameters():
        assert torch.equal(parameter, of_whole[name]), name


def test_a_table_without_the_networks_layers_is_refused() -> None:
    with pytest.raises(InputError, match=r"init\.kind=source-2012: has no values for c1, s2, .* of lenet-5; he, lecun"):
        initialised("lenet-5", "source-2012")
