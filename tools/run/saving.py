"""Write a run's checkpoints, and find the one to go on from.

It joins the run folder, which only the first process has, with the ranks, which all have.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from alexnet.model.batches import BatchSource
from alexnet.model.checkpoint import (
    MOMENTUM,
    NETWORK,
    PROGRESS,
    Checkpoint,
    CheckpointError,
    candidates,
    damaged,
    load_checkpoint,
    read_progress,
    shapes,
)
from alexnet.model.checkpoint_writer import CheckpointWriter
from alexnet.model.evaluate import StopRequestedError
from alexnet.model.optim import DivergedError
from alexnet.model.ranks import Ranks
from alexnet.model.trainer import SavedProgress, Trainer
from alexnet.model.weights import misfit, shapes_of
from alexnet.shards.errors import InputError
from alexnet.shards.files import of_type
from alexnet.tools.console import tell
from alexnet.tools.run.run_folder import RunFolder

_RUN = "run"


@dataclass(frozen=True, kw_only=True)
class _RunProgress:
    """Type what a run adds to a checkpoint's progress.json."""

    run: dict[str, Any]


class Saving:
    """Own the checkpoints of one run. `folder`: None in all processes but the first; `keep`: the newest to keep.

    `check`: raises InputError where the run's folder is gone, or another run's by now; with `folder`.

    As a context it waits, at its end, for what is being written. (Where a process is lost, others would wait for it in
    vain: there, it is left to the end of Python, which waits too, and to whoever ends what does not end.)
    """

    def __init__(
        self, folder: RunFolder | None, ranks: Ranks, *, keep: int, check: Callable[[], None] | None = None
    ) -> None:
        self._folder, self._ranks, self._check = folder, ranks, check
        path, self._run = ranks.of_first((folder.checkpoints.absolute(), _run_of(folder)) if folder else None)
        self._writer = CheckpointWriter(
            Path(path), keep=keep, group=ranks.group_for_a_thread(), as_stored=ranks.as_stored
        )

    def continue_from_newest(self, trainer: Trainer, source: BatchSource) -> None:
        """Go on from the newest checkpoint that is whole and this run's, as the first process sees it, if any."""
        newest = self._ranks.of_first(self._newest(trainer) if self._folder else None)
        if newest:
            path, progress = newest
            trainer.restore(self._share_of(path, progress, trainer), source)
        if self._folder:
            if newest:
                self._writer.drop_before(newest[0])
            self._folder.cut_metrics(trainer.step, trainer.epoch)
            continued = f", continued from step {trainer.step:,}" if newest else ""
            tell(f"run folder: {self._folder.path}{continued}")

    def save(self, checkpoint: Checkpoint) -> None:
        """Begin to write the whole network's checkpoint. Raises CheckpointError if the one before was not written."""
        if self._check:
            self._check()
        layout = dataclasses.asdict(self._ranks.layout)
        del layout["rank"]
        run = {**self._run, "layout": layout}
        self._writer.save(dataclasses.replace(checkpoint, progress={**checkpoint.progress, _RUN: run}))

    def __enter__(self) -> "Saving":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None or isinstance(error, StopRequestedError | DivergedError):
            self._writer.wait()
        elif isinstance(error, OSError) and self._ranks.layout.ranks == 1:  # of a log: what was begun may be whole
            with contextlib.suppress(CheckpointError):
                self._writer.wait()

    def _newest(self, trainer: Trainer) -> tuple[Path, dict[str, Any]] | None:
        """Return the checkpoint to go on from, and what is in it but tensors; say of newer ones why not from them."""
        assert self._folder is not None
        wanted = shapes_of(self._ranks.as_stored(_parameters(trainer)))
        for path in candidates(self._folder.checkpoints):
            try:
                return path, self._checked(path, wanted)
            except InputError as error:
                tell(f"checkpoint passed over: {error}", err=True)
        return None

    def _checked(self, path: Path, wanted: dict[str, torch.Size]) -> dict[str, Any]:
        """Read what is no tensor. Raises InputError if a checkpoint is damaged, or another run's."""
        progress = read_progress(path)
        try:
            run = of_type(progress, _RunProgress).run
            of_type(progress, SavedProgress)
        except ValueError as error:
            raise damaged(path, f"{PROGRESS}: {error}") from None
        for key, value in self._run.items():
            if run.get(key) != value:
                raise InputError(f"{path}: is of another run ({key} {run.get(key)!r} there, {value!r} here)")
        if why := misfit(shapes(path), wanted):
            raise InputError(f"{path}: is of another network: {why}")
        return progress

    def _share_of(self, path: Path, progress: dict[str, Any], trainer: Trainer) -> Checkpoint:
        """Read what this process holds of a checkpoint that the first one checked; of tensors, no more than that."""
        held = _parameters(trainer)
        momentum = {MOMENTUM + name.removeprefix(NETWORK): like for name, like in held.items()}
        there = shapes(path)
        mine = {name: torch.empty_like(like) for name, like in (held | momentum).items() if name in there}
        return dataclasses.replace(load_checkpoint(path, self._ranks.as_stored(mine), progress), tensors=mine)


def _parameters(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return the parameters held here, on the CPU and without values, under their names in a checkpoint."""
    return {
        NETWORK + name: torch.empty(parameter.shape, dtype=parameter.dtype)
        for name, parameter in trainer.net.named_parameters()
    }


def _run_of(folder: RunFolder) -> dict[str, Any]:
    """Return what a checkpoint must agree in with the run that goes on from it."""
    identity = folder.identity
    return {"seed": identity["train"]["seed"], "manifest": identity["data"]["manifest"]}
