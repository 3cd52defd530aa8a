"""Settings, changed key by key, wrong ones refused before any work; and each recipe what its source says."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from alexnet.model.networks.architecture import weighted_names
from alexnet.model.networks.others import ARCHITECTURES
from alexnet.model.networks.settings import architecture_of
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Manifest, SplitCounts, read_manifest
from alexnet.tools.run.settings import RunSettings, check_fit, load_recipe, with_overrides
from alexnet.tools.settings import recipe_for, recipe_names, with_settings


def test_settings_are_converted_to_their_type() -> None:
    s = with_overrides(
        RunSettings(),
        (
            "optim.lr=2e-2",
            "train.batch_images=7",
            "train.train_accuracy=TRUE",
            "augment.lighting=off",
            "optim.lr = 0.5",
            "schedule.drop_epochs=3, 5",
            "net.arch=lenet-5",
        ),
    )
    assert (s.optim.lr, s.train.batch_images, s.train.train_accuracy, s.augment.lighting) == (0.5, 7, True, "off")
    assert (s.schedule.drop_epochs, s.net.arch) == ((3, 5), "lenet-5")
    assert with_overrides(s, ("schedule.drop_epochs=",)).schedule.drop_epochs == ()
    assert json.loads(json.dumps(s.as_json())) == s.as_json()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optim.lr", "must read key=value"),
        ("optim.rl=1", r"optim\.rl: no such setting; did you mean optim\.lr\?"),
        ("lr=1", r"lr: no such setting; did you mean optim\.lr\?"),
        ("train=1", "train: no such setting"),
        ("optim.lr=fast", r"optim\.lr=fast: must be a number"),
        ("train.epochs=1.5", r"train\.epochs=1\.5: must be a whole number"),
        ("train.epochs=0", r"train\.epochs=0: must be at least 1"),
        ("train.train_accuracy=2", "must be true or false"),
        ("init.kind=zeros", r"init\.kind=zeros: must be one of paper, he"),
        ("init.kind=papr", r"init\.kind=papr: must be one of .*; did you mean paper\?"),
        ("augment.lighting=measurd", r"augment\.lighting=measurd: .*; did you mean measured\?"),
        ("net.arch=lenet", r"net\.arch=lenet: must be one of .*; did you mean lenet-5\?"),
        ("net.pooling=overlapping", r"net\.pooling=overlapping: must be one of drawn, disjoint"),
        ("net.channels=-1", r"net\.channels=-1: must be at least 1"),
        ("optim.lr=nan", r"optim\.lr=nan: must be a number"),
        ("optim.lr=inf", r"optim\.lr=inf: must be a number"),
        ("optim.bias_lr_scale=0", r"optim\.bias_lr_scale=0\.0: must be above 0"),
        ("optim.bias_decay=yes", r"optim\.bias_decay=yes: must be true or false"),
        ("schedule.drop_epochs=5,3", r"schedule\.drop_epochs=5,3: must be numbers from 1 on"),
        ("schedule.drop_epochs=0", r"schedule\.drop_epochs=0: must be numbers from 1 on"),
        ("schedule.drop_epochs=x", r"schedule\.drop_epochs=x: must be whole numbers with commas"),
        ("train.views=5", r"train\.views=5: must be one of 1, 10"),
        ("schedule.warmup_steps=-1", r"schedule\.warmup_steps=-1: must not be negative"),
        ("schedule.kind=cosin", r"schedule\.kind=cosin: .*; did you mean cosine\?"),
        ("stream.threads=-1", r"threads=-1: must be at least 0"),
        ("net.classes=5", "cannot be set"),
        ("optim.lr=-1", r"optim\.lr=-1\.0: must be"),
        ("net.dropout=1", r"net\.dropout=1\.0: must be"),
        # as a recipe's TOML has them
        (("optim.lr", "fast"), r"optim\.lr=fast: must be a number"),
        (("optim.lr", True), r"optim\.lr=True: must be a number"),
        (("optim.lr", [0.1]), r"optim\.lr=\[0\.1\]: must be a number"),
        (("train.epochs", True), r"train\.epochs=True: must be a whole number"),
        (("train.epochs", 2.0), r"train\.epochs=2\.0: must be a whole number"),
        (("net.arch", 5), r"net\.arch=5: must be text"),
        (("net.pooling", 5), r"net\.pooling=5: must be one of drawn, disjoint"),
        (("schedule.drop_epochs", 5), r"schedule\.drop_epochs=5: must be whole numbers with commas"),
        (("schedule.drop_epochs", [1.5]), r"schedule\.drop_epochs=\[1\.5\]: must be whole numbers"),
        (("optim", {"lr": 1}), "optim: no such setting"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(assignment: str | tuple[str, object], message: str) -> None:
    change: Any = with_overrides if isinstance(assignment, str) else with_settings
    with pytest.raises(InputError, match=message) as error:
        change(load_recipe("small"), [assignment])
    assert "\n" not in str(error.value)


def stored_at(manifest: Manifest, size_px: int) -> Manifest:
    return dataclasses.replace(manifest, settings={**manifest.settings, "size_px": size_px})


@pytest.mark.parametrize(
    ("recipe", "size_px"),
    [("paper", 256), ("small", 256), ("alexnet-owt", 256), ("lenet-5", 28), ("lenet-5", 32), ("figure-1-tanh", 32)],
)
def test_a_recipe_fits_data_of_its_size(ci_100: Path, recipe: str, size_px: int) -> None:
    check_fit(load_recipe(recipe), stored_at(read_manifest(ci_100), size_px))


@pytest.mark.parametrize(
    ("recipe", "assignments", "size_px", "message"),
    [
        (
            "lenet-5",
            (),
            256,
            r"lenet-5: takes images stored at 28 or 32 px, .* 256 px; `alexnet-prep .* --size 28` makes",
        ),
        ("cuda-convnet-cifar", (), 28, r"stored at 32 px, .*`alexnet-prep shard SOURCE --size 32` makes them"),
        ("paper", ("augment.crop_px=200",), 256, r"crop_px=200: alexnet-2012 takes 224 px; --set augment\.crop_px=224"),
        ("alexnet-owt", ("augment.crop_px=62",), 256, r"augment\.crop_px=62: alexnet-owt takes 63 px or more"),
        ("paper", ("net.channels=2",), 256, r"net\.channels=2: must be 3, or 1"),
        (
            "paper",
            ("init.kind=cuda-convnet",),
            256,
            r"init\.kind=cuda-convnet: has no values for conv4, .* alexnet-2012",
        ),
        ("paper", ("init.up_to=conv6",), 256, r"init\.up_to=conv6: .* conv1, .*; did you mean conv5\?"),
        ("paper", ("schedule.drop_epochs=5",), 256, r"schedule\.drop_epochs=5: says nothing to schedule\.kind=plateau"),
        ("paper", ("train.seed=-1",), 256, r"train\.seed=-1: must be at least 0 and below 4294967296"),
        ("paper", ("train.seed=4294967296",), 256, r"train\.seed=4294967296: must be"),
        ("lenet-5", ("net.response_norm=off",), 28, r"net\.response_norm=off: lenet-5 has none"),
    ],
)
def test_what_does_not_go_together_is_refused(
    ci_100: Path, recipe: str, assignments: tuple[str, ...], size_px: int, message: str
) -> None:
    settings = with_overrides(load_recipe(recipe), assignments)
    with pytest.raises(InputError, match=message) as error:
        check_fit(settings, stored_at(read_manifest(ci_100), size_px))
    assert "\n" not in str(error.value)


def test_plateau_needs_validation_images(ci_100: Path) -> None:
    manifest = read_manifest(ci_100)
    none = SplitCounts(input=0, written=0, rejected=0)
    without = dataclasses.replace(manifest, counts={**manifest.counts, "val": none})
    check_fit(load_recipe("small"), without)
    with pytest.raises(InputError, match=r"schedule\.kind=plateau: .*--set schedule\.kind=linear-tail"):
        check_fit(load_recipe("paper"), without)


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
    drawing = architecture_of(s.net)
    drawing.check_px(s.augment.crop_px)
    s.init.check(drawing.name, weighted_names(drawing))
    if drawing.shards_px:
        assert s.augment.crop_px in drawing.shards_px


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_network_has_a_recipe(arch: str) -> None:
    assert load_recipe(recipe_for(arch)).net.arch == arch


CIFAR_80S = {
    "net.arch": "cuda-convnet-cifar-80s",
    "init.kind": "cuda-convnet-80s",
    "optim.full_decay_scale": 7.5,
    "schedule.drop_epochs": [8],
    "train.epochs": 10,
}
SOURCE_2012 = {
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
}


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
        ("cuda-convnet-cifar-80s", "cuda-convnet-cifar", CIFAR_80S),
        ("source-2012", "paper", SOURCE_2012),
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
