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
    assert list(take_weights(net, file, "conv5").layers) == conv1_to_5 == layers_that_are(net, 5.0)


@pytest.mark.parametrize("prefix", ["", "net."])
def test_all_that_fits_is_taken(tmp_path: Path, prefix: str) -> None:
    """Another number of classes leaves the last layer out."""
    file = stored(network(CIFAR, value=5.0), tmp_path / "file.safetensors", prefix)
    net = network(CIFAR, classes=7)
    assert list(take_weights(net, file).layers) == ["conv1", "conv2", "conv3"] == layers_that_are(net, 5.0)
    assert take_weights(network(CIFAR), file).layers == ("conv1", "conv2", "conv3", "fc10")


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


def test_a_state_dict_is_taken_as_torch_saves_it(tmp_path: Path) -> None:
    """All of it, without the last layer where there are other classes, and up to a layer."""
    names = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    source = network("alexnet-owt", classes=4, value=5.0)
    torch.save(source.state_dict(), tmp_path / "alexnet.pth")
    same = take_weights(net := network("alexnet-owt", classes=4, value=0.0), tmp_path / "alexnet.pth")
    assert list(same.layers) == names == layers_that_are(net, 5.0)
    other = network("alexnet-owt", classes=3, value=0.0)
    assert list(take_weights(other, tmp_path / "alexnet.pth").layers) == names[:-1] == layers_that_are(other, 5.0)
    other = network("alexnet-owt", classes=3, value=0.0)
    assert list(take_weights(other, tmp_path / "alexnet.pth", "conv3").layers) == names[:3]
    assert layers_that_are(other, 5.0) == names[:3]


def test_the_format_of_a_file_does_not_change_what_it_is_called(tmp_path: Path) -> None:
    """The run's description names the values, so that it continues from the same weights in another file."""
    net = network(CIFAR, value=5.0)
    save_file({name: p.detach() for name, p in net.named_parameters()}, tmp_path / "a.safetensors")
    torch.save(dict(net.state_dict()), tmp_path / "b.pth")
    digests = {take_weights(network(CIFAR), tmp_path / name).sha256 for name in ("a.safetensors", "b.pth")}
    assert len(digests) == 1
    save_file({name: p.detach() + 1 for name, p in net.named_parameters()}, tmp_path / "a.safetensors")
    assert take_weights(network(CIFAR), tmp_path / "a.safetensors").sha256 not in digests


class Hostile:
    """Touch a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.file,))


def test_a_hostile_pickle_is_refused_and_not_unpickled(tmp_path: Path) -> None:
    trap = Hostile(tmp_path / "ran")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(trap))
    torch.save({"weight": torch.zeros(2), "trap": trap}, tmp_path / "zip.pth")
    torch.save({"trap": trap}, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    for name in ("bare.pt", "zip.pth", "legacy.pth"):
        with pytest.raises(InputError, match="holds more than tensors, and was not unpickled") as refused:
            take_weights(network("lenet-5"), tmp_path / name)
        assert str(refused.value).startswith(f"--init {tmp_path / name}: ")
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "ran").exists()
    pickle.loads((tmp_path / "bare.pt").read_bytes())
    assert (tmp_path / "ran").exists(), "the trap works"


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    torch.save({"epoch": 3, "weight": torch.zeros(2)}, tmp_path / "number.pth")
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-300])
    for name, content in (("text", b"weights"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
    for name, said in (
        ("text", "cannot be read as safetensors"),
        ("empty", "cannot be read as safetensors"),
        ("nowhere", "cannot be read"),
        ("list.pth", "is no state dict of tensors by name"),
        ("number.pth", "is no state dict of tensors by name"),
        ("cut.pth", "is damaged, or holds more than tensors"),
        (".", "is no run folder, and no whole checkpoint of one; give one"),
    ):
        with pytest.raises(InputError, match=f"^--init .*{said}"):
            take_weights(network("lenet-5"), tmp_path / name)
