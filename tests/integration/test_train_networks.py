"""`alexnet-train --arch`: each network on the data it is for, and a word to those who have other data."""

from pathlib import Path

import pytest

from alexnet.tools.convert.build import build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source
from tests.runs import LENET, result_of, trained


@pytest.mark.parametrize("arch", ["lenet-5", "cuda-convnet-cifar", "cuda-convnet-cifar-80s"])
def test_small_networks_train_on_small_images(arch: str, official: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "set", tmp_path / "run"
    settings = ConvertSettings(size_px=28 if arch == "lenet-5" else 32, shard_images=10, seed=7)
    build(open_source(official), data, settings)
    options = ("--arch", arch, "--device", "cpu", "--steps", 3, "--set", "train.batch_images=10", "--out", out)
    assert f"network: {arch}, " in trained(data, *options).output
    assert result_of(out)["validation"]["images"] == 7


def test_the_bundled_images_are_too_large_for_small_networks(tmp_path: Path) -> None:
    refused = trained("--arch", "lenet-5", "--out", tmp_path / "run", code=2)
    assert "`alexnet-prep shard SOURCE --size 28` makes them" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_starts_from_the_weights_of_another(digits: Path, tmp_path: Path) -> None:
    trained(digits, *LENET, "--steps", 1, "--out", tmp_path / "a")
    file = tmp_path / "a" / "checkpoints" / "step-000000001" / "tensors.safetensors"
    from_c5 = ("--init", file, "--set", "init.up_to=c5")
    printed = trained(digits, *LENET, "--steps", 1, "--out", tmp_path / "b", *from_c5).output
    assert f"initial values: c1, s2, c3, s4, c5 from {file}, others drawn" in printed


@pytest.mark.parametrize(("option", "value", "meant"), [("--arch", "lenet", "lenet-5"), ("--recipe", "papr", "paper")])
def test_names_are_spelt_out_for_those_who_miss_them(option: str, value: str, meant: str) -> None:
    assert f"did you mean {meant}?" in trained(option, value, code=2).stderr
