"""A whole run: it learns, it can be interrupted anywhere, and it writes down what happened."""

import hashlib
import json
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from alexnet.model.checkpoint import Checkpoint, checkpoints
from alexnet.model.checkpoint_writer import CheckpointWriter
from alexnet.tools.train import main as train


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(train, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def records(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_small_recipe_learns_the_bundled_images(ci_100: Path, tmp_path: Path) -> None:
    """The network reaches 95% on the 100 training images, seen without augmentation and dropout."""
    started = time.perf_counter()
    out = tmp_path / "run"
    output = run(ci_100, "--recipe", "small", "--device", "cpu", "--out", out)
    print(f"\ntrained in {time.perf_counter() - started:.0f} s")
    print(output)
    result = json.loads((out / "result.json").read_text())
    assert result["training"]["top1"] >= 0.95
    assert (result["training"]["images"], result["validation"]["images"]) == (100, 20)
    assert "(20/20 images, each once)" in output
    losses = [r["loss"] for r in records(out) if "loss" in r]
    assert sum(losses[-5:]) / 5 < 0.5 * losses[0]
    settings = json.loads((out / "settings.json").read_text())
    assert settings["train"]["batch_images"] == 20
    assert settings["net"]["classes"] == 10


SHORT = (
    "--recipe",
    "small",
    "--device",
    "cpu",
    "--set",
    "train.batch_images=10",
    "--set",
    "train.train_accuracy=false",
)


def weights(out: Path) -> str:
    newest = checkpoints(out / "checkpoints")[-1]
    tensors = load_file(newest / "tensors.safetensors")
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def test_an_interrupted_run_equals_one_that_was_not(
    ci_100: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 steps at once; and 12 steps, stopped after step 7 and taken up from the checkpoint of step 4."""
    arguments = (ci_100, *SHORT, "--steps", 12, "--checkpoint-every", 4)
    run(*arguments, "--out", tmp_path / "whole")

    def stop_soon(writer: CheckpointWriter, checkpoint: Checkpoint) -> None:
        if checkpoint.step == 8:
            raise KeyboardInterrupt
        save(writer, checkpoint)

    save = CheckpointWriter.save
    with monkeypatch.context() as patched:
        patched.setattr(CheckpointWriter, "save", stop_soon)
        assert "the same command continues" in run(*arguments, "--out", tmp_path / "parts", code=130)
    assert "continued from step 4" in run(*arguments, "--out", tmp_path / "parts", "--resume")

    def losses(out: Path) -> list[tuple[float, float]]:
        return [(r["step"], r["loss"]) for r in records(out) if "loss" in r]

    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert [step for step, _ in losses(tmp_path / "whole")] == list(range(1, 13)), "each of the first 20 steps is there"
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def test_every_epoch_is_validated_and_saved(ci_100: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    epochs = ("--epochs", 2, "--checkpoint-every", 0, "--set", "train.batch_images=50")
    output = run(ci_100, *SHORT, *epochs, "--out", out)
    assert [r["step"] for r in records(out) if "val_top1" in r] == [2, 4]
    assert [path.name for path in checkpoints(out / "checkpoints")] == ["step-000000002", "step-000000004"]
    for record in records(out):
        if "loss" in record:
            assert {"step", "loss", "images_per_s", "data_wait", "lr", "epoch"} <= record.keys()
            assert 0 <= record["data_wait"] <= 1
    assert "10 classes, 100 training and 20 validation images" in output
    assert "cpu" in output
    refused = CliRunner().invoke(train, list(map(str, (ci_100, *SHORT, *epochs, "--out", out))))
    assert refused.exit_code == 2
    assert "finished run" in refused.stderr
