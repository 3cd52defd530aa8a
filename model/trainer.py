"""The loop.

It knows a network, a source of batches, an update rule and a schedule, and nothing of files of images, progress bars or
command lines. Everything that varies between machines comes from outside: placement, ranks, sources, sinks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.model.batches import BatchSource
from alexnet.model.checkpoint import Checkpoint
from alexnet.model.evaluate import Evaluation, evaluate
from alexnet.model.metrics import Metrics
from alexnet.model.networks.network import Network
from alexnet.model.optim import MomentumSGD
from alexnet.model.placement import Placement, Precision
from alexnet.model.ranks import OneProcess, Ranks
from alexnet.model.schedule import Schedule
from alexnet.shards.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settle the length and the bookkeeping of a run.

    `batch_images`: the global batch. `epochs`: passes over the data. `steps`: stop after so many instead, 0 for
    epochs. `checkpoint_every`: steps between checkpoints, 0 for each epoch. `keep_checkpoints`: newest to keep.
    `train_accuracy`: at the end, evaluate the training images, too (for small sets).
    """

    batch_images: int = 128
    epochs: int = 90
    steps: int = 0
    seed: int = 0
    precision: Precision = "auto"
    checkpoint_every: int = 0
    keep_checkpoints: int = 2
    train_accuracy: bool = False

    def __post_init__(self) -> None:
        for field, low in (("batch_images", 1), ("epochs", 1), ("steps", 0), ("checkpoint_every", 0)):
            if getattr(self, field) < low:
                raise InputError(f"train.{field}={getattr(self, field)}: must be at least {low}")
        if self.keep_checkpoints < 1:
            raise InputError(f"train.keep_checkpoints={self.keep_checkpoints}: must be at least 1")


class StopRequestedError(Exception):
    """Say that training stopped because it was asked to, after a checkpoint of the last finished step."""


def _nobody_asks() -> bool:
    return False


class Trainer:
    """Train a network that is already where it runs. `ranks`: the run's processes; each has a trainer of its own."""

    def __init__(
        self,
        net: Network,
        optim: MomentumSGD,
        schedule: Schedule,
        placement: Placement,
        settings: TrainSettings,
        total_steps: int,
        ranks: Ranks | None = None,
    ) -> None:
        self.net, self.optim, self.schedule = net, optim, schedule
        self.placement, self.settings, self.total_steps = placement, settings, total_steps
        self.ranks = ranks or OneProcess()
        self.step = 0
        self.epoch = 0
        self._forward = self.ranks.forward(net)

    def train(
        self,
        source: BatchSource,
        validation: BatchSource,
        metrics: Metrics,
        save: Callable[[Checkpoint], object],
        stop: Callable[[], bool] = _nobody_asks,
    ) -> Evaluation:
        """Train to the end from wherever the trainer and the source stand; return the last validation.

        `stop`: asked after each step; once it says yes in one process, all save and raise StopRequestedError.
        """
        self.net.train()
        while True:
            for images, labels in metrics.timed(source):
                rate = self.schedule.rate(self.step)
                loss = self._update(images, labels, rate)
                metrics.step_done(self.step, self.epoch, loss, rate, self._images_of_all(labels))
                stopping = self.ranks.any(stop()) and self.step < self.total_steps
                due = self.settings.checkpoint_every and self.step % self.settings.checkpoint_every == 0
                if due or stopping:
                    with metrics.paused():
                        save(self.checkpoint(source))
                if stopping:
                    raise StopRequestedError
                if self.step >= self.total_steps:
                    break
            with metrics.paused():
                evaluation = evaluate(self.net, validation, self.placement, self.ranks)
                self.schedule.after_epoch(1.0 - evaluation.top1)
                metrics.evaluated(self.step, self.epoch, evaluation)
                self.epoch += 1
                if not self.settings.checkpoint_every or self.step >= self.total_steps:
                    save(self.checkpoint(source))
            if self.step >= self.total_steps:
                return evaluation

    def checkpoint(self, source: BatchSource) -> Checkpoint:
        """Return everything needed to go on after the last finished step: of tensors, those that are held here."""
        tensors: dict[str, Tensor] = {f"net.{name}": p for name, p in self.net.named_parameters()}
        tensors |= {f"momentum.{name}": b for name, b in self.optim.momentum_buffers().items()}
        progress: dict[str, Any] = {
            "epoch": self.epoch,
            "rates": self.optim.rates(),
            "schedule": self.schedule.state(),
            "source": source.state(),
        }
        return Checkpoint(step=self.step, tensors=tensors, progress=progress)

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint, source: BatchSource) -> None:
        """Stand where a checkpoint was taken. Raises InputError if it belongs to another network or other data."""
        for name, parameter in self.net.named_parameters():
            stored = checkpoint.tensors.get(f"net.{name}")
            if stored is None or stored.shape != parameter.shape:
                found = "nothing" if stored is None else tuple(stored.shape)
                raise InputError(f"{name}: the checkpoint holds {found}, the network wants {tuple(parameter.shape)}")
            parameter.copy_(stored)
        prefix = "momentum."
        buffers = {name.removeprefix(prefix): t for name, t in checkpoint.tensors.items() if name.startswith(prefix)}
        self.optim.restore(buffers, checkpoint.progress["rates"])
        self.schedule.restore(checkpoint.progress["schedule"])
        source.resume(checkpoint.progress["source"])
        self.step, self.epoch = checkpoint.step, checkpoint.progress["epoch"]

    def _update(self, images: Tensor, labels: Tensor, rate: float) -> Tensor:
        """Take one step of gradient descent; return the batch's loss, still on the device."""
        layout, whole_batch = self.ranks.layout, self._images_of_all(labels)
        self.net.clock.set(self.settings.seed, self.step, layout.group_part(whole_batch).start)
        with self.placement.autocast():
            loss = F.cross_entropy(self._forward(images).float(), labels)
        loss = loss * self.ranks.weight(len(labels), whole_batch)
        loss.backward()
        self.optim.step(rate, self.schedule.first_layer())
        self.step += 1
        return self.ranks.total(loss.detach()) / layout.groups

    def _images_of_all(self, labels: Tensor) -> int:
        """Return the size of the global batch; only one group alone may have lost a sample that cannot be used."""
        return len(labels) if self.ranks.layout.groups == 1 else self.settings.batch_images
