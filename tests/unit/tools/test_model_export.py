"""Export for torchvision: its `alexnet`, written out here, loads the file and computes the same."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn

from alexnet.model.initialise import InitSettings, initialise
from alexnet.model.networks.build import Network
from alexnet.model.networks.settings import NetSettings
from alexnet.pipeline.augment import AugmentSettings
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import read_manifest
from alexnet.tools.use.export import export
from alexnet.tools.use.predict import Predictor
from alexnet.tools.use.run_files import DataRecord
from alexnet.tools.use.trained import Trained, open_trained


@pytest.fixture(scope="module")
def owt(ci_100: Path) -> Trained:
    """A network of 10 classes with drawn values, prepared as the recipe `alexnet-owt` says."""
    net = Network(NetSettings(arch="alexnet-owt", classes=10))
    initialise(net, InitSettings(kind="he"), seed=3)
    return Trained(
        path=Path("run"),
        step=7,
        net=net.settings,
        augment=AugmentSettings(scale="unit-variance"),
        precision="fp32",
        data=DataRecord.of(read_manifest(ci_100)),
        mean_image=None,
        weights={name: p.detach() for name, p in net.named_parameters()},
    )


def torchvisions_alexnet(classes: int) -> nn.Module:
    """What torchvision 0.26 has in `alexnet(num_classes=classes)`, with its names."""
    net = nn.Module()
    net.features = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    net.classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(),
        nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
        nn.Linear(4096, classes),
    )  # fmt: skip
    return net.eval()


@torch.no_grad()
def test_torchvisions_alexnet_computes_the_same_and_the_file_is_opened_like_a_run(owt: Trained, tmp_path: Path) -> None:
    file = tmp_path / "alexnet.pth"
    export(owt, "torchvision", file)
    again = open_trained(file)
    assert again.about() == owt.about()
    state = torch.load(file, weights_only=True)
    other = torchvisions_alexnet(classes=10)
    other.load_state_dict(state, strict=True)
    for name, tensor in owt.weights.items():
        assert torch.equal(state[name], tensor)
        assert torch.equal(again.weights[name], tensor)

    feed = state._metadata["alexnet"]["feed"]
    assert (feed["resize"], feed["crop"]) == ("the shorter side to 256 px, bicubic, antialiased", "the centre, 224 px")
    square = np.asarray(Image.effect_noise((256, 256), 60).convert("RGB"))
    zero_to_one = torch.from_numpy(square[16:240, 16:240].copy()).permute(2, 0, 1).float() / 255  # ToTensor
    mean, std = (torch.tensor(feed[name])[:, None, None] for name in ("mean", "std"))
    maps = other.get_submodule("features")((zero_to_one - mean)[None] / std)
    scores = other.get_submodule("classifier")(maps.flatten(1))
    expected = scores.softmax(dim=1)[0]
    guesses = Predictor(owt, "cpu").guesses([square])[0]
    assert [guess.label for guess in guesses] == expected.argsort(descending=True)[:5].tolist()
    for guess in guesses:
        assert guess.probability == pytest.approx(float(expected[guess.label]), rel=1e-3)  # 9216 products in a sum


def test_the_metadata_of_safetensors_say_how_to_feed_the_network(owt: Trained, tmp_path: Path) -> None:
    """As JSON that any program reads, for a network of small images as it is."""
    net = Network(NetSettings(arch="lenet-5", classes=10))
    weights = {name: p.detach() for name, p in net.named_parameters()}
    small = dataclasses.replace(owt, net=net.settings, augment=AugmentSettings(crop_px=28), weights=weights)
    export(small, "safetensors", tmp_path / "lenet.safetensors")
    with safe_open(tmp_path / "lenet.safetensors", framework="np") as opened:
        about = json.loads(opened.metadata()["alexnet"])
    assert about["feed"]["mean"] == pytest.approx([mean / 255 for mean in owt.data.colour.mean])
    assert about["feed"]["std"] == pytest.approx([1 / 255] * 3), "pixels are not scaled"
    assert about["feed"]["crop"] == "the centre, 28 px"
    assert (about["net"]["arch"], about["data"]["size_px"], about["step"]) == ("lenet-5", 256, 7)
    assert about["data"]["classes"][0] == {"wnid": "n90000001", "words": "astronaut"}


@pytest.mark.parametrize(
    ("net", "augment", "said"),
    [
        ({"arch": "alexnet-2012"}, {}, "torchvision has alexnet-owt only, run is alexnet-2012"),
        ({"channels": 1}, {}, "takes 3 channels, run has 1"),
        ({"activation": "tanh"}, {}, r"trained with net\.activation=tanh"),
        ({"pooling": "disjoint"}, {}, r"net\.pooling=disjoint"),
        ({}, {"mean": "image"}, r"augment\.mean=image"),
    ],
)
def test_what_torchvision_cannot_compute_is_refused(
    owt: Trained, net: dict[str, object], augment: dict[str, object], said: str, tmp_path: Path
) -> None:
    other = dataclasses.replace(
        owt,
        net=NetSettings(**{"arch": "alexnet-owt", "classes": 10, **net}),  # type: ignore[arg-type]
        augment=AugmentSettings(**augment),  # type: ignore[arg-type]
        mean_image=np.zeros((256, 256, 3), np.float32) if augment else None,
    )
    with pytest.raises(InputError, match=f"^--to torchvision: .*{said}.*; --to safetensors takes every network$"):
        export(other, "torchvision", tmp_path / "alexnet.pth")
    assert not list(tmp_path.iterdir())


def test_weights_of_another_network_are_refused(owt: Trained) -> None:
    torn = dataclasses.replace(owt, weights={k: v for k, v in owt.weights.items() if k != "classifier.6.bias"})
    with pytest.raises(InputError, match=r"^run: is of another network than alexnet-owt: has no classifier\.6\.bias$"):
        torn.network(torch.device("cpu"))
    short = dataclasses.replace(owt, net=NetSettings(arch="alexnet-owt", classes=9))
    with pytest.raises(InputError, match=r"classifier\.6\.weight is \(10, 4096\), this"):
        short.network(torch.device("cpu"))
