"""How `alexnet-train` plans, reports and ends: on images of 28 px and LeNet-5, whose steps take milliseconds."""

import errno
import json
import os
import signal
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet.model.evaluate import StopRequestedError
from alexnet.model.placement import make_deterministic
from alexnet.model.trainer import Trainer
from alexnet.tools.run import run_folder
from alexnet.tools.run.sinks import JsonLines
from tests.runs import LENET, newest, records, result_of, train

TORCHRUNS = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
FIGURES = {
    *("step", "epoch", "loss", "grad_norm", "lr", "images_per_s", "images_per_s_median", "data_wait", "memory_mb"),
    "seconds",
}


def failing(error: BaseException) -> Any:
    def fail(*_: object) -> None:
        raise error

    return fail


def at_step(step: int, happening: Any) -> Any:
    """Return a training step before which, at one of them, something happens."""
    update = Trainer.train_step

    def stepped(self: Trainer, *batch: Any) -> Any:
        if self.step == step:
            happening()
        return update(self, *batch)

    return stepped


def test_a_dry_run_prints_every_setting_and_the_plan_and_writes_nothing(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = train(digits, *LENET, "--epochs", 3, "--set", "schedule.warmup_steps=2", "--dry-run")
    lines = printed.splitlines()
    expected = ("schedule.warmup_steps = 2", "train.epochs = 3", "net.classes = 3", "augment.mirror = false")
    assert {*expected} <= {*lines}
    train(digits, *LENET, "--steps", 1, "--out", tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    sections = ("net", "init", "optim", "schedule", "train", "augment", "stream")
    keys = [f"{section}.{key}" for section in sections for key in settings[section]]
    assert [line.split(" = ")[0] for line in lines[: len(keys)]] == keys, "all that a run would write down"
    assert "plan: 18 steps of 4 images, 6 an epoch: 3 epochs, 72 images from 3 shards; validation of 7" in printed
    assert "layout: one process holds the network" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_dry_run_counts_what_each_of_several_processes_needs_and_sends(ci_100: Path) -> None:
    options = ("--recipe", "small", "--device", "cpu", "--dry-run", "--set", "train.precision=fp32", "--gpus", 2)
    printed = train(ci_100, *options)
    half = 4 * (56_909_194 // 2) / 1e6
    for said in ("2 processes over gloo", "each sends", f"in each process: parameters {half:,.0f}, their gradients"):
        assert said in printed


def test_every_option_that_is_a_setting_sets_it(digits: Path) -> None:
    """Under its shorter name; `--set` comes after it."""
    options = {
        "--epochs": ("train.epochs", 3),
        "--steps": ("train.steps", 7),
        "--seed": ("train.seed", 5),
        "--checkpoint-every": ("train.checkpoint_every", 2),
        "--keep": ("train.keep_checkpoints", 4),
        "--final-views": ("train.final_views", 10),
        "--decode": ("stream.decode", "host"),
        "--lighting": ("augment.lighting", "off"),
    }
    given = [part for option, (_, value) in options.items() for part in (option, value)]
    lines = train(digits, *LENET, *given, "--deterministic", "--set", "train.seed=6", "--dry-run").splitlines()
    settings = {**dict(options.values()), "net.arch": "lenet-5", "train.deterministic": "true", "train.seed": 6}
    assert {f"{key} = {value}" for key, value in settings.items()} <= {*lines}


def test_ten_views_at_the_end_cover_the_validation_set_exactly(digits: Path, tmp_path: Path) -> None:
    """The stored images have the crop's size: ten views are five copies of the image and five of its mirror image."""
    printed = train(digits, *LENET, "--epochs", 1, "--final-views", 10, "--out", tmp_path / "run")
    result = result_of(tmp_path / "run")
    for name, views in (("validation", 1), ("final_validation", 10)):
        assert (result[name]["images"], result[name]["views"]) == (7, views)
    assert "validation at the end: top-1" in printed
    assert "(7/7 images, each once, 10 views)" in printed


def test_records_hold_their_figures_and_tensorboard_draws_them(digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(digits, *LENET, "--epochs", 2, "--tensorboard", "--out", out)
    logged = records(out, "loss")
    assert all(record.keys() == FIGURES for record in logged)
    drawn = scalars(next((out / "tensorboard").iterdir()))
    assert drawn["train/loss"] == pytest.approx({record["step"]: record["loss"] for record in logged})
    assert drawn["train/grad_norm"].keys() == drawn["train/loss"].keys()
    assert drawn["validation/top1"].keys() == {6, 12}


def test_tensorboard_hides_what_a_resumed_run_does_again(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after step 8, it goes on from the checkpoint of step 6."""
    from tensorboardX.proto.event_pb2 import SessionLog

    arguments = (digits, *LENET, "--epochs", 2, "--tensorboard", "--out", tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", at_step(8, failing(KeyboardInterrupt())))
        assert "not saved" in train(*arguments, code=130)
    assert "continued from step 6" in train(*arguments)
    first, second = sorted((tmp_path / "run" / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert scalars(first)["train/loss"].keys() == set(range(1, 9))
    assert scalars(second)["train/loss"].keys() == set(range(7, 13))
    starts = [event.step for event in events(second) if event.session_log.status == SessionLog.START]
    assert starts == [7], "what TensorBoard takes for the step from which older events do not count"


def events(file: Path) -> list[Any]:
    """Read an event file: length, checksum, event, checksum, time and again."""
    from tensorboardX.proto.event_pb2 import Event

    content, read = file.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        read.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return read


def scalars(file: Path) -> dict[str, dict[int, float]]:
    read: dict[str, dict[int, float]] = {}
    for event in events(file):
        for value in event.summary.value:
            read.setdefault(value.tag, {})[event.step] = value.simple_value
    return read


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
    saved = int(newest(out).name.removeprefix("step-"))
    assert error.startswith("Error: ")
    assert 5 < saved < 20
    assert f"learning rate 1000; the last good checkpoint is that of step {saved}; lower optim.lr" in error
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


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "the environment has no MASTER_ADDR"),
        ({"WORLD_SIZE": "2", "RANK": "first", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, "RANK=first: must be a number"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE=two: must be a number"),
        ({"RANK": "1"}, "RANK=1: the environment has no WORLD_SIZE, MASTER_ADDR, MASTER_PORT; start the processes"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2: the environment has no RANK, MASTER_ADDR, MASTER_PORT; start"),
        ({**TORCHRUNS, "RANK": "2"}, "RANK=2: must be at least 0 and below WORLD_SIZE=2"),
        ({**TORCHRUNS, "RANK": "-1"}, "RANK=-1: must be at least 0 and below WORLD_SIZE=2"),
        ({**TORCHRUNS, "RANK": "1", "WORLD_SIZE": "1"}, "RANK=1: must be at least 0 and below WORLD_SIZE=1"),
        ({**TORCHRUNS, "LOCAL_RANK": "2"}, "LOCAL_RANK=2: must be at least 0 and below LOCAL_WORLD_SIZE=2"),
        ({**TORCHRUNS, "LOCAL_RANK": "one"}, "LOCAL_RANK=one: must be a number"),
        *((alone, "") for alone in ({"RANK": "0"}, {"WORLD_SIZE": "1"}, {"MASTER_ADDR": "x"}, {"LOCAL_RANK": "3"})),
    ],
)
def test_half_of_torchruns_environment_is_refused_and_one_process_needs_nothing_of_it(
    digits: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: str
) -> None:
    for name in (*TORCHRUNS, "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    printed = train(digits, *LENET, "--parallel", "data", "--dry-run", code=2 if words else 0)
    assert (words or "one process holds the network") in printed


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


def test_deterministic_runs_are_equal_and_leave_a_users_own_choice(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        for name in ("one", "two"):
            train(digits, *LENET, "--epochs", 2, "--deterministic", "--out", tmp_path / name)
            assert torch.are_deterministic_algorithms_enabled()
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        make_deterministic()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    finally:
        torch.use_deterministic_algorithms(before)
    one, two = ([(r["step"], r.get("loss"), r.get("val_loss")) for r in records(tmp_path / n)] for n in ("one", "two"))
    assert one == two
    assert json.loads((tmp_path / "one" / "settings.json").read_text())["train"]["deterministic"] is True
    refused = train(digits, *LENET, "--decode", "auto", "--out", tmp_path / "three", code=2)
    assert "decode='auto': went by speed" in refused
