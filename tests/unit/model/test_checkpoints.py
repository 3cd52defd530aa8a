"""Checkpoints: they come back, whole or not at all, whatever happens while they are written, and nothing is run."""

import json
import os
import pickle
import resource
import shutil
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from alexnet.model import checkpoint_writer
from alexnet.model.checkpoint import Checkpoint, CheckpointError, candidates, checkpoints, load_checkpoint, shapes
from alexnet.model.checkpoint_writer import CheckpointWriter
from alexnet.shards.errors import InputError
from tests.runs import save_checkpoint


def checkpoint(step: int) -> Checkpoint:
    tensors = {
        "net.w": torch.arange(6.0).reshape(2, 3).t(),  # not contiguous
        "net.conv": torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
        "net.half": torch.randn(3).bfloat16(),
        "net.none": torch.zeros(0, 4),
        "momentum.w": torch.full((2,), float(step)),
    }
    return Checkpoint(step=step, tensors=tensors, progress={"epoch": step // 2, "lr": 0.01, "source": {"at": [1, 2]}})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def steps(paths: list[Path]) -> list[int]:
    return [int(path.name.rpartition("-")[2]) for path in paths]


def test_a_checkpoint_comes_back_without_a_warning_and_old_ones_go(tmp_path: Path) -> None:
    """Any program reads the tensors. One process hears nothing of being one."""
    saved = {step: checkpoint(step) for step in (2, 4, 6)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in saved:
            path = save_checkpoint(tmp_path, saved[step], keep=2)
        loaded = load_checkpoint(path)
    assert names(tmp_path) == ["LATEST", "step-000000004", "step-000000006"]
    assert names(path) == ["SHA256SUMS", "progress.json", "tensors.safetensors"]
    assert (tmp_path / "LATEST").read_text() == f"{path.name}\n"
    assert (loaded.step, loaded.progress) == (6, saved[6].progress)
    assert json.loads((path / "progress.json").read_text())["step"] == 6
    for tensors in (loaded.tensors, load_file(path / "tensors.safetensors")):
        assert tensors.keys() == saved[6].tensors.keys()
        for name, tensor in saved[6].tensors.items():
            assert torch.equal(tensors[name], tensor)
            assert tensors[name].dtype == tensor.dtype
    assert shapes(path) == {name: tensor.shape for name, tensor in saved[6].tensors.items()}


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint(2), keep=1)
    mine = {"net.w": torch.zeros(3, 2)}
    assert load_checkpoint(path, mine).tensors is not mine
    assert torch.equal(mine["net.w"], checkpoint(2).tensors["net.w"])
    for wrong in ({"net.w": torch.zeros(2, 3)}, {"net.other": torch.zeros(1)}):
        with pytest.raises(InputError, match="not a whole checkpoint"):
            load_checkpoint(path, wrong)


class Gate:
    """Stand in for the writing of a file: begin, and wait to be let through."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, *arguments: Any, **options: Any) -> None:
        self.reached.set()
        assert self.open.wait(60)
        save_file(*arguments, **options)


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is what was there at the call; the next call, and the end, wait."""
    gate = Gate()
    monkeypatch.setattr(checkpoint_writer, "save_file", gate)
    writer, weights, progress = CheckpointWriter(tmp_path, keep=2), torch.ones(3), {"source": {"epoch": 1}}
    writer.save(Checkpoint(step=1, tensors={"net.w": weights}, progress=progress))
    assert gate.reached.wait(60)
    weights += 1  # a step of training
    progress["source"]["epoch"] += 1
    assert not checkpoints(tmp_path), "nothing is seen of it yet"
    gate.open.set()
    writer.save(Checkpoint(step=2, tensors={"net.w": weights}, progress=progress))
    assert steps(checkpoints(tmp_path))[:1] == [1]
    weights += 1
    writer.wait()
    loaded = [load_checkpoint(path) for path in checkpoints(tmp_path)]
    assert [checkpoint.tensors["net.w"][0] for checkpoint in loaded] == [1, 2]
    assert [checkpoint.progress["source"]["epoch"] for checkpoint in loaded] == [1, 2]


@contextmanager
def full_disk(size_bytes: int) -> Iterator[None]:
    """Let files grow to this size and no further, as the system itself does it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size_bytes", [300, 1600])
def test_without_room_the_checkpoint_before_stays(tmp_path: Path, size_bytes: int) -> None:
    """The tensors do not fit, or only they do; the error comes with the next call and the room is given back."""
    save_checkpoint(tmp_path, checkpoint(2), keep=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    larger = checkpoint(4)
    larger.progress["source"] = list(range(1000))
    writer = CheckpointWriter(tmp_path, keep=1)
    with full_disk(size_bytes):
        writer.save(larger)
        with pytest.raises(CheckpointError, match=r"step-000000004: cannot be written \(.*before it are kept"):
            writer.save(larger)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert names(tmp_path) == ["LATEST", "step-000000002"]
    writer.save(larger)
    writer.wait()
    assert names(tmp_path) == ["LATEST", "step-000000004"]


def test_a_folder_that_vanished_is_not_made_anew(tmp_path: Path) -> None:
    """Below a disk that was unmounted lies another."""
    with pytest.raises(CheckpointError, match=r"step-000000002: cannot be written \(.*the run's folder is gone"):
        save_checkpoint(tmp_path / "checkpoints", checkpoint(2), keep=1)
    assert names(tmp_path) == []


def test_storage_that_is_not_shared_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process on another machine wrote its share, but not to where the first process looks."""
    monkeypatch.setattr(checkpoint_writer, "_sha256", lambda _, file: file.unlink())
    with pytest.raises(CheckpointError, match=r"tensors\.safetensors is not there: .* storage that all machines share"):
        save_checkpoint(tmp_path, checkpoint(2), keep=1)
    assert names(tmp_path) == []


def test_what_a_killed_run_left_behind_is_not_seen_and_goes(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(2), keep=2)
    left = tmp_path / ".partial-000000004"
    left.mkdir()
    (left / "tensors-00001-of-00002.safetensors").write_bytes(b"half")
    assert steps(candidates(tmp_path)) == [2]
    path = save_checkpoint(tmp_path, checkpoint(4), keep=2)
    assert names(tmp_path) == ["LATEST", "step-000000002", "step-000000004"]
    assert names(path) == ["SHA256SUMS", "progress.json", "tensors.safetensors"]


def test_latest_says_where_to_begin_and_later_ones_stay(tmp_path: Path) -> None:
    """Someone who takes a run back to an earlier checkpoint loses none, and none of the new ones to old ones."""
    for step in (2, 4, 6):
        save_checkpoint(tmp_path, checkpoint(step), keep=3)
    (tmp_path / "LATEST").write_text("step-000000002")
    assert steps(candidates(tmp_path)) == [2, 6, 4]
    save_checkpoint(tmp_path, checkpoint(3), keep=1)
    assert steps(checkpoints(tmp_path)) == [3, 4, 6]
    (tmp_path / "LATEST").write_bytes(b"step-000000099")
    assert steps(candidates(tmp_path)) == [6, 4, 3]


class Hostile:
    """Make a folder when unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    """The engine's usual `.metadata` is a pickle, and so are `.bin`, `.pt` and `.distcp` files: none is opened."""
    path, trace = save_checkpoint(tmp_path, checkpoint(2), keep=1), tmp_path / "trace"
    attack = pickle.dumps(Hostile(trace))
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickle.dumps(Hostile(tmp_path / "no" / "such")))  # the attack would work
    for name in (".metadata", "__0_0.distcp", "pytorch_model.bin", "model.safetensors.index.json", "tensors.pt"):
        (path / name).write_bytes(attack)
    assert torch.equal(load_checkpoint(path).tensors["net.w"], checkpoint(2).tensors["net.w"])
    for name in ("tensors.safetensors", "progress.json", "more.safetensors"):
        other = Path(shutil.copytree(path, tmp_path / f"step-{name}"))
        (other / name).write_bytes(attack)
        with pytest.raises(InputError):
            load_checkpoint(other)
    save_checkpoint(tmp_path, checkpoint(2), keep=1)
    assert not trace.exists()
