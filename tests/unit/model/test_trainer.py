"""The loop: what a stop, a lost number and a logging step do to it, on a network that takes milliseconds."""

import copy
import dataclasses
import itertools
import math
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from alexnet.model.evaluate import Evaluation, StopRequestedError, evaluate
from alexnet.model.metrics import Metrics
from alexnet.model.optim import DivergedError, norm_of
from alexnet.model.trainer import Trainer
from alexnet.tools.run.assembly import build_trainer
from alexnet.tools.run.settings import load_recipe, with_overrides
from tests.unit.model.stand_ins import CPU, Batch, Batches, Kept

CLASSES, BATCH = 10, 4
STEPS_PER_EPOCH, EPOCHS = 6, 3


def batch(number: int, *views: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(BATCH, *views, 3, 28, 28, generator=generator), torch.arange(number, number + BATCH) % CLASSES


def pictures(spoilt_step: int = -1) -> Batches:
    def make(number: int) -> Batch:
        images, labels = batch(number)
        return images * math.inf if number == spoilt_step else images, labels

    return Batches(STEPS_PER_EPOCH, STEPS_PER_EPOCH * BATCH, make)


def trainer(*assignments: str) -> Trainer:
    settings = with_overrides(
        load_recipe("lenet-5"),
        (f"train.batch_images={BATCH}", f"train.epochs={EPOCHS}", "schedule.kind=plateau", *assignments),
    )
    settings = dataclasses.replace(settings, net=dataclasses.replace(settings.net, classes=CLASSES))
    return build_trainer(settings, CPU, STEPS_PER_EPOCH)


def weights(trained: Trainer) -> list[Tensor]:
    return [p.detach().clone() for p in trained.net.parameters()]


def run(
    trained: Trainer, kept: Kept, source: Batches | None = None, validation: Batches | None = None, **options: Any
) -> Evaluation:
    return trained.train(source or pictures(), validation or pictures(), Metrics([kept]), kept.save, **options)


def assert_as_without_a_stop(whole: Trainer, kept: Kept, resumed: Trainer, before: Kept, after: Kept) -> None:
    for what in ("losses", "evaluations"):
        assert getattr(before, what) + getattr(after, what) == getattr(kept, what)
    assert [r["lr"] for r in (*before.records, *after.records)] == [r["lr"] for r in kept.records]
    assert all(map(torch.equal, weights(whole), weights(resumed)))


@pytest.mark.parametrize("epoch", [0, 1, EPOCHS - 1])
@pytest.mark.parametrize("checkpoint_every", [0, 4, 6])
def test_a_stop_does_not_wait_for_a_validation_which_is_made_up_for(epoch: int, checkpoint_every: int) -> None:
    """Left between batches, with a checkpoint; who goes on from it validates first, and all is as without the stop."""
    every = f"train.checkpoint_every={checkpoint_every}"
    whole, kept = trainer(every), Kept()
    expected = run(whole, kept)

    parts, before, validation = trainer(every), Kept(), pictures()
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

    resumed, after, source = trainer(every), Kept(), pictures()
    resumed.restore(before.saved[-1], source)
    assert resumed.step == (epoch + 1) * STEPS_PER_EPOCH
    assert run(resumed, after, source) == expected
    assert_as_without_a_stop(whole, kept, resumed, before, after)


def test_a_run_saved_at_its_end_is_not_trained_further() -> None:
    kept, again, source = Kept(), Kept(), pictures()
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
    parts, before, after, source = trainer(warm), Kept(), Kept(), pictures()
    with pytest.raises(StopRequestedError):
        run(parts, before, stop=lambda: parts.step == stop_after)
    saved, resumed = before.saved[-1], trainer(warm)
    if earlier and stop_after % STEPS_PER_EPOCH == 0:
        assert saved.progress["source"] == {"epoch": stop_after // STEPS_PER_EPOCH, "step": 0}
        saved.progress["source"] = {"epoch": stop_after // STEPS_PER_EPOCH - 1, "step": STEPS_PER_EPOCH}
    resumed.restore(saved, source)
    assert resumed.step == stop_after
    run(resumed, after, source)
    assert_as_without_a_stop(whole, kept, resumed, before, after)


def test_a_loss_that_is_not_finite_stops_the_run_and_nothing_more_is_saved() -> None:
    diverged, kept = trainer("train.checkpoint_every=3", "optim.lr=0.01"), Kept()
    with pytest.raises(DivergedError, match=r"loss is nan at step 8, learning rate 0\.01"):
        run(diverged, kept, pictures(7))
    assert [checkpoint.step for checkpoint in kept.saved] == [3, 6]
    assert diverged.saved_step == 6
    assert [record["step"] for record in kept.records] == list(range(1, 8)), "only figures that can be drawn"


def test_weights_that_are_not_finite_are_not_saved_though_no_loss_was_read() -> None:
    """The 23rd loss is not read, nor is any up to the 40th; a checkpoint is due after the 24th."""
    diverged, kept = trainer("train.checkpoint_every=4", "train.epochs=5"), Kept()
    with pytest.raises(DivergedError, match="weights are not finite at step 24"):
        run(diverged, kept, pictures(22))
    assert [checkpoint.step for checkpoint in kept.saved] == [4, 8, 12, 16, 20]


def test_the_gradient_norm_is_that_of_the_loss_over_all_parameters() -> None:
    trained, kept = trainer("train.steps=1"), Kept()
    twin = copy.deepcopy(trained.net).double()
    run(trained, kept)
    images, labels = batch(0)
    F.cross_entropy(twin(images.double()), labels).backward()
    squares = sum(float(p.grad.square().sum()) for p in twin.parameters() if p.grad is not None)
    assert kept.records[0]["grad_norm"] == pytest.approx(math.sqrt(squares), rel=1e-5)  # fp32 has 6e-8 a rounding


def test_steps_taken_by_hand_are_those_of_a_run() -> None:
    by_hand, whole, kept = trainer(), trainer(f"train.steps={STEPS_PER_EPOCH}"), Kept()
    losses = [measured[0].item() for batch in pictures() if (measured := by_hand.train_step(*batch))]
    run(whole, kept)
    assert list(enumerate(losses, 1)) == kept.losses
    assert all(map(torch.equal, weights(by_hand), weights(whole)))


def test_the_norm_of_millions_of_values_is_as_exact_as_that_of_few() -> None:
    """Added up from end to end in fp32, as PyTorch does on a CPU, it would be wrong by more than a thousandth."""
    many = torch.randn(4096, 9216, generator=torch.Generator().manual_seed(0))
    few = torch.randn(7, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    exact = math.hypot(many.double().norm().item(), few.double().norm().item())
    assert norm_of([many, few]).item() == pytest.approx(exact, rel=1e-6)


def test_the_norm_of_bf16_gradients_is_not_rounded_to_bf16() -> None:
    tensors = [torch.randn(5000 + i, generator=torch.Generator().manual_seed(i)).bfloat16() for i in range(9)]
    exact = torch.cat(tensors).double().norm().item()
    assert norm_of(tensors).item() == pytest.approx(exact, rel=1e-6)


def test_a_record_has_what_is_promised() -> None:
    kept = Kept()
    trained = trainer("train.steps=5")
    trained.train(pictures(), pictures(), Metrics([kept], lambda: 123_456_789), kept.save)
    speeds = sorted(record["images_per_s"] for record in kept.records)
    assert kept.records[-1]["images_per_s_median"] == speeds[2]
    assert {record["memory_mb"] for record in kept.records} == {123.5}
    assert all(0 <= record["data_wait"] <= 1 for record in kept.records)


@pytest.mark.parametrize(("device", "pieces"), [("cpu", 16 + 1), ("meta", 1 + 1)])
def test_a_norm_is_taken_in_pieces_on_a_cpu_alone(device: str, pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Mock(wraps=torch.stack)
    monkeypatch.setattr(torch, "stack", stack)
    norm_of([torch.empty(1 << 20, device=device), torch.empty(3, device=device)])
    assert len(stack.call_args.args[0]) == pieces


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
    source = pictures()
    with Waits() as waits:

        def note(step: int) -> None:
            waits.step = trained.step + 1

        source.heard = note
        validation = pictures()
        validation.heard = lambda step: setattr(waits, "step", 0)
        run(trained, kept, source, validation=validation)
    assert set(waits.steps) == {0, *range(1, 21), 40}, "0: validation and checkpoint"


def test_ten_views_are_averaged_after_the_softmax() -> None:
    net = trainer().net.eval()
    images, labels = batch(0, 10)
    mean = torch.stack([net(images[:, view]).double().softmax(1) for view in range(10)]).mean(0).log()
    evaluation = evaluate(net, Batches(1, BATCH, lambda number: (images, labels)), CPU)
    assert evaluation.loss == pytest.approx(F.nll_loss(mean, labels).item(), rel=1e-5)
    assert evaluation.top1 == (mean.argmax(1) == labels).double().mean().item()
    assert str(evaluation).endswith("(4/4 images, each once, 10 views)")


def test_evaluation_counts_every_image_of_partial_batches() -> None:
    """Of the last image, the right class has the lowest score of six: it is not even among the first five."""
    scores = torch.eye(6)[:5] * 5 + torch.arange(6.0) * 0.01
    batches = [(scores[:3], torch.tensor([0, 1, 5])), (scores[3:], torch.tensor([3, 0]))]
    net = torch.nn.Identity().train()
    result = evaluate(net, Batches(2, 5, batches.__getitem__), CPU)
    assert (result.images, result.of) == (5, 5)
    assert [result.top1, result.top5] == pytest.approx([3 / 5, 4 / 5])
    assert str(result) == "top-1 60.0%, top-5 80.0% (5/5 images, each once)"
    assert net.training


def test_validation_goes_from_epoch_to_epoch_of_its_source_and_closes_it_on_a_cpu() -> None:
    """Open, it would hold memory that training could do with; on a GPU it stays open, where starting it takes long."""
    asked: list[object] = []

    class Noted(Batches):
        def seek(self, epoch: int, step: int) -> None:
            asked.append((epoch, step))
            super().seek(epoch, step)

        def close(self) -> None:
            asked.append("close")

    run(trainer(), Kept(), validation=Noted(STEPS_PER_EPOCH, STEPS_PER_EPOCH * BATCH, batch))
    ends = [(epoch + 1, 0) for epoch in range(EPOCHS)]  # where an iteration leaves the stand-in
    assert asked == [event for epoch in range(EPOCHS) for event in ((epoch, 0), ends[epoch], "close")]
