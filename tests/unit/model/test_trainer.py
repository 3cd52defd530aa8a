"""The loop: what a stop, a lost number and a logging step do to it, on a network that takes milliseconds."""

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from alexnet.model.checkpoint import Checkpoint
from alexnet.model.evaluate import Evaluation, StopRequestedError, evaluate, nobody_asks
from alexnet.model.metrics import Metrics, Sink
from alexnet.model.optim import DivergedError, norm_of
from alexnet.model.placement import Placement
from alexnet.model.trainer import Trainer
from alexnet.tools.run.assembly import build_trainer
from alexnet.tools.run.settings import load_recipe, with_overrides

CPU = Placement(device=torch.device("cpu"), bf16=False, why="a test")
CLASSES, BATCH = 10, 4
STEPS_PER_EPOCH, EPOCHS = 6, 3


class Pictures:
    """Batches made up from (epoch, step): like the stream, it can stand anywhere."""

    images = STEPS_PER_EPOCH * BATCH

    def __init__(self, *, spoilt_step: int = -1, views: int = 0) -> None:
        self.epoch, self.at, self._spoilt, self._views = 0, 0, spoilt_step, views
        self.heard: Callable[[int], None] = lambda step: None

    def __len__(self) -> int:
        return STEPS_PER_EPOCH

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while self.at < STEPS_PER_EPOCH:
            number = self.epoch * STEPS_PER_EPOCH + self.at
            generator = torch.Generator().manual_seed(number)
            shape = (BATCH, self._views, 3, 28, 28) if self._views else (BATCH, 3, 28, 28)
            images, labels = torch.randn(shape, generator=generator), torch.arange(number, number + BATCH) % CLASSES
            self.heard(self.at)
            self.at += 1
            yield (images * math.inf if number == self._spoilt else images), labels
        self.epoch, self.at = self.epoch + 1, 0

    def seek(self, epoch: int, step: int) -> None:
        self.epoch, self.at = epoch, step

    def state(self) -> dict[str, Any]:
        return self._place(self.epoch, self.at)

    def resume(self, state: dict[str, Any]) -> None:
        self.seek(*self._place(**state).values())

    def _place(self, epoch: int, step: int) -> dict[str, int]:
        done, at = divmod(step, STEPS_PER_EPOCH)
        return {"epoch": epoch + done, "step": at}

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


def trainer(*assignments: str) -> Trainer:
    settings = with_overrides(
        load_recipe("lenet-5"),
        (f"train.batch_images={BATCH}", f"train.epochs={EPOCHS}", "schedule.kind=plateau", *assignments),
    )
    settings = dataclasses.replace(settings, net=dataclasses.replace(settings.net, classes=CLASSES))
    return build_trainer(settings, CPU, STEPS_PER_EPOCH)


def weights(trained: Trainer) -> list[Tensor]:
    return [p.detach().clone() for p in trained.net.parameters()]


def run(trained: Trainer, kept: Kept, source: Pictures | None = None, **options: Any) -> Evaluation:
    return trained.train(
        source or Pictures(), options.pop("validation", Pictures()), Metrics([kept]), kept.save, **options
    )


@pytest.mark.parametrize("epoch", [0, 1, EPOCHS - 1])
@pytest.mark.parametrize("checkpoint_every", [0, 4, 6])
def test_a_stop_does_not_wait_for_a_validation_which_is_made_up_for(epoch: int, checkpoint_every: int) -> None:
    """Left between batches, with a checkpoint; who goes on from it validates first, and all is as without the stop."""
    every = f"train.checkpoint_every={checkpoint_every}"
    whole, kept = trainer(every), Kept()
    expected = run(whole, kept)

    parts, before, validation = trainer(every), Kept(), Pictures()
    validations, asked = itertools.count(), []

    def told_in_the_validation(step: int) -> None:
        if step == 2 and next(validations) == epoch:
            asked.append(step)

    validation.heard = told_in_the_validation
    with pytest.raises(StopRequestedError):
        run(parts, before, validation=validation, stop=lambda: bool(asked))
    assert validation.at == 3, "the batch that was asked for before the stop was the last"
    assert len(before.evaluations) == epoch
    assert parts.net.training

    resumed, after, source = trainer(every), Kept(), Pictures()
    resumed.restore(before.saved[-1], source)
    assert resumed.step == (epoch + 1) * STEPS_PER_EPOCH
    assert run(resumed, after, source) == expected
    assert before.losses + after.losses == kept.losses
    assert before.evaluations + after.evaluations == kept.evaluations
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))


def test_a_run_saved_at_its_end_is_not_trained_further() -> None:
    kept, again, source = Kept(), Kept(), Pictures()
    expected = run(trainer(), kept)
    finished = trainer()
    finished.restore(kept.saved[-1], source)
    assert run(finished, again, source) == expected
    assert not again.records
    assert not again.evaluations


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("stop_after", [2, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 3, 2 * STEPS_PER_EPOCH])
def test_a_stop_between_steps_saves_and_goes_on(stop_after: int, earlier: bool) -> None:
    """In the middle of the warm-up, at an epoch's last step (as `earlier` versions named it, too), and in the second.

    What comes after the epoch is not left out: its validation.
    """
    warm = "schedule.warmup_steps=8"
    whole, kept = trainer(warm), Kept()
    run(whole, kept)
    parts, before, after, source = trainer(warm), Kept(), Kept(), Pictures()
    with pytest.raises(StopRequestedError):
        run(parts, before, stop=lambda: parts.step == stop_after)
    saved, resumed = before.saved[-1], trainer(warm)
    if earlier and stop_after % STEPS_PER_EPOCH == 0:
        assert saved.progress["source"] == {"epoch": stop_after // STEPS_PER_EPOCH, "step": 0}
        saved.progress["source"] = {"epoch": stop_after // STEPS_PER_EPOCH - 1, "step": STEPS_PER_EPOCH}
    resumed.restore(saved, source)
    assert resumed.step == stop_after
    run(resumed, after, source)
    assert before.evaluations + after.evaluations == kept.evaluations
    assert [r["lr"] for r in (*before.records, *after.records)] == [r["lr"] for r in kept.records]
    assert before.losses + after.losses == kept.losses
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))


