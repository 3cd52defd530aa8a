"""Checkpoints, written: while training goes on, each process its share.

PyTorch's checkpoint engine plans who writes what, makes every process learn of an error in any, and lets the first
process finish. What is ours is the form on the disk (`checkpoint`) and that nothing incomplete is ever seen: tensors go
to a hidden folder, SHA256SUMS comes last, then the folder gets its name, then LATEST is replaced.
"""

import contextlib
import copy
import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import WriteResult

from alexnet.model.checkpoint import (
    LATEST,
    PARTIAL,
    PROGRESS,
    REPLACED,
    Checkpoint,
    CheckpointError,
    checkpoints,
    first_failure,
    silence_one_process,
    step_name,
)
from alexnet.model.weights import bytes_of
from alexnet.shards.files import CHECKSUMS_NAME, checksum_lines, put_on_disk, replace

_OFFSETS = "DCP_SHARDING_INFO"  # where the reader looks in a file's header for the place of a part in its whole

Tensors = dict[str, Tensor]


class CheckpointWriter:
    """Write a run's checkpoints into a folder and keep the newest `keep`, one at a time, in a thread.

    `group`: the processes that save together, the first of which finishes; None: this one alone. The group is for
    nothing else, for two threads must not share one. `as_stored`: wraps what is only a part of a whole tensor.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        group: dist.ProcessGroup | None = None,
        as_stored: Callable[[Tensors], Mapping[str, Tensor]] = dict,
    ) -> None:
        self._folder, self._keep, self._group, self._as_stored = folder, keep, group, as_stored
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._staged: Tensors = {}

    def save(self, checkpoint: Checkpoint) -> None:
        """Copy a checkpoint and begin to write it. Raises CheckpointError if the one before could not be written."""
        self.wait()
        tensors = {name: self._copied(name, tensor.detach()) for name, tensor in checkpoint.tensors.items()}
        if any(tensor.is_cuda for tensor in checkpoint.tensors.values()):
            torch.cuda.synchronize()
        copied = Checkpoint(step=checkpoint.step, tensors=tensors, progress=copy.deepcopy(checkpoint.progress))
        self._writing = self._thread.submit(self._write, copied)

    def wait(self) -> None:
        """Wait until what was begun is written. Raises CheckpointError, in every process, if it could not be."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def drop_before(self, newest: Path) -> None:
        """Drop what a run leaves that was killed before it had dropped what came before its newest checkpoint."""
        _drop_old(self._folder, newest, self._keep)

    def _copied(self, name: str, tensor: Tensor) -> Tensor:
        """Copy a tensor to where the next step will not change it: the same place for each checkpoint."""
        if name not in self._staged:
            pinned = tensor.device.type == "cuda"
            self._staged[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
        return self._staged[name].copy_(tensor, non_blocking=True)

    def _write(self, checkpoint: Checkpoint) -> None:
        target = self._folder / step_name(checkpoint.step)
        storage = _StepFolder(self._folder, checkpoint, keep=self._keep)
        stored = dict(self._as_stored(checkpoint.tensors))
        silence_one_process()
        try:
            save(stored, storage_writer=storage, process_group=self._group, no_dist=self._group is None)
        except (Exception, CheckpointException) as error:  # the latter is no Exception
            if self._group is None or dist.get_rank(self._group) == 0:
                shutil.rmtree(storage.partial, ignore_errors=True)  # of no use, and its room is needed
            raise CheckpointError(
                f"{target}: cannot be written ({first_failure(error)}); the checkpoints before it are kept"
            ) from None


class _StepFolder(HuggingFaceStorageWriter):
    """Write one checkpoint in the engine's safetensors format, under our names, and complete it.

    The engine's own writing of a file makes two copies of its tensors in memory and holds Python's lock for 1.5 s of
    the 3.0 it takes for 480 MB; `save_file` takes 1.3 s and holds the lock for 3 ms, so that training goes on.
    """

    def __init__(self, folder: Path, checkpoint: Checkpoint, *, keep: int) -> None:
        self.partial = folder / f"{PARTIAL}{checkpoint.step:09d}"
        super().__init__(str(self.partial), save_distributed=True)
        self._folder, self._checkpoint, self._keep = folder, checkpoint, keep

    def set_up_storage_writer(self, is_coordinator: bool, *arguments: Any, **options: Any) -> None:
        """Refuse where the run folder is gone: made anew, it could be on the disk below one that was unmounted."""
        if is_coordinator and not self._folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the run's folder is gone", str(self._folder))
        super().set_up_storage_writer(is_coordinator, *arguments, **options)

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Name the files, in the first process; what a killed run left behind goes first."""
        _drop_partial(self._folder)
        self.partial.mkdir()
        writing = [number for number, plan in enumerate(plans) if plan.items]
        names = {number: f"tensors-{place:05d}-of-{len(writing):05d}" for place, number in enumerate(writing, start=1)}
        if len(writing) == 1:
            names = {writing[0]: "tensors"}
        return [
            dataclasses.replace(plan, storage_data=f"{names.get(number)}.safetensors")
            for number, plan in enumerate(plans)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> "torch.futures.Future[list[WriteResult]]":
        """Write this process's share."""
        done: torch.futures.Future[list[WriteResult]] = torch.futures.Future()
        tensors: Tensors = {}
        offsets = {}
        for item in plan.items:
            value = planner.resolve_data(item)
            assert isinstance(value, Tensor)  # nothing else is given to the engine
            assert item.tensor_data is not None
            tensors[item.index.fqn] = value
            offsets[item.index.fqn] = {"saved_offsets": list(item.tensor_data.chunk.offsets)}
        file, sha256 = self.partial / plan.storage_data, ""
        if tensors:
            # One entry, for the library writes several in an order that varies, and equal runs shall leave equal files.
            parts = any(any(place["saved_offsets"]) for place in offsets.values())
            save_file(tensors, file, metadata={_OFFSETS: json.dumps(offsets)} if parts else {"format": "pt"})
            put_on_disk(file)
            sha256 = _sha256(tensors, file)
        done.set_result([WriteResult(item.index, 0, storage_data=(file.name, sha256)) for item in plan.items])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Mark the checkpoint as whole, in the first process, when all have written."""
        sha256: dict[str, str] = dict(result.storage_data for share in results for result in share)
        missing = [name for name in sorted(sha256) if not (self.partial / name).exists()]
        if missing:
            raise OSError(f"{missing[0]} is not there: the run folder must be on storage that all machines share")
        sizes = {name: (self.partial / name).stat().st_size for name in sorted(sha256)}
        progress = {"step": self._checkpoint.step, **self._checkpoint.progress, "files": sizes}
        text = msgspec.json.format(msgspec.json.encode(progress), indent=1)
        sha256[PROGRESS] = hashlib.sha256(text).hexdigest()
        replace(self.partial / PROGRESS, text)
        replace(self.partial / CHECKSUMS_NAME, checksum_lines(sha256))
        put_on_disk(self.partial)
        self._publish()

    def _publish(self) -> None:
        """Give the checkpoint its name, have LATEST say it, and drop old ones; whole ones vanish in one step."""
        target = self._folder / step_name(self._checkpoint.step)
        if os.path.lexists(target):  # it may be the only one: a run that is killed here goes on from it
            aside = self._folder / f"{REPLACED}{target.name.removeprefix('step-')}"
            target.rename(self._folder / f"{PARTIAL}{target.name}" if aside.exists() else aside)
        self.partial.rename(target)
        put_on_disk(self._folder)
        replace(self._folder / LATEST, f"{target.name}\n".encode())
        put_on_disk(self._folder)
        _drop_old(self._folder, target, self._keep)


def _drop_old(folder: Path, newest: Path, keep: int) -> None:
    """Drop all but the `keep` newest up to a whole one, and what is of no use any more.

    One of a later step is from before the run was taken back to an earlier one, and about to be replaced.
    """
    old = [path for path in checkpoints(folder) if path.name <= newest.name][:-keep]
    replaced = [path for path in folder.glob(f"{REPLACED}*") if path != newest]
    with contextlib.suppress(OSError):  # the next checkpoint's turn will come
        _drop_partial(folder)
        for path in (*old, *replaced):
            _remove(path.rename(folder / f"{PARTIAL}{path.name}"))  # gone in one step


def _drop_partial(folder: Path) -> None:
    for left in folder.glob(f"{PARTIAL}*"):
        _remove(left)


def _remove(path: Path) -> None:
    """Delete a checkpoint, or whatever has its name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _sha256(tensors: Tensors, file: Path) -> str:
    """Return the sha256 that a file of these tensors must have: its header's, and then the tensors' in memory.

    So what went wrong in writing is found when the file is read, and it is not read back here.
    """
    with file.open("rb") as opened:
        length = opened.read(8)
        header = opened.read(int.from_bytes(length, "little"))
    digest = hashlib.sha256(length + header)
    begins = {name: entry["data_offsets"] for name, entry in json.loads(header).items() if name != "__metadata__"}
    for name in sorted(begins, key=lambda name: begins[name]):
        digest.update(bytes_of(tensors[name]))
    return digest.hexdigest()
