"""Initial values from a file: by name and shape, up to a layer, and nothing half-way."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from alexnet.model.networks.build import build_network
from alexnet.model.networks.network import Network
from alexnet.model.networks.settings import NetSettings
from alexnet.model.warm_start import take_weights
from alexnet.shards.errors import InputError

CIFAR = "cuda-convnet-cifar"


def network(arch: str, classes: int = 10, value: float | None = None) -> Network:
    net = build_network(NetSettings(arch=arch, classes=classes))
    if value is not None:
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.fill_(value)
    return net


def stored(net: Network, file: Path, prefix: str = "") -> Path:
    tensors: dict[str, Tensor] = {f"{prefix}{name}": p.detach() for name, p in net.named_parameters()}
    save_file({**tensors, "momentum.whatever": torch.zeros(1)}, file)
    return file


def layers_that_are(net: Network, value: float) -> list[str]:
    return [
        name
        for name, modules in net.weighted().items()
        if all(bool((p == value).all()) for module in modules if module is not None for p in module.parameters())
    ]


def test_the_sixth_convolution_is_put_on_five_trained_ones(tmp_path: Path) -> None:
    file = stored(network("alexnet-2012", classes=2, value=5.0), tmp_path / "five.safetensors", prefix="net.")
    conv1_to_5 = ["conv1", "conv2", "conv3", "conv4", "conv5"]
    net = network("alexnet-2012-conv6", classes=2)
    assert take_weights(net, file, "conv5") == conv1_to_5 == layers_that_are(net, 5.0)


@pytest.mark.parametrize("prefix", ["", "net."])
def test_all_that_fits_is_taken(tmp_path: Path, prefix: str) -> None:
    """Another number of classes leaves the last layer out."""
    file = stored(network(CIFAR, value=5.0), tmp_path / "file.safetensors", prefix)
    net = network(CIFAR, classes=7)
    assert take_weights(net, file) == ["conv1", "conv2", "conv3"] == layers_that_are(net, 5.0)
    assert take_weights(network(CIFAR), file) == ["conv1", "conv2", "conv3", "fc10"]


def test_what_was_asked_for_must_be_there(tmp_path: Path) -> None:
    file = stored(network(CIFAR, value=5.0), tmp_path / "file.safetensors")
    with pytest.raises(
        InputError, match=r"towers\.0\.fc10\.weight is \(10, 1024\), this network's is \(7, 1024\); lower"
    ):
        take_weights(network(CIFAR, classes=7), file, "fc10")
    with pytest.raises(InputError, match=r"has no towers\.0\.fc64\.weight"):
        take_weights(network("cuda-convnet-cifar-80s"), file, "fc64")
    with pytest.raises(InputError, match=r"no layer fits lenet-5; its first is called towers\.0\.c1\.weight"):
        take_weights(network("lenet-5"), file)


def test_a_file_of_another_kind_is_refused_and_not_unpickled(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    for name, content in (("text", b"weights"), ("pickle.pt", pickle.dumps(Hostile())), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as safetensors"):
            take_weights(network("lenet-5"), tmp_path / name)
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        take_weights(network("lenet-5"), tmp_path / "nowhere")
    assert not (tmp_path / "ran").exists()
