"""Runs that are taken up again from a checkpoint of an epoch's last step."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from alexnet.model.checkpoint import checkpoints
from alexnet.tools.convert.build import build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source
from alexnet.tools.train import main as train
from tests.conftest import list_anew

STEPS_PER_EPOCH = 2  # 24 images, 12 a batch


def run(data: Path, out: Path, *more: object) -> str:
    options = (data, "--arch", "lenet-5", "--device", "cpu", "--set", "train.batch_images=12")
    called = ("--out", out, "--steps", 6, "--checkpoint-every", 2, "--keep", 9, *more)
    result = CliRunner().invoke(train, [str(option) for option in (*options, *called)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def told(out: Path) -> list[dict[str, float]]:
    """Return what a run measured, but for how fast it was."""
    names = ("step", "epoch", "loss", "lr", "grad_norm", "val_loss", "val_top1", "val_top5", "val_images")
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: record[name] for name in names if name in record} for record in records]


@pytest.mark.parametrize("earlier", [False, True])
def test_the_validation_after_the_epoch_comes_first_and_then_the_next_epoch(
    official: Path, tmp_path: Path, earlier: bool
) -> None:
    """Also from where `earlier` versions said that the stream stood: at the end of the epoch before."""
    data, whole, parts = tmp_path / "data", tmp_path / "whole", tmp_path / "parts"
    build(open_source(official), data, ConvertSettings(size_px=28, shard_images=10, seed=7))
    run(data, whole)
    shutil.copytree(whole, parts)
    (parts / "result.json").unlink()
    for path in checkpoints(parts / "checkpoints")[1:]:
        shutil.rmtree(path)
    file = checkpoints(parts / "checkpoints")[0] / "progress.json"
    progress = json.loads(file.read_text())
    source = progress["source"]
    assert (source["epoch"], source["step"], progress["validation_due"]) == (1, 0, False)
    if earlier:
        source |= {"epoch": 0, "step": STEPS_PER_EPOCH}
        file.write_text(json.dumps(progress))
        list_anew(file.parent)
    assert "continued from step 2" in run(data, parts)
    assert told(parts) == told(whole)
    ends = [checkpoints(out / "checkpoints")[-1] / "tensors.safetensors" for out in (whole, parts)]
    assert ends[0].read_bytes() == ends[1].read_bytes()
