"""Initial values from a file: by name and shape, up to a layer, and nothing half-way."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from alexnet.model.networks.build import Network
from alexnet.model.networks.settings import NetSettings
from alexnet.model.warm_start import WarmStart, take_weights
from alexnet.shards.errors import InputError

CIFAR = "cuda-convnet-cifar"
FIVE = ["conv1", "conv2", "conv3", "conv4", "conv5"]
NUMBERS = {"epoch": 3, "best_acc1": torch.tensor(1.0), "optimizer": {"state": {0: {"momentum": torch.zeros(1)}}}}


@torch.no_grad()
def network(arch: str, classes: int = 10, value: float = 0.0, towers: tuple[int, ...] | None = None) -> Network:
    net = Network(NetSettings(arch=arch, classes=classes), towers)
    for parameter in net.parameters():
        parameter.fill_(value)
    return net


def fives(arch: str = CIFAR, classes: int = 10, names: str = "{}") -> dict[str, Tensor]:
    """Return the parameters of a network that are all 5, under their names or with something around these."""
    return {names.format(name): p.detach() for name, p in network(arch, classes, value=5.0).named_parameters()}


def taken(file: Path, net: Network, up_to: str = "") -> WarmStart:
    """Take the weights; the layers that are said to be taken are 5 now, and others 0."""
    warm = take_weights(net, file, up_to)
    for name, modules in net.weighted().items():
        value = 5.0 if name in warm.layers else 0.0
        assert all(bool((p == value).all()) for module in modules if module for p in module.parameters()), name
    return warm


def refused(file: Path, net: Network, said: str, up_to: str = "") -> str:
    with pytest.raises(InputError, match=f"^--init {file}: [^\n]*{said}") as error:
        take_weights(net, file, up_to)
    assert not any(bool(p.any()) for p in net.parameters()), "the network is left as it was"
    return str(error.value)


@pytest.fixture(scope="module")
def of_2012(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network of 2012 with 4 classes, in a file."""
    file: Path = tmp_path_factory.mktemp("2012") / "four.safetensors"
    save_file(fives("alexnet-2012", 4), file)
    return file


@pytest.mark.parametrize("names", ["{}", "net.{}"])
def test_all_that_fits_is_taken_by_name_and_shape(tmp_path: Path, names: str) -> None:
    """Another number of classes leaves the last layer out; a checkpoint's momentum is none of it."""
    file = tmp_path / "file.safetensors"
    save_file({**fives(names=names), "momentum.whatever": torch.zeros(1)}, file)
    assert taken(file, network(CIFAR)).layers == ("conv1", "conv2", "conv3", "fc10")
    assert taken(file, network(CIFAR, classes=7)).layers == ("conv1", "conv2", "conv3")
    shapes = r"towers\.0\.fc10\.weight is \(10, 1024\), this network's is \(7, 1024\); lower"
    refused(file, network(CIFAR, classes=7), shapes, "fc10")
    refused(file, network("cuda-convnet-cifar-80s"), r"has no towers\.0\.fc64\.weight", "fc64")
    first = r"momentum\.whatever" if names == "{}" else r"towers\.0\.conv1\.bias"
    refused(file, network("lenet-5"), rf"no layer fits lenet-5; its first .* towers\.0\.c1\.weight, the file's {first}")


def test_the_sixth_convolution_is_put_on_five_trained_ones(of_2012: Path) -> None:
    """No layer is drawn below one that is taken, unless it was asked to stop there."""
    said = (
        f"--init {of_2012}: conv1, conv2, conv3, conv4, conv5, fc6, fc7, fc8 fit alexnet-2012-conv6, but conv6 would "
        "be drawn, and layers above have learnt to read others (has no towers.0.conv6.weight); --set init.up_to=conv5 "
        "takes what is below"
    )
    assert refused(of_2012, net := network("alexnet-2012-conv6", 4), "conv6 would be") == said
    assert list(taken(of_2012, net, "conv5").layers) == FIVE


def test_processes_that_hold_a_tower_each_take_the_same_layers(of_2012: Path) -> None:
    """Of 3 classes the first tower has 2, as it has of 4: its part of the last layer would fit by itself."""
    for tower in range(2):
        assert [*take_weights(network("alexnet-2012", 3, towers=(tower,)), of_2012).layers] == [*FIVE, "fc6", "fc7"]


