"""How `alexnet-train` plans, reports and ends: on shards of 28 px and LeNet-5, whose steps take milliseconds."""

import errno
import json
import os
import signal
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from alexnet.model.evaluate import StopRequestedError
from alexnet.model.placement import make_deterministic
from alexnet.model.trainer import Trainer
from alexnet.tools.convert.build import build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source
from alexnet.tools.run import run_folder
from alexnet.tools.run.sinks import JsonLines
from alexnet.tools.train import main as train

LENET = ("--arch", "lenet-5", "--device", "cpu", "--set", "train.batch_images=4")
TORCHRUNS = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
FIGURES = {
    "step",
    "epoch",
    "loss",
    "grad_norm",
    "lr",
    "images_per_s",
    "images_per_s_median",
    "data_wait",
    "memory_mb",
    "seconds",
}


@pytest.fixture(scope="module")
def tiny(official: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training images and 7 for validation, of 3 classes and 28 px."""
    root = tmp_path_factory.mktemp("tiny") / "set"
    build(open_source(official), root, ConvertSettings(size_px=28, shard_images=10, seed=7))
    return root


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(train, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def records(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_dry_run_prints_every_setting_and_the_plan_and_writes_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = run(tiny, *LENET, "--epochs", 3, "--set", "schedule.warmup_steps=2", "--dry-run")
    lines = printed.splitlines()
    for said in ("schedule.warmup_steps = 2", "train.epochs = 3", "net.classes = 3", "augment.mirror = false"):
        assert said in lines
    out = tmp_path / "run"
    run(tiny, *LENET, "--steps", 1, "--out", out)
    settings = json.loads((out / "settings.json").read_text())
    sections = ("net", "init", "optim", "schedule", "train", "augment", "stream")
    keys = [f"{section}.{key}" for section in sections for key in settings[section]]
    assert [line.split(" = ")[0] for line in lines[: len(keys)]] == keys, "all that a run would write down"
    assert "plan: 18 steps of 4 images, 6 an epoch: 3 epochs, 72 images from 3 shards; validation of 7" in printed
    assert "layout: one process holds the network" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_dry_run_counts_what_each_of_several_processes_needs_and_sends(ci_100: Path) -> None:
    arguments = (ci_100, "--recipe", "small", "--device", "cpu", "--dry-run", "--set", "train.precision=fp32")
    printed = run(*arguments, "--gpus", 2)
    assert "layout: 2 processes over gloo" in printed
    assert "each sends" in printed
    half = 4 * (56_909_194 // 2) / 1e6
    assert f"in each process: parameters {half:,.0f}, their gradients" in printed


def test_ten_views_at_the_end_cover_the_validation_set_exactly(tiny: Path, tmp_path: Path) -> None:
    printed = run(tiny, *LENET, "--epochs", 1, "--final-views", 10, "--out", tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["validation"]["images"], result["validation"]["views"]) == (7, 1)
    assert (result["final_validation"]["images"], result["final_validation"]["views"]) == (7, 10)
    # The stored images have the crop's size: ten views are five copies of the image and five of its mirror image.
    assert "validation at the end: top-1" in printed
    assert "(7/7 images, each once, 10 views)" in printed


def test_records_hold_their_figures_and_tensorboard_draws_them(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(tiny, *LENET, "--epochs", 2, "--tensorboard", "--out", out)
    logged = [record for record in records(out) if "loss" in record]
    assert all(record.keys() == FIGURES for record in logged)
    drawn = scalars(next((out / "tensorboard").iterdir()))
    assert drawn["train/loss"] == pytest.approx({record["step"]: record["loss"] for record in logged})
    assert drawn["train/grad_norm"].keys() == drawn["train/loss"].keys()
    assert drawn["validation/top1"].keys() == {6, 12}


def test_tensorboard_hides_what_a_resumed_run_does_again(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after step 8, it goes on from the checkpoint of step 6."""
    from tensorboardX.proto.event_pb2 import SessionLog

    arguments = (tiny, *LENET, "--epochs", 2, "--tensorboard", "--out", tmp_path / "run")
    update = Trainer.train_step

    def killed(self: Trainer, *batch: Any) -> Any:
        if self.step == 8:
            raise KeyboardInterrupt
        return update(self, *batch)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", killed)
        assert "not saved" in run(*arguments, code=130)
    assert "continued from step 6" in run(*arguments)
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
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alexnet.tools.run.sinks.find_spec", lambda name: None)
    printed = run(tiny, *LENET, "--tensorboard", "--out", tmp_path / "run", code=2)
    assert printed == "Error: --tensorboard: tensorboardX is not installed; pip install 'alexnet[tensorboard]'\n"
    assert not (tmp_path / "run").exists()


def test_a_run_that_diverges_ends_with_step_rate_and_the_last_good_checkpoint(tiny: Path, tmp_path: Path) -> None:
    """Weight decay with such a rate multiplies weights by -499 a step: beyond what fp32 holds after some thirteen."""
    out = tmp_path / "run"
    rule = ("--set", "optim.lr=1000", "--set", "optim.weight_decay=0.5", "--set", "schedule.kind=constant")
    printed = run(tiny, *LENET, *rule, "--steps", 30, "--checkpoint-every", 1, "--out", out, code=1)
    error = printed.splitlines()[-1]
    saved = max(int(path.name.removeprefix("step-")) for path in (out / "checkpoints").glob("step-*"))
    assert error.startswith("Error: ")
    assert "learning rate 1000; " in error
    assert 5 < saved < 20
    assert f"the last good checkpoint is that of step {saved}; lower optim.lr" in error
    assert not (out / "result.json").exists()


def test_a_full_disk_under_the_records_ends_in_one_line_and_the_run_goes_on(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: JsonLines, record: dict[str, Any]) -> None:
        if record["step"] == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "run"
    options = (tiny, *LENET, "--steps", 8, "--checkpoint-every", 2, "--out", out)
    with monkeypatch.context() as patched:
        patched.setattr(JsonLines, "record", full)
        error = run(*options, code=1).splitlines()[-1]
    assert error.startswith("Error: No space left on device; the last good checkpoint is that of step 4; make room")
    assert "continued from step 4" in run(*options)
    assert (out / "result.json").exists()


def test_storage_that_fails_ends_in_one_line(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    options = (tiny, *LENET, "--steps", 4, "--checkpoint-every", 2, "--out", out)
    run(*options)
    (out / "result.json").unlink()
    (out / "metrics.jsonl").unlink()
    (out / "metrics.jsonl").mkdir()
    assert run(*options, code=2).splitlines()[-1] == f"Error: {out / 'metrics.jsonl'}: is no regular file; move it away"
    (out / "metrics.jsonl").rmdir()
    (out / "metrics.jsonl").touch()

    def failing(path: Path, most: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(run_folder, "read_bytes", failing)
    error = run(*options, code=1).splitlines()[-1]
    assert error.startswith(
        f"Error: {out / 'metrics.jsonl'}: Input/output error; the last good checkpoint is that of step 4;"
    )


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "the environment has no MASTER_ADDR"),
        ({"WORLD_SIZE": "2", "RANK": "first", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, "RANK=first: must be a number"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE=two: must be a number"),
        ({"RANK": "1"}, "RANK=1: the environment has no WORLD_SIZE, MASTER_ADDR, MASTER_PORT; start the processes"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2: the environment has no RANK, MASTER_ADDR, MASTER_PORT; start"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "1"}, "MASTER_PORT=1: the environment has no MASTER_ADDR; "),
        ({**TORCHRUNS, "RANK": "2"}, "RANK=2: must be at least 0 and below WORLD_SIZE=2"),
        ({**TORCHRUNS, "RANK": "-1"}, "RANK=-1: must be at least 0 and below WORLD_SIZE=2"),
        ({**TORCHRUNS, "RANK": "1", "WORLD_SIZE": "1"}, "RANK=1: must be at least 0 and below WORLD_SIZE=1"),
        ({**TORCHRUNS, "LOCAL_RANK": "2"}, "LOCAL_RANK=2: must be at least 0 and below LOCAL_WORLD_SIZE=2"),
        ({**TORCHRUNS, "LOCAL_RANK": "one"}, "LOCAL_RANK=one: must be a number"),
    ],
)
def test_half_of_torchruns_environment_is_refused(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: str
) -> None:
    for name in (*TORCHRUNS, "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert words in run(tiny, *LENET, "--parallel", "data", "--dry-run", code=2)


@pytest.mark.parametrize("environment", [{"RANK": "0"}, {"WORLD_SIZE": "1"}, {"MASTER_ADDR": "x"}, {"LOCAL_RANK": "3"}])
def test_one_process_needs_nothing_of_it(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert "one process holds the network" in run(tiny, *LENET, "--dry-run")


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried ..."),
        MemoryError(),
    ],
)
def test_out_of_memory_names_a_batch_size(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(Trainer, "train_step", fail)
    printed = run(tiny, *LENET, "--set", "train.batch_images=23", "--out", tmp_path / "run", code=1)
    error = printed.splitlines()[-1]
    assert error.startswith("Error: out of memory on cpu with train.batch_images=23; 8 should fit the")
    assert "--set train.batch_images=8" in error


def test_an_operation_that_cannot_be_deterministic_is_named(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)
        try:
            torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]), accumulate=False)
        finally:
            torch.use_deterministic_algorithms(before)

    monkeypatch.setattr(Trainer, "train_step", fail)
    printed = run(tiny, *LENET, "--out", tmp_path / "run", code=1)
    assert printed.splitlines()[-1] == "Error: train.deterministic=true: put_ has no such kernel here; leave it out"


def test_other_errors_are_not_taken_for_lack_of_memory(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Trainer, "train_step", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run(tiny, *LENET, "--out", tmp_path / "run")


def test_a_terminal_that_closes_leaves_a_checkpoint(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (tiny, *LENET, "--epochs", 2, "--out", tmp_path / "run")
    update = Trainer.train_step

    def closing(self: Trainer, *batch: Any) -> Any:
        if self.step == 2:
            signal.raise_signal(signal.SIGHUP)
        return update(self, *batch)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", closing)
        printed = run(*arguments, code=130)
    assert printed.endswith("interrupted after step 3, saved; the same command continues\n")
    continued = run(*arguments)
    assert "continued from step 3" in continued
    assert "9 steps after 3 of an earlier call in " in continued


@pytest.mark.parametrize("stop_in", ["validation", "evaluation at the end"])
def test_a_run_stopped_while_it_validates_goes_on_there(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_in: str
) -> None:
    arguments = (tiny, *LENET, "--epochs", 1, "--final-views", 10)
    run(*arguments, "--out", tmp_path / "whole")
    with monkeypatch.context() as patched:

        def told(*_: object) -> None:
            raise StopRequestedError

        module = "alexnet.model.trainer" if stop_in == "validation" else "alexnet.tools.run.training"
        patched.setattr(f"{module}.evaluate", told)
        printed = run(*arguments, "--out", tmp_path / "parts", code=130)
    assert "interrupted after step 6, saved; the same command continues" in printed
    assert "continued from step 6" in run(*arguments, "--out", tmp_path / "parts")
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "parts")]
    for split in ("validation", "final_validation"):
        assert results[0][split] == results[1][split]
    whole, parts = ([r for r in records(tmp_path / name) if "val_loss" in r] for name in ("whole", "parts"))
    assert whole == parts


def test_deterministic_runs_are_equal_and_refuse_what_is_not(tiny: Path, tmp_path: Path) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        for name in ("one", "two"):
            run(tiny, *LENET, "--epochs", 2, "--deterministic", "--out", tmp_path / name)
            assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(before)
    one, two = ([(r["step"], r.get("loss"), r.get("val_loss")) for r in records(tmp_path / n)] for n in ("one", "two"))
    assert one == two
    assert json.loads((tmp_path / "one" / "settings.json").read_text())["train"]["deterministic"] is True
    printed = run(tiny, *LENET, "--decode", "auto", "--out", tmp_path / "three", code=2)
    assert "decode='auto': went by speed" in printed


def test_deterministic_settings_leave_a_users_own_choice() -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        before = torch.are_deterministic_algorithms_enabled()
        make_deterministic()
        torch.use_deterministic_algorithms(before)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
