"""The learning rate, each kind against its closed form, with and without warm-up, and restored at any step."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from alexnet.model.optim import MomentumSGD, OptimSettings
from alexnet.model.schedule import Schedule, ScheduleSettings
from alexnet.shards.errors import InputError

BASE, TOTAL, WARMUP = 0.02, 1000, 40


def rates(settings: ScheduleSettings, total: int = TOTAL) -> list[float]:
    schedule = Schedule(settings, BASE, total)
    return [schedule.rate(step) for step in range(total)]


def test_cosine_is_half_a_cosine_over_the_steps_after_the_warm_up() -> None:
    plain = [BASE * (1 + math.cos(math.pi * step / TOTAL)) / 2 for step in range(TOTAL)]
    assert rates(ScheduleSettings(kind="cosine")) == pytest.approx(plain, rel=1e-9)
    warm = [BASE * (step + 1) / WARMUP for step in range(WARMUP)]
    after = [BASE * (1 + math.cos(math.pi * step / (TOTAL - WARMUP))) / 2 for step in range(TOTAL - WARMUP)]
    assert rates(ScheduleSettings(kind="cosine", warmup_steps=WARMUP)) == pytest.approx(warm + after, rel=1e-9)


def test_constant_is_constant() -> None:
    assert rates(ScheduleSettings(kind="constant")) == [BASE] * TOTAL
    warm = rates(ScheduleSettings(kind="constant", warmup_steps=4))
    assert warm == pytest.approx([BASE / 4, BASE / 2, 3 * BASE / 4, *[BASE] * (TOTAL - 3)])


@pytest.mark.parametrize("kind", ["plateau", "linear-tail", "cosine", "constant", "steps", "run-145"])
def test_every_kind_warms_up_to_where_it_would_have_been(kind: str) -> None:
    cold, warm = (
        rates(ScheduleSettings(kind=kind, warmup_steps=steps))  # type: ignore[arg-type]
        for steps in (0, WARMUP)
    )
    if kind != "cosine":  # whose fall begins after the warm-up
        assert warm == pytest.approx([rate * min(1, (step + 1) / WARMUP) for step, rate in enumerate(cold)])
    assert warm[WARMUP - 1] == pytest.approx(BASE)
    assert all(a < b for a, b in itertools.pairwise(warm[:WARMUP]))


@pytest.mark.parametrize("kind", ["linear-tail", "cosine"])
def test_the_rate_stays_above_zero_to_the_end(kind: str) -> None:
    """It divides: the velocity holds it. Ninety epochs of ImageNet, the longest run there is a recipe for."""
    total = 900_000
    schedule = Schedule(ScheduleSettings(kind=kind), BASE, total)  # type: ignore[arg-type]
    ends = [schedule.rate(step) for step in (total - 2, total - 1, total, total + 5)]
    assert ends[0] > ends[1] > 0
    assert ends[2] == ends[3] == ends[1]


def test_the_papers_rule_holds_through_a_warm_up_and_a_cosine() -> None:
    """v <- 0.9 v - lr (wd w + g), while PyTorch's buffer is rescaled at every step: also over the steep ends."""
    torch.manual_seed(0)
    layer = nn.Linear(5, 3, bias=False).double()
    w = layer.weight.detach().numpy().copy()
    v = np.zeros_like(w)
    schedule = Schedule(ScheduleSettings(kind="cosine", warmup_steps=5), BASE, 30)
    optim = MomentumSGD(layer, OptimSettings(lr=BASE, momentum=0.9, weight_decay=0.0005))
    for step in range(30):
        layer(torch.randn(7, 5).double()).square().sum().backward()
        assert layer.weight.grad is not None
        v = 0.9 * v - schedule.rate(step) * (0.0005 * w + layer.weight.grad.numpy())
        optim.step(schedule.rate(step))
        w = w + v
        np.testing.assert_allclose(layer.weight.detach().numpy(), w, rtol=1e-11, atol=1e-13)


def test_a_restored_schedule_goes_on_in_the_middle_of_its_warm_up() -> None:
    settings = ScheduleSettings(kind="plateau", patience_epochs=1, warmup_steps=WARMUP)
    whole, parts = Schedule(settings, BASE, TOTAL), Schedule(settings, BASE, TOTAL)
    for step in range(0, 2 * WARMUP, 10):
        assert whole.rate(step) == parts.rate(step)
        whole.after_epoch(0.5)
        parts.after_epoch(0.5)
        state, parts = parts.state(), Schedule(settings, BASE, TOTAL)
        parts.restore(state)
    assert whole.rate(2 * WARMUP) == pytest.approx(BASE / 1000)


def test_a_negative_warm_up_is_refused() -> None:
    with pytest.raises(InputError, match=r"schedule\.warmup_steps=-1: must not be negative"):
        ScheduleSettings(warmup_steps=-1)
