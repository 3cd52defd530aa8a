"""Initial values from a file: by name and shape, up to a layer, and nothing half-way."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from alexnet.model.networks.build import Network, build_network
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
    with pytest.raises(
        InputError, match=r"no layer fits lenet-5; its first .* towers\.0\.c1\.weight, the file's momentum"
    ):
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


def state_of(net: Network) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in net.named_parameters()}


NUMBERS = {"epoch": 3, "best_acc1": torch.tensor(1.0), "optimizer": {"state": {0: {"momentum": torch.zeros(1)}}}}


def test_data_parallel_around_the_convolutions_alone_is_taken_out(tmp_path: Path) -> None:
    """As PyTorch's ImageNet example wraps AlexNet; here without the large layers."""
    source = network("alexnet-owt", classes=2, value=5.0)
    state = {name.replace(".", ".module.", 1): value for name, value in state_of(source).items() if "feat" in name}
    torch.save({"state_dict": state, "arch": "alexnet", **NUMBERS}, tmp_path / "checkpoint.pth.tar")
    taken = take_weights(net := network("alexnet-owt", classes=2, value=0.0), tmp_path / "checkpoint.pth.tar")
    assert list(taken.layers) == ["conv1", "conv2", "conv3", "conv4", "conv5"] == layers_that_are(net, 5.0)


@pytest.mark.parametrize(
    "wrapped", ["module.{}", "_orig_mod.module.{}", "module.model.{}", "model.{}", "backbone._orig_mod.net.{}"]
)
def test_what_wrappers_put_into_names_is_taken_out(tmp_path: Path, wrapped: str) -> None:
    """And is no part of what the values are called: the run goes on from an unwrapped file, too."""
    state = state_of(network(CIFAR, value=5.0))
    torch.save(state, tmp_path / "plain.pth")
    other = {wrapped.format(name).replace("0.conv2", "0.module.conv2"): value for name, value in state.items()}
    torch.save({**other, "other.weight": torch.zeros(1)}, tmp_path / "wrapped.pth")
    torch.save({"state_dict": other, **NUMBERS}, tmp_path / "checkpoint.pth")
    plain = take_weights(network(CIFAR), tmp_path / "plain.pth")
    for file in ("wrapped.pth", "checkpoint.pth"):
        taken = take_weights(net := network(CIFAR, value=0.0), tmp_path / file)
        assert list(taken.layers) == list(plain.layers) == layers_that_are(net, 5.0)
    assert taken.sha256 == plain.sha256


@pytest.mark.parametrize("under", [("state_dict",), ("model",), ("model_state_dict",), ("model", "state_dict")])
def test_a_state_dict_is_found_in_what_trainers_save(tmp_path: Path, under: tuple[str, ...]) -> None:
    saved: dict[str, object] = dict(state_of(network(CIFAR, value=5.0)))
    for name in reversed(under):
        saved = {name: saved, **NUMBERS}
    torch.save(saved, tmp_path / "run.pt")
    assert len(take_weights(network(CIFAR), tmp_path / "run.pt").layers) == 4


def test_which_of_several_networks_is_meant_is_not_guessed(tmp_path: Path) -> None:
    state = state_of(network(CIFAR, value=5.0))
    torch.save({"model": state, "state_dict": state}, tmp_path / "a.pt")
    torch.save(
        {f"{name}.{key}": value for name in ("student", "teacher") for key, value in state.items()}, tmp_path / "b"
    )
    torch.save({**state, **{f"module.{key}": value for key, value in state.items()}}, tmp_path / "c.pt")
    for file, said in (
        ("a.pt", "by name under one name, but has state_dict and model; write one"),
        ("b", "holds several such networks, student, teacher; give a file of one"),
        ("c.pt", r"holds towers\.0\.conv1\.weight more than once, as module\.towers\.0"),
    ):
        with pytest.raises(InputError, match=said):
            take_weights(network(CIFAR), tmp_path / file)


def test_no_layer_is_drawn_below_one_that_is_taken(tmp_path: Path) -> None:
    """And the network is left as it was."""
    five = stored(network("alexnet-2012", classes=2, value=5.0), tmp_path / "five.safetensors")
    net = network("alexnet-2012-conv6", classes=2, value=0.0)
    with pytest.raises(InputError) as refused:
        take_weights(net, five)
    assert str(refused.value) == (
        f"--init {five}: conv1, conv2, conv3, conv4, conv5, fc6, fc7, fc8 fit alexnet-2012-conv6, but conv6 would be "
        "drawn, and layers above have learnt to read others (has no towers.0.conv6.weight); --set init.up_to=conv5 "
        "takes what is below"
    )
    vgg = {"features.0.weight": torch.zeros(64, 3, 3, 3), "classifier.6.weight": torch.zeros(10, 4096)}
    torch.save({**vgg, "classifier.6.bias": torch.zeros(10)}, tmp_path / "vgg.pth")
    with pytest.raises(InputError, match=r"fc8 fit alexnet-owt, but conv1, .*, fc7 would be drawn, .*\(64, 3, 3, 3\)"):
        take_weights(network("alexnet-owt"), tmp_path / "vgg.pth")
    assert layers_that_are(net, 0.0) == list(net.weighted())


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    state = {name: value.to(torch.int8) for name, value in state_of(network(CIFAR, value=5.0)).items()}
    torch.save(state, tmp_path / "quantised.pth")
    with pytest.raises(InputError, match=r"conv1\.weight holds int8, not floating-point numbers; lower"):
        take_weights(network(CIFAR), tmp_path / "quantised.pth", "conv1")


def test_processes_that_hold_a_tower_each_take_the_same_layers(tmp_path: Path) -> None:
    """Of 3 classes the first tower has 2, as it has of 4: its part of the last layer would fit by itself."""
    file = stored(network("alexnet-2012", classes=4, value=5.0), tmp_path / "four.safetensors")
    for tower in range(2):
        net = build_network(NetSettings(arch="alexnet-2012", classes=3), (tower,))
        assert take_weights(net, file).layers == ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")


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
