"""Each script in examples/, stopped in the middle of an epoch and started again, ends as one that was not, bit for bit.

They train for 12 steps, 5 an epoch, on the bundled images.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS, STOP = 12, 7
Losses = dict[int, str]
Weights = dict[str, Tensor]


def run(*command: object) -> Losses:
    """Run a Python program; return the losses that it prints, to the last digit, by step."""
    told = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**told, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {int(step): loss for step, loss in re.findall(r"^step (\d+) loss (\S+)$", done.stdout, re.MULTILINE)}


def ends_alike(folder: Path, weights_in: Callable[[Path], Weights], *command: object) -> Losses:
    """Compare a whole run with one that is stopped and goes on; return the losses of the whole one."""
    whole, parts = folder / "whole", folder / "parts"
    losses = run(*command, "--steps", STEPS, "--checkpoint", whole)
    stopped = run(*command, "--steps", STOP, "--checkpoint", parts)
    resumed = run(*command, "--steps", STEPS, "--checkpoint", parts)
    assert list(losses) == [*range(1, STEPS + 1)]
    assert losses == {**stopped, **resumed}
    assert 5 < min(resumed) <= STOP + 1, "inside the second epoch, from a checkpoint"
    assert losses == {**resumed, **stopped}, "steps that were repeated are equal, too"
    expected, found = weights_in(whole), weights_in(parts)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    return losses


def net_of(file: Path) -> Weights:
    weights: Weights = torch.load(file, weights_only=True)["net"]
    return weights


def net_of_lightning(folder: Path) -> Weights:
    weights: Weights = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    return weights


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """The losses of the plain loop, which goes on bit for bit."""
    return ends_alike(tmp_path_factory.mktemp("plain"), net_of, EXAMPLES / "plain_loop.py")


def test_a_plain_loop_learns_and_goes_on_bit_for_bit(plain: Losses) -> None:
    assert float(plain[STEPS]) < float(plain[1])


@pytest.mark.slow
def test_two_processes_of_torchrun_go_on_bit_for_bit(tmp_path: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    ends_alike(tmp_path, net_of, *torchrun, EXAMPLES / "torchrun_ddp.py")


@pytest.mark.slow
def test_lightning_trains_on_the_same_batches_and_goes_on_bit_for_bit(tmp_path: Path, plain: Losses) -> None:
    pytest.importorskip("lightning", reason="lightning is not installed: pip install -e '.[examples]'")
    assert ends_alike(tmp_path, net_of_lightning, EXAMPLES / "lightning_trainer.py") == plain


# The example with epochs in the place of steps, and checkpoints as Lightning writes them by default: after an epoch.
BY_EPOCHS = """
import runpy, sys, lightning
from lightning.pytorch import callbacks
checkpoint, trainer = callbacks.ModelCheckpoint, lightning.Trainer
callbacks.ModelCheckpoint = lambda folder, **_: checkpoint(folder, save_last=True)
lightning.Trainer = lambda max_steps, **options: trainer(max_epochs=max_steps // 5, **options)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_lightning_goes_on_from_the_end_of_an_epoch_with_the_next(tmp_path: Path, plain: Losses) -> None:
    pytest.importorskip("lightning", reason="lightning is not installed: pip install -e '.[examples]'")
    command = ("-c", BY_EPOCHS, EXAMPLES / "lightning_trainer.py", "--checkpoint", tmp_path / "run", "--steps")
    losses = run(*command, 5), run(*command, 10)
    assert [list(part) for part in losses] == [[*range(1, 6)], [*range(6, 11)]]
    assert {**losses[0], **losses[1]} == {step: plain[step] for step in range(1, 11)}


@pytest.mark.slow
def test_accelerate_trains_on_the_same_batches_and_goes_on_bit_for_bit(tmp_path: Path, plain: Losses) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed: pip install -e '.[examples]'")
    name = f"step-{STEPS:07}/model.safetensors"
    assert ends_alike(tmp_path, lambda run: load_file(run / name), EXAMPLES / "accelerate_loop.py") == plain
