"""Recipes: what their sources say, and each comparison one step away from what it is compared with."""

from typing import Any

import pytest

from alexnet.model.networks.architecture import weighted_names
from alexnet.model.networks.others import ARCHITECTURES
from alexnet.model.networks.settings import architecture_of
from alexnet.tools.run.recipes import recipe_for, recipe_names
from alexnet.tools.run.settings import RunSettings, load_recipe


def flat(name: str) -> dict[str, Any]:
    settings = load_recipe(name).as_json()
    return {f"{section}.{key}": value for section, values in settings.items() for key, value in values.items()}


def changes(name: str, base: str) -> dict[str, Any]:
    before = flat(base)
    return {key: value for key, value in flat(name).items() if value != before[key]}


def test_the_paper_recipe_says_what_the_paper_says() -> None:
    s = load_recipe("paper")
    assert s.net.arch == "alexnet-2012"
    assert (s.train.batch_images, s.train.epochs) == (128, 90)
    assert (s.optim.lr, s.optim.momentum, s.optim.weight_decay) == (0.01, 0.9, 0.0005)
    assert (s.optim.bias_lr_scale, s.optim.bias_lr, s.optim.bias_decay) == (1.0, "scheduled", True)
    assert (s.init.kind, s.schedule.kind, s.schedule.drops) == ("paper", "plateau", 3)
    assert (s.train.views, s.train.final_views) == (1, 10)
    assert (s.augment.crop_px, s.augment.lighting_std, s.augment.scale) == (224, 0.1, "pixel")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_fits_its_network(name: str) -> None:
    s = load_recipe(name)
    assert isinstance(s, RunSettings)
    drawing = architecture_of(s.net)
    drawing.check_px(s.augment.crop_px)
    s.init.check(drawing.name, weighted_names(drawing))
    if drawing.shards_px:
        assert s.augment.crop_px in drawing.shards_px


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_network_has_a_recipe(arch: str) -> None:
    assert load_recipe(recipe_for(arch)).net.arch == arch


@pytest.mark.parametrize(
    ("name", "base", "expected"),
    [
        ("without-lrn", "paper", {"net.response_norm": "off"}),
        ("without-overlap", "paper", {"net.pooling": "disjoint"}),
        ("without-dropout", "paper", {"net.dropout": 0.0}),
        ("without-lighting", "paper", {"augment.lighting": "off"}),
        ("one-tower", "paper", {"net.arch": "alexnet-2012-one-tower"}),
        ("conv6", "paper", {"net.arch": "alexnet-2012-conv6"}),
        ("figure-1-relu", "cuda-convnet-cifar", {"optim.weight_decay": 0.0, "train.train_accuracy": True}),
        ("figure-1-tanh", "figure-1-relu", {"net.activation": "tanh"}),
        (
            "cuda-convnet-cifar-80s",
            "cuda-convnet-cifar",
            {
                "net.arch": "cuda-convnet-cifar-80s",
                "init.kind": "cuda-convnet-80s",
                "optim.full_decay_scale": 7.5,
                "schedule.drop_epochs": [8],
                "train.epochs": 10,
            },
        ),
        (
            "source-2012",
            "paper",
            {
                "net.arch": "alexnet-2012-source",
                "init.kind": "source-2012",
                "optim.bias_lr_scale": 2.0,
                "optim.bias_lr": "constant",
                "optim.bias_decay": False,
                "schedule.kind": "run-145",
                "augment.crop_per": "32-images",
                "augment.mean": "image",
                "augment.lighting_division": True,
                "augment.lighting_epochs": 66,
            },
        ),
    ],
)
def test_a_recipe_differs_from_its_base_by_what_it_is_for(name: str, base: str, expected: dict[str, Any]) -> None:
    assert changes(name, base) == expected


def test_weight_decay_of_cuda_convnet_is_that_of_its_files() -> None:
    """wc=0.004 in the convolutions; wc=1 in fc10 of 18pct, wc=.03 in fc64 and fc10 of 80sec."""
    for name, full in (("cuda-convnet-cifar", 1.0), ("cuda-convnet-cifar-80s", 0.03)):
        optim = load_recipe(name).optim
        assert optim.weight_decay == 0.004
        assert optim.weight_decay * optim.full_decay_scale == pytest.approx(full)
