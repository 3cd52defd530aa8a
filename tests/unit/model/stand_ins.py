"""What a trainer needs of the world: batches from nowhere, and someone to hear and keep what it says."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from alexnet.model.checkpoint import Checkpoint
from alexnet.model.evaluate import Evaluation
from alexnet.model.metrics import Sink
from alexnet.model.placement import Placement

CPU = Placement(device=torch.device("cpu"), bf16=False, why="a test")
Batch = tuple[Tensor, Tensor]


class Batches:
    """Batches that a function makes of their number in the run: like the stream, it can stand anywhere.

    `heard`: called with a batch's place in its epoch before it is given.
    """

    def __init__(self, steps: int, images: int, make: Callable[[int], Batch]) -> None:
        self.images, self._steps, self._make = images, steps, make
        self.epoch = self.at = 0
        self.heard: Callable[[int], None] = lambda step: None

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
        while self.at < self._steps:
            batch = self._make(self.epoch * self._steps + self.at)
            self.heard(self.at)
            self.at += 1
            yield batch
        self.seek(self.epoch + 1, 0)

    def seek(self, epoch: int, step: int) -> None:
        self.epoch, self.at = epoch, step

    def state(self) -> dict[str, Any]:
        done, at = divmod(self.at, self._steps)
        return {"epoch": self.epoch + done, "step": at}

    def resume(self, state: dict[str, Any]) -> None:
        self.seek(state["epoch"], state["step"])
        self.seek(*self.state().values())  # at an epoch's end: the next one's start

    def close(self) -> None: ...


class Kept(Sink):
    """Keep what a run reports and saves."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.evaluations: list[tuple[int, int, Evaluation]] = []
        self.saved: list[Checkpoint] = []

    def record(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def evaluation(self, step: int, epoch: int, evaluation: Evaluation) -> None:
        self.evaluations.append((step, epoch, evaluation))

    def save(self, checkpoint: Checkpoint) -> None:
        self.saved.append(copy.deepcopy(checkpoint))

    @property
    def losses(self) -> list[tuple[int, float]]:
        return [(record["step"], record["loss"]) for record in self.records]
