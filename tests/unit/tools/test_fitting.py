"""Settings that do not go together, with each other or with the data, are refused in one line."""

import dataclasses
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Manifest, SplitCounts, read_manifest
from alexnet.tools.run.settings import check_fit, load_recipe, with_overrides


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
