"""A whole run: it learns, it can be interrupted anywhere, and it writes down what happened."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alexnet.model.checkpoint import Checkpoint, checkpoints
from alexnet.model.checkpoint_writer import CheckpointWriter
from tests.runs import losses, newest, records, result_of, train


def test_small_recipe_learns_the_bundled_images(ci_100: Path, tmp_path: Path) -> None:
    """The network reaches 95% on the 100 training images, seen without augmentation and dropout."""
    out = tmp_path / "run"
    output = train(ci_100, "--recipe", "small", "--device", "cpu", "--out", out)
    result = result_of(out)
    assert result["training"]["top1"] >= 0.95
    assert (result["training"]["images"], result["validation"]["images"]) == (100, 20)
    assert "(20/20 images, each once)" in output
    logged = [loss for _, loss in losses(out)]
    assert sum(logged[-5:]) / 5 < 0.5 * logged[0]
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
    tensors = load_file(newest(out) / "tensors.safetensors")
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def test_an_interrupted_run_equals_one_that_was_not(
    ci_100: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 steps at once; and 12 steps, stopped after step 7 and taken up from the checkpoint of step 4."""
    arguments = (ci_100, *SHORT, "--steps", 12, "--checkpoint-every", 4)
    train(*arguments, "--out", tmp_path / "whole")

    def stop_soon(writer: CheckpointWriter, checkpoint: Checkpoint) -> None:
        if checkpoint.step == 8:
            raise KeyboardInterrupt
        save(writer, checkpoint)

    save = CheckpointWriter.save
    with monkeypatch.context() as patched:
        patched.setattr(CheckpointWriter, "save", stop_soon)
        assert "the same command continues" in train(*arguments, "--out", tmp_path / "parts", code=130)
    assert "continued from step 4" in train(*arguments, "--out", tmp_path / "parts", "--resume")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert [step for step, _ in losses(tmp_path / "whole")] == list(range(1, 13)), "each of the first 20 steps is there"
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def test_every_epoch_is_validated_and_saved(ci_100: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    epochs = ("--epochs", 2, "--checkpoint-every", 0, "--set", "train.batch_images=50")
    output = train(ci_100, *SHORT, *epochs, "--out", out)
    assert [r["step"] for r in records(out, "val_top1")] == [2, 4]
    assert [path.name for path in checkpoints(out / "checkpoints")] == ["step-000000002", "step-000000004"]
    assert all(0 <= record["data_wait"] <= 1 for record in records(out, "loss"))
    assert "10 classes, 100 training and 20 validation images" in output
    assert "cpu" in output
    assert "finished run" in train(ci_100, *SHORT, *epochs, "--out", out, code=2)
