"""`alexnet-train --arch`: each network on the data it is for, and a word to those who have other data."""

from pathlib import Path

import pytest
from click.testing import Result

from alexnet.tools.convert.build import build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source
from tests.runs import LENET, result_of, trained


@pytest.fixture(scope="module", params=[28, 32])
def small_set(request: pytest.FixtureRequest, official: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training and 7 validation images of 3 classes, 28 or 32 px."""
    root: Path = tmp_path_factory.mktemp("data") / str(request.param)
    build(open_source(official), root, ConvertSettings(size_px=request.param, shard_images=10, seed=7))
    return root


@pytest.mark.parametrize("arch", ["lenet-5", "cuda-convnet-cifar", "cuda-convnet-cifar-80s"])
def test_small_networks_train_on_small_images(arch: str, small_set: Path, tmp_path: Path) -> None:
    size_px, out = int(small_set.name), tmp_path / "run"
    refused = arch != "lenet-5" and size_px == 28
    options = ("--arch", arch, "--device", "cpu", "--steps", 3, "--set", "train.batch_images=10", "--out", out)
    result = trained(small_set, *options, code=2 if refused else 0)
    if refused:
        assert f"Error: net.arch={arch}: takes images stored at 32 px, these shards hold 28 px; " in result.stderr
        assert "`alexnet-prep shard SOURCE --size 32`" in result.stderr
        assert not out.exists()
        return
    assert f"network: {arch}, " in result.output
    assert result_of(out)["validation"]["images"] == 7


def test_the_bundled_images_are_too_large_for_small_networks(tmp_path: Path) -> None:
    refused = trained("--arch", "lenet-5", "--out", tmp_path / "run", code=2)
    assert "`alexnet-prep shard SOURCE --size 28` makes them" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_starts_from_the_weights_of_another(digits: Path, tmp_path: Path) -> None:
    def one_step(out: Path, *more: object, code: int = 0) -> Result:
        return trained(digits, *LENET, "--steps", 1, "--out", out, *more, code=code)

    one_step(tmp_path / "a")
    file = tmp_path / "a" / "checkpoints" / "step-000000001" / "tensors.safetensors"
    from_c5 = one_step(tmp_path / "b", "--init", file, "--set", "init.up_to=c5")
    assert f"initial values: c1, s2, c3, s4, c5 from {file}, others drawn" in from_c5.output
    refused = one_step(tmp_path / "c", "--init", digits / "manifest.json", code=2)
    assert "cannot be read as safetensors" in refused.stderr
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(("option", "value", "meant"), [("--arch", "lenet", "lenet-5"), ("--recipe", "papr", "paper")])
def test_names_are_spelt_out_for_those_who_miss_them(option: str, value: str, meant: str) -> None:
    assert f"did you mean {meant}?" in trained(option, value, code=2).stderr
