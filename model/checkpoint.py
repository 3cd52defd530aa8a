"""Checkpoints, read: what lies in a checkpoint's folder, and how it comes back.

    checkpoints/LATEST                    the name of the newest one
    checkpoints/step-000000200/
        tensors.safetensors               or tensors-00001-of-00002.safetensors ...: what each process held
        progress.json                     everything else, and the files' sizes; written last

A folder with `progress.json` and files of those sizes is whole. Any program can read the tensors with `safetensors`;
loading unpickles nothing. `checkpoint_writer` writes.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from alexnet.model.weights_file import in_utf8
from alexnet.shards.errors import InputError

PROGRESS = "progress.json"
LATEST = "LATEST"
TENSORS = "*.safetensors"


class CheckpointError(Exception):
    """Say that a checkpoint could not be written; those before it are untouched."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Hold everything a run needs to go on: tensors by name, and what is not a tensor."""

    step: int
    tensors: dict[str, Tensor]
    progress: dict[str, Any]


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run that were written to their end, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / PROGRESS).is_file())


def candidates(folder: Path) -> list[Path]:
    """Return everything that claims to be a checkpoint, in the order to try: what LATEST names, then newest first."""
    paths = sorted(folder.glob("step-*"), reverse=True)
    try:
        latest = (folder / LATEST).read_text().strip()
    except (OSError, ValueError):
        latest = ""
    return sorted(paths, key=lambda path: path.name != latest)


def step_name(step: int) -> str:
    """Return the name of a step's folder."""
    return f"step-{step:09d}"


def load_checkpoint(path: Path, wanted: Mapping[str, Tensor] | None = None) -> Checkpoint:
    """Read one checkpoint. Raises InputError if it is damaged.

    `wanted`: read these tensors only, in place; of a sharded one (DTensor) the part that belongs here. All others come
    whole and on the CPU, whatever the layout that wrote them.
    """
    progress = read_progress(path)
    tensors = _empty(path) if wanted is None else dict(wanted)
    silence_one_process()
    try:
        with in_utf8(path) as folder:
            load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    except (Exception, CheckpointException) as error:  # the latter is no Exception; safetensors has a class of its own
        raise damaged(path, first_failure(error)) from None
    return Checkpoint(step=progress.pop("step"), tensors=tensors, progress=progress)


def read_progress(path: Path) -> dict[str, Any]:
    """Read what is not a tensor, `step` included. Raises InputError unless the checkpoint is whole."""
    try:
        progress: dict[str, Any] = json.loads((path / PROGRESS).read_text())
        files = progress.pop("files")
        if not isinstance(progress["step"], int) or not isinstance(files, dict):
            raise TypeError("step is no number, or files no table")
        found = {file.name: file.stat().st_size for file in path.glob(TENSORS)}
    except FileNotFoundError:
        raise damaged(path, f"it has no {PROGRESS}, so it was not written to its end") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, f"{PROGRESS}: {type(error).__name__}: {error}") from None
    if found != files:
        raise damaged(path, f"its files are {_listed(found)}, and were {_listed(files)}")
    return progress


def shapes(path: Path) -> dict[str, torch.Size]:
    """Return the shapes of a checkpoint's tensors as a whole, from the files' headers. Raises InputError."""
    return {name: tensor.shape for name, tensor in _metadata(path).items()}


def damaged(path: Path, why: object) -> InputError:
    """Return the error that says why a folder is not a whole checkpoint."""
    return InputError(f"{path}: not a whole checkpoint ({why}); delete it to go on from the one before")


def silence_one_process() -> None:
    """Have the engine not warn that one process alone loads, or saves: to be called right before it does.

    No context of `warnings` is used for it: that would be the whole process's, and checkpoints are saved in a thread.
    """
    warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized", UserWarning)


def first_failure(error: BaseException) -> BaseException:
    """Return what really went wrong: the engine reports it by rank, inside an error of its own."""
    if isinstance(error, CheckpointException) and error.failures:
        return error.failures[min(error.failures)][0]
    return error


def _empty(path: Path) -> dict[str, Tensor]:
    return {name: torch.empty(like.shape, dtype=like.dtype) for name, like in _metadata(path).items()}


def _metadata(path: Path) -> dict[str, Tensor]:
    """Return each tensor's shape and type, as a tensor without memory."""
    try:
        with in_utf8(path) as folder:
            stored = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    except Exception as error:  # safetensors raises its own error class for a damaged header
        raise damaged(path, error) from None
    return {
        name: torch.empty(like.size, dtype=like.properties.dtype, device="meta")
        for name, like in stored.items()
        if isinstance(like, TensorStorageMetadata)
    }


def _listed(files: Any) -> str:
    return ", ".join(f"{name} of {size:,} bytes" for name, size in sorted(files.items())) or "none"
