"""Checkpoints, read: what lies in a checkpoint's folder, and how it comes back.

    checkpoints/LATEST                    the name of the newest one
    checkpoints/step-000000200/
        tensors.safetensors               or tensors-00001-of-00002.safetensors ...: what each process held
        progress.json                     everything else, and the tensor files' sizes
        SHA256SUMS                        of all these, as `sha256sum -c` checks them; written last

A folder whose files are as SHA256SUMS says is whole, and nothing of another is ever used. Any program can read the
tensors with `safetensors`; loading unpickles nothing. `checkpoint_writer` writes.
"""

import hashlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from alexnet.model.weights import in_utf8
from alexnet.shards.errors import InputError
from alexnet.shards.files import CHECKSUMS_NAME, as_typed, of_type, read_bytes, read_checksums, sha256_of

PROGRESS = "progress.json"
LATEST = "LATEST"
PARTIAL = ".partial-"  # begins the name of what is being written or deleted, and is of no use
REPLACED = ".replaced-"  # of a whole checkpoint while another of its step takes its place
FOLDERS = ("step-*", f"{PARTIAL}*", f"{REPLACED}*")
_IN_ONE = ("tensors*.safetensors", PROGRESS, CHECKSUMS_NAME)
FILES = (
    *(LATEST, f".{LATEST}.partial"),
    *(f"{folder}/{file}" for folder in FOLDERS for file in _IN_ONE),
    *(f"{folder}/.{file}.partial" for folder in FOLDERS for file in _IN_ONE),
    *(f"{folder}/.tmp??????" for folder in FOLDERS),  # what safetensors renames when it is written
)
"""Patterns of all that is made in a folder of checkpoints."""

_TENSORS = "*.safetensors"
_MAX_PROGRESS_BYTES = 1 << 24  # it has 2 kB


class CheckpointError(Exception):
    """Say that a checkpoint could not be written; those before it are untouched."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Hold everything a run needs to go on: tensors by name, and what is not a tensor."""

    step: int
    tensors: dict[str, Tensor]
    progress: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _ProgressFile:
    """Type what every progress.json has. `files`: sizes of the tensor files, by name."""

    step: Annotated[int, msgspec.Meta(ge=0)]
    files: dict[str, int]


NETWORK, MOMENTUM = "net.", "momentum."
"""What names of a checkpoint's tensors begin with: those of the network's parameters, and of the velocity of each."""

T = TypeVar("T")


def under(prefix: str, values: Mapping[str, T]) -> dict[str, T]:
    """Return what has names that begin with a prefix, under the rest of these: the network's own names."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run that were written to their end, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / PROGRESS).is_file())


def candidates(folder: Path) -> list[Path]:
    """Return everything that claims to be a checkpoint, in the order to try: what LATEST names, then newest first."""
    paths = [*folder.glob("step-*"), *folder.glob(f"{REPLACED}*")]
    try:
        latest = read_bytes(folder / LATEST, most=1000).decode().strip()
    except (OSError, ValueError):
        latest = ""
    newest_first = sorted(paths, key=lambda path: (path.name.rpartition("-")[2], path.name), reverse=True)
    return sorted(newest_first, key=lambda path: path.name != latest)


def step_name(step: int) -> str:
    """Return the name of a step's folder."""
    return f"step-{step:09d}"


def load_checkpoint(
    path: Path, wanted: Mapping[str, Tensor] | None = None, progress: Mapping[str, Any] | None = None
) -> Checkpoint:
    """Read one checkpoint. Raises InputError if it is damaged.

    `wanted`: read these tensors only, in place; of a sharded one (DTensor) the part that belongs here. All others come
    whole and on the CPU, whatever the layout that wrote them. `progress`: what `read_progress` has returned for it, in
    this process or another, so that nothing is checked a second time.
    """
    known = dict(read_progress(path) if progress is None else progress)
    silence_one_process()
    try:
        tensors = _empty(path) if wanted is None else dict(wanted)
        with in_utf8(path) as folder:
            load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    except InputError:
        raise
    except (Exception, CheckpointException) as error:  # the latter is no Exception; safetensors has a class of its own
        raise damaged(path, first_failure(error)) from None
    return Checkpoint(step=known.pop("step"), tensors=tensors, progress=known)


def read_progress(path: Path) -> dict[str, Any]:
    """Read what is not a tensor, `step` included. Raises InputError unless every byte is as it was written.

    It reads the whole checkpoint once, 456 MB in 0.5 s of one core.
    """
    try:
        sums, faults = read_checksums(path)
        if faults:
            raise ValueError(f"{CHECKSUMS_NAME}: {faults[0]}")
        text = read_bytes(path / PROGRESS, _MAX_PROGRESS_BYTES)
        _check(PROGRESS, hashlib.sha256(text).hexdigest(), sums)
        progress = as_typed(text, dict[str, Any])
        files = of_type(progress, _ProgressFile).files
        found = {file.name: file.stat().st_size for file in path.glob(_TENSORS)}
        if found != files:
            raise ValueError(f"its files are {_listed(found)}, and were {_listed(files)}")
        for name in files:
            _check(name, sha256_of(path / name), sums)
    except (FileNotFoundError, NotADirectoryError) as error:
        name = Path(error.filename).name
        older = f"; if a version without it wrote it, `sha256sum {PROGRESS} {_TENSORS} > {name}` there makes it"
        raise damaged(path, f"it has no {name}{older if name == CHECKSUMS_NAME else ''}") from None
    except (OSError, ValueError) as error:
        raise damaged(path, error) from None
    return {key: value for key, value in progress.items() if key != "files"}


def _check(name: str, sha256: str, sums: dict[str, str]) -> None:
    if sums.get(name) != sha256:
        raise ValueError(f"{name} is not as it was written, as {CHECKSUMS_NAME} shows")


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
    tensors = {name: like for name, like in stored.items() if isinstance(like, TensorStorageMetadata)}
    for name, like in tensors.items():
        if sum(math.prod(chunk.sizes) for chunk in like.chunks) != math.prod(like.size):
            raise damaged(path, f"its parts of {name} are not the whole of it")
    return {name: torch.empty(like.size, dtype=like.properties.dtype, device="meta") for name, like in tensors.items()}


def _listed(files: Any) -> str:
    return ", ".join(f"{name} of {size:,} bytes" for name, size in sorted(files.items())) or "none"
