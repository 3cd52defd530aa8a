"""The paper's comparisons: each takes away one thing, and only where it is there."""

import pytest
import torch

from alexnet.model.networks.architecture import RELU, TANH, NormAcrossMaps, NormInMap, Pool
from alexnet.model.networks.figures import figures
from alexnet.model.networks.network import build_network, parameter_count
from alexnet.model.networks.others import ARCHITECTURES
from alexnet.model.networks.settings import NetSettings, architecture_of
from alexnet.shards.errors import InputError


def test_nothing_changes_unless_asked_for() -> None:
    for name, drawing in ARCHITECTURES.items():
        assert architecture_of(NetSettings(arch=name)) == drawing


def test_tanh_takes_the_place_of_every_rectifier() -> None:
    drawn = architecture_of(NetSettings(arch="cuda-convnet-cifar", activation="tanh")).layers
    original = ARCHITECTURES["cuda-convnet-cifar"].layers
    assert [TANH if layer == RELU else layer for layer in original] == list(drawn)
    assert drawn.count(TANH) == 3


@pytest.mark.parametrize(("arch", "layers"), [("alexnet-2012", 2), ("alexnet-2012-source", 3)])
def test_without_response_normalisation(arch: str, layers: int) -> None:
    original = ARCHITECTURES[arch].layers
    drawn = architecture_of(NetSettings(arch=arch, response_norm="off")).layers
    assert [layer for layer in original if not isinstance(layer, NormAcrossMaps | NormInMap)] == list(drawn)
    assert len(original) - len(drawn) == layers


@pytest.mark.parametrize("arch", ["alexnet-2012", "alexnet-owt", "cuda-convnet-cifar"])
def test_windows_that_do_not_overlap_give_maps_of_the_same_size(arch: str) -> None:
    """Section 3.4: "which produces output of equivalent dimensions"."""
    apart = architecture_of(NetSettings(arch=arch, pooling="disjoint"))
    assert all(layer.window == layer.stride == 2 for layer in apart.layers if isinstance(layer, Pool))
    px = apart.input_px[0]
    assert figures(apart, px=px, channels=3, classes=10) == figures(ARCHITECTURES[arch], px=px, channels=3, classes=10)
    with torch.device("meta"):
        net = build_network(NetSettings(arch=arch, classes=10, pooling="disjoint"))
    assert net(torch.zeros(1, 3, px, px, device="meta")).shape == (1, 10)


def test_without_dropout_training_is_evaluation() -> None:
    net = build_network(NetSettings(arch="alexnet-2012-one-tower", classes=2, dropout=0.0))
    drop = net.get_submodule("towers.0.drop6")
    x = torch.randn(3, 4096)
    assert torch.equal(drop.train()(x), x)
    assert torch.equal(drop.eval()(x), x)
    assert parameter_count(net) == 59_798_312 - 998 * 4097


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (NetSettings(arch="lenet-5", response_norm="off"), r"net\.response_norm=off: lenet-5 has none"),
        (NetSettings(arch="lenet-5", pooling="disjoint"), r"net\.pooling=disjoint: lenet-5 has no pooling windows"),
        (NetSettings(arch="alexnet-2012", activation="relu"), r"net\.activation=relu: alexnet-2012 has no other"),
        (NetSettings(arch="cuda-convnet-cifar", dropout=0.2), r"net\.dropout=0\.2: cuda-convnet-cifar has none"),
    ],
)
def test_an_experiment_that_changes_nothing_is_refused(settings: NetSettings, message: str) -> None:
    with pytest.raises(InputError, match=message):
        architecture_of(settings)


def test_an_unknown_network_is_named_with_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"net\.arch=alexnet2012: must be one of lenet-5, .*; did you mean alexnet-2012\?"
    ):
        NetSettings(arch="alexnet2012")
