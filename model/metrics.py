"""Speed, waiting, loss and memory of a run, measured at logging steps and passed to sinks."""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from alexnet.model.evaluate import Evaluation
from alexnet.model.needs import resident_bytes
from alexnet.model.optim import DivergedError

EVERY_STEP_UNTIL = 20
"""Each of the first 20 steps is logged, then every 20th: reading a loss makes the CPU wait for the device."""

_MEDIAN_OF = 1000
"""Records that the median of images/s is taken over: of 20,000 steps."""


def is_logged(step: int) -> bool:
    """Say whether a step, numbered from 1, is a logging step."""
    return step <= EVERY_STEP_UNTIL or step % EVERY_STEP_UNTIL == 0


Measured = tuple[Tensor, Tensor]
"""What was measured in a step, still on the device: the global batch's mean loss, and the norm of its whole gradient.

Weight decay is no part of the gradient.
"""


class Sink:
    """Receive what a run has to say; each kind overrides what it wants to hear."""

    def step(self, step: int) -> None:
        """Hear that a step is done; called for every step, so it must be cheap."""

    def steps_taken(self, step: int, epoch: int, how: str) -> None:
        """Hear how this process takes its steps, on a GPU, once, after its first."""

    def record(self, record: dict[str, Any]) -> None:
        """Take a logging step's record: see `Metrics`."""

    def evaluation(self, step: int, epoch: int, evaluation: Evaluation) -> None:
        """Take an epoch's validation."""

    def close(self) -> None:
        """Write what is left; may be called again."""


class Metrics:
    """Measure speed, waiting, loss and memory at logging steps and pass them to sinks.

    A record holds `step`, `epoch`, `loss`, `grad_norm`, `lr`; `images_per_s` and `data_wait` (share of the time that it
    took to get batches), which cover the steps since the record before, without validation and checkpoints; their
    `seconds`; `images_per_s_median` over the records of this process; `memory_mb`, of `memory_bytes`; and what
    `counted` returns, of the time since it was called before.
    """

    def __init__(
        self,
        sinks: list[Sink],
        memory_bytes: Callable[[], int] = resident_bytes,
        counted: Callable[[], dict[str, int]] = dict,
    ) -> None:
        self._sinks, self._memory_bytes, self._counted = sinks, memory_bytes, counted
        self._speeds: deque[float] = deque(maxlen=_MEDIAN_OF)
        self._waited = 0.0
        self._images = 0
        self._since = time.perf_counter()
        self.training_seconds = 0.0
        self.training_images = 0

    def timed(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Pass batches through, counting the time it took to get each."""
        coming = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(coming, None)
            self._waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def steps_taken(self, step: int, epoch: int, how: str) -> None:
        """Tell the sinks how steps are taken."""
        for sink in self._sinks:
            sink.steps_taken(step, epoch, how)

    def step_done(self, step: int, epoch: int, measured: Measured | None, rate: float, images: int) -> None:
        """Count a finished step, numbered from 1; if it was measured, read that and tell the sinks.

        Raises DivergedError if the loss is not finite.
        """
        self._images += images
        if measured:
            loss, grad_norm = (value.item() for value in measured)  # waits for the device
            if not math.isfinite(loss):
                raise DivergedError(f"loss is {loss}", step, rate)
            record = {"step": step, "epoch": epoch, "loss": loss, "grad_norm": grad_norm, "lr": rate, **self._pace()}
            for sink in self._sinks:
                sink.record(record)
        for sink in self._sinks:
            sink.step(step)

    def evaluated(self, step: int, epoch: int, evaluation: Evaluation) -> None:
        """Pass a validation on, if it saw images: without any there are no figures."""
        for sink in self._sinks if evaluation.images else ():
            sink.evaluation(step, epoch, evaluation)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside out of the speed."""
        entered = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - entered

    def _pace(self) -> dict[str, float]:
        """Return how fast it went since the record before, and begin anew."""
        seconds = time.perf_counter() - self._since
        self._speeds.append(self._images / seconds)
        pace = {
            "images_per_s": self._speeds[-1],
            "images_per_s_median": statistics.median(self._speeds),
            "data_wait": min(1.0, self._waited / seconds),
            "memory_mb": round(self._memory_bytes() / 1e6, 1),
            "seconds": seconds,
            **self._counted(),
        }
        self.training_seconds += seconds
        self.training_images += self._images
        self._images, self._waited, self._since = 0, 0.0, time.perf_counter()
        return pace
