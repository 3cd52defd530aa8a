"""Have the trainer take steps when it is told to, and tell forward, backward and update apart.

The steps are `Trainer.train`'s own, with its metrics: what is measured is what a run does. It runs in a thread, and its
source of batches holds it back between rounds. The parts are seen from outside: a hook before and after the network's
forward pass, and a clock around the update; a captured graph shows none of them.
"""

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from alexnet.model.metrics import Metrics
from alexnet.model.trainer import Trainer

PARTS = ("forward", "backward", "update")
Batch = tuple[Tensor, Tensor]
_LOOK_SECONDS = 0.2


class HeldSource:
    """Yield batches without an end, as many as are let pass. `waited_seconds`: until batches came."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self.allowed, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.waited_seconds = 0.0

    @property
    def images(self) -> int:
        """There is no end: a number that no run reaches."""
        return 1 << 40

    def __len__(self) -> int:
        return 1 << 30

    def __iter__(self) -> Iterator[Batch]:
        """Wait until a step is wanted; note when the one before is over, which is when the next batch is asked for."""
        while True:
            self.allowed.acquire()
            asked = time.perf_counter()
            batch = next(self._batches)
            self.waited_seconds += time.perf_counter() - asked
            yield batch
            self.done.release()

    def seek(self, epoch: int, step: int) -> None:
        """There is nowhere to go."""

    def state(self) -> dict[str, Any]:
        """There is nothing to come back to."""
        return {}

    def resume(self, state: dict[str, Any]) -> None:
        """Nothing is ever taken up again."""

    def close(self) -> None:
        """There are no threads."""


class SteppedTrainer:
    """Run a trainer in a thread, some steps at a time. `threads`: of the CPU, for its operators."""

    def __init__(self, trainer: Trainer, batches: Iterator[Batch], threads: int) -> None:
        self._trainer, self._threads = trainer, threads
        self.source = HeldSource(batches)
        self.parts = StepParts(trainer)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()

    def run(self, steps: int) -> None:
        """Take so many steps and wait until the device is done with them. Raises what the trainer raised."""
        self.source.allowed.release(steps)
        for _ in range(steps):
            while not self.source.done.acquire(timeout=_LOOK_SECONDS):
                if self._error:
                    raise self._error
                assert self._thread.is_alive(), "a source without end keeps the trainer at work"
        synchronise(self._trainer.placement.device)

    def _train(self) -> None:
        torch.set_num_threads(self._threads)  # OpenMP keeps a number for each thread that calls it
        if self._trainer.placement.device.index is not None:  # one GPU of several; a thread begins at the first
            torch.cuda.set_device(self._trainer.placement.device)
        try:
            self._trainer.train(self.source, self.source, Metrics([]), lambda _: None)
        except BaseException as error:  # told to whoever waits for the steps
            self._error = error


class StepParts:
    """Add up what the parts of steps took: on a GPU by its own clock, else by the CPU's."""

    def __init__(self, trainer: Trainer) -> None:
        self._cuda = trainer.placement.device.type == "cuda"
        self._marks: list[Any] = []
        self._steps: list[list[Any]] = []
        trainer.net.register_forward_pre_hook(lambda *_: self._begin())
        trainer.net.register_forward_hook(lambda *_: self._mark())
        update = trainer.optim.step

        def timed(*arguments: Any, **named: Any) -> Any:
            self._mark()
            done = update(*arguments, **named)
            self._mark()
            self._end()
            return done

        trainer.optim.step = timed  # type: ignore[method-assign]

    def take(self) -> dict[str, float] | None:
        """Return the seconds of each part of a step, over the steps since it was last asked; None if none was seen."""
        steps, self._steps = self._steps, []
        if not steps:
            return None
        spans = [[self._span(a, b) for a, b in pairwise(marks)] for marks in steps]
        return {name: sum(span[k] for span in spans) / len(spans) for k, name in enumerate(PARTS)}

    def _begin(self) -> None:
        self._marks = []
        self._mark()

    def _mark(self) -> None:
        if not self._cuda:
            self._marks.append(time.perf_counter())
        elif not torch.cuda.is_current_stream_capturing():
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)

    def _end(self) -> None:
        if len(self._marks) == len(PARTS) + 1:
            self._steps.append(self._marks)
        self._marks = []

    def _span(self, a: Any, b: Any) -> float:
        return float(a.elapsed_time(b)) / 1e3 if self._cuda else float(b - a)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
