"""How `alexnet-train` ends, other than well: in a line that says why, what is kept, and what to do."""

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet.model.evaluate import StopRequestedError
from alexnet.model.trainer import Trainer
from alexnet.tools.run import run_folder
from alexnet.tools.run.sinks import JsonLines
from tests.runs import LENET, at_step, failing, records, result_of, saved, train


def test_tensorboard_without_its_package_names_the_extra(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alexnet.tools.run.sinks.find_spec", lambda name: None)
    printed = train(digits, *LENET, "--tensorboard", "--out", tmp_path / "run", code=2)
    assert printed == "Error: --tensorboard: tensorboardX is not installed; pip install 'alexnet[tensorboard]'\n"
    assert not (tmp_path / "run").exists()


def test_a_run_that_diverges_ends_with_step_rate_and_the_last_good_checkpoint(digits: Path, tmp_path: Path) -> None:
    """Weight decay with such a rate multiplies weights by -499 a step: beyond what fp32 holds after some thirteen."""
    out = tmp_path / "run"
    rule = ("--set", "optim.lr=1000", "--set", "optim.weight_decay=0.5", "--set", "schedule.kind=constant")
    printed = train(digits, *LENET, *rule, "--steps", 30, "--checkpoint-every", 1, "--out", out, code=1)
    error = printed.splitlines()[-1]
    last = max(saved(out))
    assert error.startswith("Error: ")
    assert 5 < last < 20
    assert f"learning rate 1000; the last good checkpoint is that of step {last}; lower optim.lr" in error
    assert not (out / "result.json").exists()


def test_a_full_disk_under_the_records_ends_in_one_line_and_the_run_goes_on(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (digits, *LENET, "--steps", 8, "--checkpoint-every", 2, "--out", tmp_path / "run")
    with monkeypatch.context() as patched:
        full = failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        patched.setattr(JsonLines, "record", lambda self, record: record["step"] != 5 or full())
        error = train(*options, code=1).splitlines()[-1]
    assert error.startswith("Error: No space left on device; the last good checkpoint is that of step 4; make room")
    assert "continued from step 4" in train(*options)
    assert (tmp_path / "run" / "result.json").exists()


def test_storage_that_fails_ends_in_one_line(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = tmp_path / "run" / "metrics.jsonl"
    options = (digits, *LENET, "--steps", 4, "--checkpoint-every", 2, "--out", tmp_path / "run")
    train(*options)
    (tmp_path / "run" / "result.json").unlink()
    metrics.unlink()
    metrics.mkdir()
    assert train(*options, code=2).splitlines()[-1] == f"Error: {metrics}: is no regular file; move it away"
    metrics.rmdir()
    metrics.touch()
    monkeypatch.setattr(run_folder, "read_bytes", failing(OSError(errno.EIO, os.strerror(errno.EIO), str(metrics))))
    error = train(*options, code=1).splitlines()[-1]
    assert error.startswith(f"Error: {metrics}: Input/output error; the last good checkpoint is that of step 4;")


def put_deterministically() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]), accumulate=False)
    finally:
        torch.use_deterministic_algorithms(before)


NO_MEMORY = "Error: out of memory on cpu with train.batch_images=23; 8 should fit the"
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried ..."


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (failing(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")), NO_MEMORY),
        (failing(RuntimeError(ALLOCATOR)), NO_MEMORY),
        (failing(MemoryError()), NO_MEMORY),
        (put_deterministically, "Error: train.deterministic=true: put_ has no such kernel here; leave it out"),
        (failing(RuntimeError("shapes do not fit")), ""),
    ],
)
def test_what_a_step_can_end_with_is_a_line(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Any, line: str
) -> None:
    """Memory that runs out comes with a batch size that fits; what is not expected stays as it is."""
    monkeypatch.setattr(Trainer, "train_step", at_step(0, failure))
    arguments = (digits, *LENET, "--set", "train.batch_images=23", "--out", tmp_path / "run")
    if not line:
        with pytest.raises(RuntimeError, match="shapes do not fit"):
            train(*arguments)
        return
    error = train(*arguments, code=1).splitlines()[-1]
    assert error.startswith(line)
    assert (line == NO_MEMORY) == ("--set train.batch_images=8" in error)


def test_a_terminal_that_closes_leaves_a_checkpoint(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (digits, *LENET, "--epochs", 2, "--out", tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", at_step(2, lambda: signal.raise_signal(signal.SIGHUP)))
        printed = train(*arguments, code=130)
    assert printed.endswith("interrupted after step 3, saved; the same command continues\n")
    continued = train(*arguments)
    assert "continued from step 3" in continued
    assert "9 steps after 3 of an earlier call in " in continued


@pytest.mark.parametrize("module", ["alexnet.model.trainer", "alexnet.tools.run.training"])
def test_a_run_stopped_while_it_validates_goes_on_there(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """After an epoch, or at the end over more views."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    arguments = (digits, *LENET, "--epochs", 1, "--final-views", 10)
    train(*arguments, "--out", whole)
    with monkeypatch.context() as patched:
        patched.setattr(f"{module}.evaluate", failing(StopRequestedError()))
        printed = train(*arguments, "--out", parts, code=130)
    assert "interrupted after step 6, saved; the same command continues" in printed
    assert "continued from step 6" in train(*arguments, "--out", parts)
    for split in ("validation", "final_validation"):
        assert result_of(whole)[split] == result_of(parts)[split]
    assert records(whole, "val_loss") == records(parts, "val_loss")
