"""Notice a run that learns nothing: a loss that stays where guessing is."""

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from alexnet.model.evaluate import Evaluation

_NEAR = 0.03
"""Relative: labels of a batch of 20 differ from their mean frequencies by enough to move the loss by 2%."""
_LEAST_STEPS, _MOST_STEPS = 100, 5000
"""On ImageNet a thousand steps and more may pass at guessing before the loss falls; a whole small run may have 150."""
_CAUSES = (
    "a learning rate too low, or so high that the rectifiers died; initial values made for another size of data set "
    "(recipe small) or another scale of pixels (augment.scale); labels that do not belong to their images"
)


class StuckLoss:
    """Say once, and only once, that the loss stays near ln(classes), with the usual causes.

    Looks at the records of the newest fifth of the run, of 100 to 5,000 steps, after the warm-up: the means of both
    halves must be within 3% of ln(classes), so that a loss that falls through it is not meant.
    """

    def __init__(self, *, classes: int, warmup_steps: int, total_steps: int, say: Callable[[str], None]) -> None:
        self._guessing, self._after, self._say = math.log(classes), warmup_steps, say
        self._window = min(_MOST_STEPS, max(_LEAST_STEPS, total_steps // 5))
        self._losses: deque[tuple[int, float]] = deque()
        self._said = classes < 2  # of one class there is nothing to guess

    def step(self, step: int) -> None:
        """Nothing to see in a step that is not logged."""

    def record(self, record: dict[str, Any]) -> None:
        """Look at the losses up to this one."""
        step = record["step"]
        if self._said or step <= self._after:
            return
        self._losses.append((step, record["loss"]))
        if step - self._losses[0][0] + 1 < self._window:
            return
        if self._is_near():
            self._said = True
            self._say(
                f"note: the loss has stayed near ln({math.exp(self._guessing):,.0f}) = {self._guessing:.2f}, where "
                f"guessing is, for {self._window:,} steps; usual causes: {_CAUSES}"
            )
        while step - self._losses[0][0] + 1 >= self._window:
            self._losses.popleft()

    def evaluation(self, step: int, epoch: int, evaluation: Evaluation) -> None:
        """Hear nothing new: validations follow the losses."""

    def close(self) -> None:
        """Nothing is open."""

    def _is_near(self) -> bool:
        losses = [loss for _, loss in self._losses]
        half = len(losses) // 2
        means = (sum(losses[:half]) / half, sum(losses[half:]) / (len(losses) - half))
        return all(abs(mean - self._guessing) <= _NEAR * self._guessing for mean in means)
