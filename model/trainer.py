"""The training loop: steps, validations, checkpoints.

It knows a network, a source of batches, an update rule and a schedule, and nothing of files of images, progress bars or
command lines. Everything that varies between machines comes from outside: placement, ranks, sources, sinks.

Nothing in it waits for the device but logging steps, validations and checkpoints.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.model.batches import BatchSource
from alexnet.model.checkpoint import MOMENTUM, NETWORK, Checkpoint, under
from alexnet.model.evaluate import Evaluation, Stop, StopRequestedError, evaluate
from alexnet.model.gpu.step import FusedStep, checked_step
from alexnet.model.metrics import Measured, Metrics, is_logged
from alexnet.model.networks.build import Network
from alexnet.model.optim import DivergedError, MomentumSGD, all_finite
from alexnet.model.placement import Placement, Precision
from alexnet.model.ranks import Ranks
from alexnet.model.schedule import Schedule, ScheduleState
from alexnet.model.weights import misfit, shapes_of
from alexnet.shards.errors import InputError
from alexnet.shards.files import of_type

Save = Callable[[Checkpoint], object]


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settle the length and the bookkeeping of a run.

    `batch_images`: the global batch. `epochs`: passes over the data. `steps`: stop after so many instead, 0 for
    epochs. `checkpoint_every`: steps between checkpoints, 0 for each epoch. `keep_checkpoints`: newest to keep.
    `views`: of each validation image, 1 or the paper's 10, whose predictions are averaged; `final_views`: of the
    evaluation that ends the run. `train_accuracy`: at the end, evaluate the training images, too (for small sets).
    `deterministic`: see `placement.make_deterministic`. `capture`: on a GPU, take steps by fused kernels, in
    one process as one CUDA graph, see `gpu/step.py`; false: layer by layer.
    """

    batch_images: int = 128
    epochs: int = 90
    steps: int = 0
    seed: int = 0
    precision: Precision = "auto"
    checkpoint_every: int = 0
    keep_checkpoints: int = field(default=2, metadata={"may_differ": True})
    views: Literal[1, 10] = 1
    final_views: Literal[1, 10] = 1
    train_accuracy: bool = False
    deterministic: bool = False
    capture: bool = field(default=True, metadata={"may_differ": True})

    def __post_init__(self) -> None:
        least = {"batch_images": 1, "epochs": 1, "steps": 0, "checkpoint_every": 0, "keep_checkpoints": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(f"train.{name}={getattr(self, name)}: must be at least {low}")


@dataclass(frozen=True, kw_only=True)
class SavedProgress:
    """Hold where training stands, beside the step and the tensors, as a checkpoint has it.

    `rates`: by kind of parameter, those inside the velocity. `source`: what the source of batches resumes from.
    """

    epoch: Annotated[int, msgspec.Meta(ge=0)]
    rates: dict[str, float]
    schedule: ScheduleState
    source: dict[str, Any]
    validation_due: bool
    last_validation: Evaluation


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
        self.ranks = ranks or Ranks()
        self.step = 0
        self.epoch = 0
        self.rate = schedule.rate(0)
        self.validation_due = False
        self.last_validation = Evaluation(images=0, of=0, top1=0.0, top5=0.0, loss=0.0)
        self.saved_step: int | None = None
        self._forward = self.ranks.forward(net)
        self.fused: FusedStep | None = None
        self.steps_taken = ""

    def train(
        self, source: BatchSource, validation: BatchSource, metrics: Metrics, save: Save, stop: Stop = lambda: False
    ) -> Evaluation:
        """Train to the end from wherever the trainer and the source stand; return the last validation.

        `stop`: asked after each step and between the batches of a validation; once it says yes in one process, all save
        and raise StopRequestedError; several on GPUs ask each other after each tenth step. Raises DivergedError, and
        saves nothing more, when numbers are no longer finite.
        """
        save_here, first_step = functools.partial(self._save, save, source, metrics), self.step
        self.net.train()
        while self.step < self.total_steps or self.validation_due:
            for images, labels in () if self.validation_due else metrics.timed(self.ranks.batches(source)):
                measured = self.train_step(images, labels)
                if self.step == first_step + 1 and self.placement.device.type == "cuda":
                    metrics.steps_taken(self.step, self.epoch, self.steps_taken)
                metrics.step_done(self.step, self.epoch, measured, self.rate, self._images_of_all(labels))
                self.validation_due = self.step >= self.total_steps
                stopping = self.ranks.any_after(self.step, stop()) and not self.validation_due
                if stopping or self._checkpoint_due():
                    save_here()
                if stopping:
                    raise StopRequestedError
                if self.validation_due:
                    break
            self.validation_due = True
            self._validate(validation, metrics, save_here, stop)
            if not self.settings.checkpoint_every or self.step >= self.total_steps:
                save_here()
        return self.last_validation

    def train_step(self, images: Tensor, labels: Tensor) -> Measured | None:
        """Take one step of gradient descent on this process's part of a batch, at the rate that the schedule says.

        `images`: of the placement's batch type, (n, channels, px, px); `labels`: int64 (n,); both on the network's
        device. At a logging step it returns loss and gradient norm, still there; waiting for it is the caller's.
        """
        self.rate = self.schedule.rate(self.step)
        first = self.ranks.layout.group_part(self._images_of_all(labels)).start
        self.net.clock.set(self.settings.seed, self.step, first)
        if not self.steps_taken:
            self.steps_taken = self._choose_step(images, labels)
        weight = self.ranks.weight(len(labels), self._images_of_all(labels))
        if self.fused:
            loss = self.fused(images, labels, self.rate, self.schedule.first_layer(), weight)
        else:
            loss = self._loss_and_gradients(images, labels, self.placement, weight)
        measured: Measured | None = None
        if is_logged(self.step + 1):
            norm = self.ranks.whole_norm(self.fused.gradients if self.fused else self._gradients())
            measured = self.ranks.total(loss) / self.ranks.layout.groups, norm
        if not self.fused:
            self.optim.step(self.rate, self.schedule.first_layer())
        self.step += 1
        return measured

    def _validate(self, validation: BatchSource, metrics: Metrics, save: Callable[[], None], stop: Stop) -> None:
        """Evaluate, and tell the schedule and the metrics; or save, and leave it to whoever goes on from there."""
        try:
            with metrics.paused():
                self.last_validation = evaluate(self.net, validation, self.placement, self.ranks, stop, self.epoch)
        except StopRequestedError:
            save()
            raise
        # On a GPU it stays open: starting its decoder is estimated to take as long as the epoch of 50,000 images does.
        if self.placement.device.type == "cpu":
            validation.close()
        self.schedule.after_epoch(1.0 - self.last_validation.top1 if self.last_validation.images else None)
        metrics.evaluated(self.step, self.epoch, self.last_validation)
        self.epoch += 1
        self.validation_due = False

    def _save(self, save: Save, source: BatchSource, metrics: Metrics) -> None:
        """Save what can be gone on from; a checkpoint of weights that are lost would push out a good one."""
        with metrics.paused():
            if self.ranks.any(not all_finite(self.net.parameters())):
                raise DivergedError("weights are not finite", self.step, self.rate)
            save(self.checkpoint(source))
            self.saved_step = self.step

    def _checkpoint_due(self) -> bool:
        return self.settings.checkpoint_every > 0 and self.step % self.settings.checkpoint_every == 0

    def checkpoint(self, source: BatchSource) -> Checkpoint:
        """Return everything needed to go on after the last finished step: of tensors, those that are held here."""
        tensors: dict[str, Tensor] = {NETWORK + name: p for name, p in self.net.named_parameters()}
        tensors |= {MOMENTUM + name: b for name, b in self.optim.momentum_buffers().items()}
        progress = dataclasses.asdict(
            SavedProgress(
                epoch=self.epoch,
                rates=self.optim.rates(),
                schedule=self.schedule.state(),
                source=source.state(),
                validation_due=self.validation_due,
                last_validation=self.last_validation,
            )
        )
        numbers = progress["last_validation"]
        progress["last_validation"] = {name: value for name, value in numbers.items() if math.isfinite(value)}  # JSON's
        return Checkpoint(step=self.step, tensors=tensors, progress=progress)

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint, source: BatchSource) -> None:
        """Stand where a checkpoint was taken. Raises InputError if it belongs to another network or other data."""
        parameters = dict(self.net.named_parameters())
        stored = under(NETWORK, checkpoint.tensors)
        if why := misfit(shapes_of(stored), shapes_of(parameters)):
            raise InputError(f"the checkpoint is of another network: {why}")
        for name, parameter in parameters.items():
            parameter.copy_(stored[name])
        progress = of_type(checkpoint.progress, SavedProgress)
        self.optim.restore(under(MOMENTUM, checkpoint.tensors), progress.rates)
        self.schedule.restore(progress.schedule)
        source.resume(progress.source)
        self.step, self.epoch = checkpoint.step, progress.epoch
        ended = self.step == (self.epoch + 1) * len(source)  # saved after an epoch's last step, before its validation
        self.validation_due = progress.validation_due or ended
        self.last_validation = progress.last_validation
        self.saved_step = self.step
        self.fused, self.steps_taken = None, ""  # it has copies of the weights

    def _loss_and_gradients(self, images: Tensor, labels: Tensor, placement: Placement, weight: float) -> Tensor:
        """Return a batch's loss, times its weight, and leave its gradients in the parameters."""
        with placement.autocast():
            loss = F.cross_entropy(self._forward(images).float(), labels)
        loss = loss * weight
        loss.backward()
        return loss.detach()

    def _gradients(self) -> dict[str, Tensor]:
        return {name: p.grad for name, p in self.net.named_parameters() if p.grad is not None}

    @property
    def wants_fused(self) -> bool:
        """Say whether steps are to be taken by fused kernels, if those can be."""
        return self.placement.device.type == "cuda" and self.settings.capture and not self.ranks.layout.owt

    def _choose_step(self, images: Tensor, labels: Tensor) -> str:
        """Take the fused step where it is wanted and can be had; return how steps are taken, in words."""
        if not self.wants_fused:
            return "layer by layer"
        batch, rows = (images, labels), self.settings.batch_images
        self.fused, words = checked_step(self.net, self.optim, self.ranks, self.placement, batch, rows, self._plain)
        return words if self.fused else f"layer by layer, as the fused step failed ({words})"

    def _plain(self, images: Tensor, labels: Tensor, placement: Placement) -> dict[str, Tensor]:
        """Return loss and gradients of a batch in the precision of a placement; leave none in the parameters."""
        loss = self._loss_and_gradients(images, labels, placement, 1.0)
        found = {"loss": loss, **{name: gradient.clone() for name, gradient in self._gradients().items()}}
        self.net.zero_grad(set_to_none=True)
        return found

    def _images_of_all(self, labels: Tensor) -> int:
        """Return the size of the global batch; only one group alone may have lost a sample that cannot be used."""
        return len(labels) if self.ranks.layout.groups == 1 else self.settings.batch_images