def test_torchvisions_files_are_taken(tmp_path: Path) -> None:
    """Whole, up to a layer, as the ImageNet example wraps the convolutions alone; of VGG nothing fits."""
    state = fives("alexnet-owt", 2)
    torch.save(state, file := tmp_path / "alexnet.pth")
    assert [*taken(file, network("alexnet-owt", 2)).layers] == [*FIVE, "fc6", "fc7", "fc8"]
    assert [*taken(file, network("alexnet-owt", 3), "conv3").layers] == FIVE[:3]
    wrapped = {name.replace(".", ".module.", 1): value for name, value in state.items() if "feat" in name}
    torch.save({"state_dict": wrapped, "arch": "alexnet", **NUMBERS}, file)
    assert [*taken(file, network("alexnet-owt", 2)).layers] == FIVE
    vgg = {"features.0.weight": torch.zeros(64, 3, 3, 3), "classifier.6.weight": torch.zeros(10, 4096)}
    torch.save({**vgg, "classifier.6.bias": torch.zeros(10)}, file)
    refused(file, network("alexnet-owt"), r"fc8 fit alexnet-owt, but conv1, .*, fc7 would be drawn, .*\(64, 3, 3, 3\)")


@pytest.mark.parametrize(
    "names", ["module.{}", "_orig_mod.module.{}", "module.model.{}", "model.{}", "backbone._orig_mod.net.{}"]
)
def test_what_wrappers_put_into_names_is_taken_out(tmp_path: Path, names: str) -> None:
    """And is no part of what the values are called: the run goes on from an unwrapped file of any format, too."""
    save_file(fives(), tmp_path / "plain")
    other = {name.replace("0.conv2", "0.module.conv2"): value for name, value in fives(names=names).items()}
    torch.save({**other, "other.weight": torch.zeros(1)}, tmp_path / "wrapped")
    torch.save({"state_dict": other, **NUMBERS}, tmp_path / "checkpoint")
    plain, wrapped, checkpoint = (taken(tmp_path / file, network(CIFAR)) for file in ("plain", "wrapped", "checkpoint"))
    assert len(plain.layers) == len(wrapped.layers) == 4
    assert checkpoint == plain
    save_file({name: value + 1 for name, value in fives().items()}, tmp_path / "plain")
    assert take_weights(network(CIFAR), tmp_path / "plain").sha256 != plain.sha256


@pytest.mark.parametrize("under", [("model",), ("model_state_dict",), ("model", "state_dict")])
def test_a_state_dict_is_found_in_what_trainers_save(tmp_path: Path, under: tuple[str, ...]) -> None:
    saved: dict[str, object] = dict(fives())
    for name in reversed(under):
        saved = {name: saved, **NUMBERS}
    torch.save(saved, tmp_path / "run.pt")
    assert len(taken(tmp_path / "run.pt", network(CIFAR)).layers) == 4


STATE = fives()
REFUSED: dict[str, tuple[object, str]] = {
    "two state dicts": ({"model": STATE, "state_dict": STATE}, "under one name, but has state_dict and model; write"),
    "two networks": (
        {**fives(names="student.{}"), **fives(names="teacher.{}")},
        "holds several such networks, student, teacher; give a file of one",
    ),
    "one network twice": (
        {**STATE, **fives(names="module.{}")},
        r"holds towers\.0\.conv1\.weight more than once, as module\.towers\.0",
    ),
    "whole numbers": (
        {name: value.to(torch.int8) for name, value in STATE.items()},
        r"conv1\.weight holds int8, not floating-point numbers; lower",
    ),
    "a list": ([torch.zeros(2)], "is no state dict of tensors by name"),
    "a number": ({"epoch": 3, "weight": torch.zeros(2)}, "is no state dict of tensors by name"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_single_network_is_refused(tmp_path: Path, what: str) -> None:
    content, said = REFUSED[what]
    torch.save(content, tmp_path / "file")
    refused(tmp_path / "file", network(CIFAR), said, "conv1")


class Hostile:
    """Touch a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_a_hostile_pickle_is_refused_and_not_unpickled(tmp_path: Path) -> None:
    trap = Hostile(tmp_path / "ran")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(trap))
    torch.save({"weight": torch.zeros(2), "trap": trap}, tmp_path / "zip.pth")
    torch.save({"trap": trap}, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    for name in ("bare.pt", "zip.pth", "legacy.pth"):
        refused(tmp_path / name, network("lenet-5"), "holds more than tensors, and was not unpickled")
    assert not (tmp_path / "ran").exists()
    pickle.loads((tmp_path / "bare.pt").read_bytes())
    assert (tmp_path / "ran").exists(), "the trap works"


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-300])
    (tmp_path / "text").write_bytes(b"weights")
    for name, said in (
        ("text", "cannot be read as safetensors"),
        ("nowhere", "cannot be read"),
        ("cut.pth", "is damaged, or holds more than tensors"),
        (".", "is no run folder, and no whole checkpoint of one; give one"),
    ):
        refused(tmp_path / name, network("lenet-5"), said)
