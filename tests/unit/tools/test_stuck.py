"""A loss that stays where guessing is, is called out once; one that passes by is not."""

import math
from collections.abc import Iterable

import numpy as np
import pytest

from alexnet.model.metrics import is_logged
from alexnet.tools.run.sinks import StuckLoss


def said_of(losses: Iterable[float], *, classes: int = 10, warmup_steps: int = 0, total_steps: int = 500) -> list[int]:
    """Return the steps after which something was said, of a run with these losses."""
    said: list[str] = []
    at: list[int] = []
    stuck = StuckLoss(classes=classes, warmup_steps=warmup_steps, total_steps=total_steps, say=said.append)
    for step, loss in enumerate(losses, 1):
        if is_logged(step):
            stuck.record({"step": step, "loss": loss})
        stuck.step(step)
        if len(said) > len(at):
            at.append(step)
            assert f"near ln({classes:,}) = {math.log(classes):.2f}" in said[-1]
            assert "learning rate" in said[-1]
            assert "\n" not in said[-1]
    return at


def noisy(level: float, steps: int, seed: int = 0) -> list[float]:
    return list(level + 0.05 * np.random.default_rng(seed).standard_normal(steps))


@pytest.mark.parametrize(("classes", "total_steps", "first"), [(10, 150, 100), (10, 5000, 1000), (1000, 900_000, 5000)])
def test_it_is_said_once_after_a_fifth_of_the_run(classes: int, total_steps: int, first: int) -> None:
    losses = noisy(math.log(classes), min(total_steps, 3 * first))
    assert said_of(losses, classes=classes, total_steps=total_steps) == [first]


def test_the_warm_up_does_not_count() -> None:
    said = said_of(noisy(math.log(10), 500), warmup_steps=60)
    assert said == [180], "the first record after it is that of step 80"


def test_a_loss_that_falls_through_is_not_meant() -> None:
    assert not said_of(np.linspace(5.0, 0.1, 500))
    assert not said_of([*np.linspace(4.0, 2.3, 90), *np.linspace(2.3, 0.3, 410)])
    assert not said_of(noisy(0.8 * math.log(10), 500))


def test_a_loss_that_comes_back_to_guessing_is_called_out() -> None:
    """The rectifiers died: it learnt, then it diverged and learns no more."""
    assert len(said_of([*np.linspace(2.3, 1.5, 200), *noisy(math.log(10), 300)])) == 1


def test_one_class_is_no_guess() -> None:
    assert not said_of([0.0] * 500, classes=1)