def test_a_loss_that_is_not_finite_stops_the_run_and_nothing_more_is_saved() -> None:
    diverged, kept = trainer("train.checkpoint_every=3", "optim.lr=0.01"), Kept()
    with pytest.raises(DivergedError, match=r"loss is nan at step 8, learning rate 0\.01"):
        run(diverged, kept, Pictures(spoilt_step=7))
    assert [checkpoint.step for checkpoint in kept.saved] == [3, 6]
    assert diverged.saved_step == 6
    assert [record["step"] for record in kept.records] == list(range(1, 8)), "only figures that can be drawn"


def test_weights_that_are_not_finite_are_not_saved_though_no_loss_was_read() -> None:
    """The 23rd loss is not read, nor is any up to the 40th; a checkpoint is due after the 24th."""
    diverged, kept = trainer("train.checkpoint_every=4", "train.epochs=5"), Kept()
    with pytest.raises(DivergedError, match="weights are not finite at step 24"):
        run(diverged, kept, Pictures(spoilt_step=22))
    assert [checkpoint.step for checkpoint in kept.saved] == [4, 8, 12, 16, 20]


def test_the_gradient_norm_is_that_of_the_loss_over_all_parameters() -> None:
    trained, kept = trainer("train.steps=1"), Kept()
    twin = copy.deepcopy(trained.net).double()
    run(trained, kept)
    images, labels = next(iter(Pictures()))
    F.cross_entropy(twin(images.double()), labels).backward()
    squares = sum(float(p.grad.square().sum()) for p in twin.parameters() if p.grad is not None)
    assert kept.records[0]["grad_norm"] == pytest.approx(math.sqrt(squares), rel=1e-5)  # fp32 has 6e-8 a rounding


def test_steps_taken_by_hand_are_those_of_a_run() -> None:
    by_hand, whole, kept = trainer(), trainer(f"train.steps={STEPS_PER_EPOCH}"), Kept()
    losses = [measured.loss.item() for batch in Pictures() if (measured := by_hand.train_step(*batch))]
    run(whole, kept)
    assert list(enumerate(losses, 1)) == kept.losses
    assert all(map(torch.equal, weights(by_hand), weights(whole)))


def test_the_norm_of_millions_of_values_is_as_exact_as_that_of_few() -> None:
    """Added up from end to end in fp32, as PyTorch does on a CPU, it would be wrong by more than a thousandth."""
    many = torch.randn(4096, 9216, generator=torch.Generator().manual_seed(0))
    few = torch.randn(7, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    exact = math.hypot(many.double().norm().item(), few.double().norm().item())
    assert norm_of([many, few]).item() == pytest.approx(exact, rel=1e-6)


def test_a_record_has_what_is_promised() -> None:
    kept = Kept()
    trained = trainer("train.steps=5")
    trained.train(Pictures(), Pictures(), Metrics([kept], lambda: 123_456_789), kept.save)
    speeds = sorted(record["images_per_s"] for record in kept.records)
    assert kept.records[-1]["images_per_s_median"] == speeds[2]
    assert {record["memory_mb"] for record in kept.records} == {123.5}
    assert all(0 <= record["data_wait"] <= 1 for record in kept.records)


class Waits(TorchDispatchMode):
    """Count the operations that hand a value from the device to Python."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[int] = []
        self.step = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
            self.steps.append(self.step)
        return func(*args, **(kwargs or {}))


def test_the_loop_waits_for_the_device_at_logging_steps_only() -> None:
    """A value that Python reads is what makes it wait; steps 21 to 39 read none."""
    trained, kept = trainer("train.steps=45", "train.epochs=9", "train.checkpoint_every=1000"), Kept()
    source = Pictures()
    with Waits() as waits:

        def note(step: int) -> None:
            waits.step = trained.step + 1

        source.heard = note
        validation = Pictures()
        validation.heard = lambda step: setattr(waits, "step", 0)
        run(trained, kept, source, validation=validation)
    assert set(waits.steps) == {0, *range(1, 21), 40}, "0: validation and checkpoint"


def test_ten_views_are_averaged_after_the_softmax() -> None:
    net = trainer().net.eval()
    images, labels = next(iter(Pictures(views=10)))
    source = Pictures(views=10)
    mean = torch.stack([net(images[:, view]).double().softmax(1) for view in range(10)]).mean(0).log()
    loss = F.nll_loss(mean, labels, reduction="sum").item()
    first = _Some(images, labels)
    evaluation = evaluate(net, first, CPU)
    assert evaluation.loss == pytest.approx(loss / BATCH, rel=1e-5)
    assert evaluation.top1 == (mean.argmax(1) == labels).double().mean().item()
    assert (evaluation.views, evaluation.images) == (10, BATCH)
    assert str(evaluation).endswith("(4/4 images, each once, 10 views)")
    assert evaluate(net, source, CPU, stop=nobody_asks).images == source.images


class _Some(Pictures):
    """One batch that is given."""

    images = BATCH

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        super().__init__()
        self._batch = images, labels

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield self._batch
