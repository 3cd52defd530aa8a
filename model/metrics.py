"""What a run measures about itself, kept out of the loop that trains."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor

from alexnet.model.batches import BatchSource
from alexnet.model.evaluate import Evaluation

EVERY_STEP_UNTIL = 20
"""Each of the first 20 steps is logged, then every 20th: reading a loss makes the CPU wait for the device."""


class Sink(Protocol):
    """Receive what a run has to say."""

    def step(self, step: int) -> None:
        """Hear that a step is done; called for every step, so it must be cheap."""

    def record(self, record: dict[str, Any]) -> None:
        """Take a logging step's record: step, epoch, loss, lr, images_per_s, data_wait, seconds."""

    def evaluation(self, step: int, epoch: int, evaluation: Evaluation) -> None:
        """Take an epoch's validation."""


class Metrics:
    """Measure speed, waiting and loss between logging steps and pass them to sinks.

    `images_per_s` and `data_wait` (share of the time the loop stood waiting for a batch) cover the steps since the
    record before; validation and checkpoints are not part of that time.
    """

    def __init__(self, sinks: list[Sink]) -> None:
        self._sinks = sinks
        self._waited = 0.0
        self._images = 0
        self._since = time.perf_counter()
        self.training_seconds = 0.0
        self.training_images = 0

    def timed(self, source: BatchSource) -> Iterator[tuple[Tensor, Tensor]]:
        """Pass batches through, counting the time it took to get each."""
        batches = iter(source)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def step_done(self, step: int, epoch: int, loss: Tensor, rate: float, images: int) -> None:
        """Count a finished step, numbered from 1; at a logging step, read the loss and tell the sinks."""
        self._images += images
        if step <= EVERY_STEP_UNTIL or step % EVERY_STEP_UNTIL == 0:
            value = loss.item()  # waits for the device, so the clock is read after it
            seconds = time.perf_counter() - self._since
            record = {
                "step": step,
                "epoch": epoch,
                "loss": value,
                "lr": rate,
                "images_per_s": self._images / seconds,
                "data_wait": min(1.0, self._waited / seconds),
                "seconds": seconds,
            }
            for sink in self._sinks:
                sink.record(record)
            self._reset(seconds)
        for sink in self._sinks:
            sink.step(step)

    def evaluated(self, step: int, epoch: int, evaluation: Evaluation) -> None:
        """Pass a validation on."""
        for sink in self._sinks:
            sink.evaluation(step, epoch, evaluation)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside out of the speed."""
        entered = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - entered

    def _reset(self, seconds: float) -> None:
        self.training_seconds += seconds
        self.training_images += self._images
        self._images, self._waited, self._since = 0, 0.0, time.perf_counter()
