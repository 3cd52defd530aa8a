"""Checkpoints: a folder a step, whole or not there.

Tensors lie in safetensors, everything else in JSON; loading unpickles nothing. A checkpoint is written under another
name and renamed when it is whole, so a folder called `step-*` is complete.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from alexnet.shards.errors import InputError

_TENSORS = "tensors.safetensors"
_PROGRESS = "progress.json"


class CheckpointError(Exception):
    """Say that a checkpoint could not be written; those before it are untouched."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Hold everything a run needs to go on: tensors by name, and what is not a tensor."""

    step: int
    tensors: dict[str, Tensor]
    progress: dict[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint, then drop all but the newest `keep`."""
    target = folder / f"step-{checkpoint.step:09d}"
    partial = folder / f".partial-{checkpoint.step:09d}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save_file({name: t.detach().contiguous() for name, t in checkpoint.tensors.items()}, partial / _TENSORS)
        with (partial / _PROGRESS).open("w") as file:
            json.dump({"step": checkpoint.step, **checkpoint.progress}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)  # half a checkpoint is of no use, and its room is needed
        raise CheckpointError(f"{target}: cannot be written ({error}); the checkpoints before it are kept") from None
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """Return a run's complete checkpoints, oldest first."""
    return sorted(folder.glob("step-*"))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint. Raises InputError if it is damaged."""
    try:
        progress = json.loads((path / _PROGRESS).read_text())
        return Checkpoint(step=progress.pop("step"), tensors=load_file(path / _TENSORS), progress=progress)
    except Exception as error:  # safetensors raises its own error class for a damaged header
        raise InputError(f"{path}: not a whole checkpoint ({error}); delete it to go on from the one before") from None
