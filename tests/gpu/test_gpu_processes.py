"""Several GPUs: over NCCL the same training as on one, in every layout, and its checkpoint goes on anywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two GPUs that PyTorch can use")

RELATIVE_DIFFERENCE = 1e-2
"""Sums in another order, whose factors TF32 rounds by up to 5e-4, over twelve steps; another batch, or a gradient
that is as many times too large as there are ranks, moves a loss by more."""
END_SECONDS = 600  # after which whatever was started hangs
RUN = ("--recipe", "small", "--steps", "12", "--checkpoint-every", "6", "--set", "train.batch_images=24")


def train(data: Path, out: Path, *more: object, device: str = "cuda") -> str:
    """Run the command in fp32, with kernels that give the same each time; return what it printed."""
    command = [
        sys.executable,
        "-c",
        "from alexnet.tools.train import main; main()",
        str(data),
        *RUN,
        "--device",
        device,
    ]
    settings = ("--set", "train.precision=fp32", "--set", "train.train_accuracy=false", "--deterministic")
    arguments = [*command, *settings, "--out", str(out), *map(str, more)]
    ended = subprocess.run(arguments, env=dict(os.environ), capture_output=True, text=True, timeout=END_SECONDS)
    assert ended.returncode == 0, ended.stderr
    assert "destroy_process_group" not in ended.stderr
    return ended.stdout


def losses(out: Path) -> list[float]:
    records = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if "loss" in record]


@pytest.fixture(scope="module")
def one(ci_100: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one GPU."""
    out: Path = tmp_path_factory.mktemp("one") / "run"
    train(ci_100, out)
    return out


@pytest.mark.parametrize(
    ("gpus", "parallel"), [(2, "towers"), (2, "data"), (2, "owt"), (4, "towers"), (4, "owt"), (8, "towers"), (8, "owt")]
)
def test_several_train_as_one_does(ci_100: Path, tmp_path: Path, one: Path, gpus: int, parallel: str) -> None:
    if torch.cuda.device_count() < gpus:
        pytest.skip(f"there are no {gpus} GPUs")
    printed = train(ci_100, tmp_path / "many", "--gpus", gpus, "--parallel", parallel)
    assert f"layout: {gpus} processes over NCCL" in printed
    assert losses(tmp_path / "many") == pytest.approx(losses(one), rel=RELATIVE_DIFFERENCE)


def test_a_pairs_checkpoint_goes_on_on_one(ci_100: Path, tmp_path: Path) -> None:
    train(ci_100, tmp_path / "run", "--gpus", 2)
    (tmp_path / "run" / "result.json").unlink()
    assert "continued from step 12" in train(ci_100, tmp_path / "run")
