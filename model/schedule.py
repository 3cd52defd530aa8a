"""The learning rate over a run.

What a kind of schedule says is multiplied by a warm-up, if there is one: both are functions of the step and of what
validation said, so a run that is resumed in the middle of either goes on as if it had never stopped.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from alexnet.shards.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """Settle how the rate changes.

    `plateau`: divide by 10 when the validation error has not improved for `patience_epochs`, at most `drops` times
    (paper, section 5: three). `linear-tail`: constant, then falling to zero over the last `tail` of the run. `cosine`:
    half a cosine, from the rate to zero, over the steps after the warm-up. `constant`: as it says. `steps`: divide by
    10 after each number of epochs in `drop_epochs`. `run-145`: as run 145 of the authors was, which is the paper's; it
    ended during its 91st epoch.

    `warmup_steps`: whatever the kind, the first so many steps have 1/n, 2/n ... n/n of its rate.
    """

    kind: Literal["plateau", "linear-tail", "cosine", "constant", "steps", "run-145"] = "plateau"
    warmup_steps: int = 0
    patience_epochs: int = 5
    drops: int = 3
    tail: float = 1 / 3
    drop_epochs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise InputError(f"schedule.warmup_steps={self.warmup_steps}: must not be negative")
        if not 0 < self.tail <= 1:
            raise InputError(f"schedule.tail={self.tail}: must be above 0 and at most 1")
        if self.patience_epochs < 1 or self.drops < 0:
            raise InputError(
                f"schedule.patience_epochs={self.patience_epochs}, schedule.drops={self.drops}: "
                "patience must be at least 1, drops not negative"
            )
        if list(self.drop_epochs) != sorted(set(self.drop_epochs)) or min(self.drop_epochs, default=1) < 1:
            listed = ",".join(map(str, self.drop_epochs))
            raise InputError(
                f"schedule.drop_epochs={listed}: must be numbers from 1 on, each larger than the one before"
            )


# The log in layer-params-145.cfg: "epoch 25: set epsw to 0.001 from 0.01", and so on, counted from 1. From epoch 67 on
# conv1 had a tenth of the others' rate, and from 72 on none.
_RUN_145_DROPS = (24, 50, 78)
_RUN_145_FIRST_LAYER = {66: 0.1, 71: 0.0}


@dataclass(kw_only=True)
class ScheduleState:
    """Hold where a schedule stands. `best_error`: the least validation error so far, 0 to 1; 2 before the first."""

    best_error: float = 2.0
    stalled_epochs: int = 0
    dropped: int = 0
    epochs: int = 0


class Schedule:
    """Say the learning rate of each step; told the validation error after each epoch."""

    def __init__(self, settings: ScheduleSettings, base_rate: float, total_steps: int) -> None:
        self._settings, self._base_rate, self._total_steps = settings, base_rate, total_steps
        self._at = ScheduleState()

    def rate(self, step: int) -> float:
        """Return the rate of a step, counted from 0.

        Always above 0, the last step's included: the rate is part of the velocity, which the update rule divides by it.
        """
        warmup, rate = self._settings.warmup_steps, self._without_warmup(step)
        return rate * (step + 1) / warmup if step < warmup else rate

    def _without_warmup(self, step: int) -> float:
        """Return the rate of a step before the warm-up is multiplied in."""
        kind, rate, left = self._settings.kind, self._base_rate, max(1, self._total_steps - step)
        if kind == "constant":
            return rate
        if kind == "linear-tail":
            return rate * min(1.0, left / max(1.0, self._total_steps * self._settings.tail))
        if kind == "cosine":
            of = max(1, self._total_steps - self._settings.warmup_steps)
            return rate * math.sin(math.pi / 2 * min(1.0, left / of)) ** 2  # (1 + cos) / 2, which cancels near 0
        if kind == "plateau":
            return rate / 10.0**self._at.dropped
        drops = _RUN_145_DROPS if kind == "run-145" else self._settings.drop_epochs
        return rate / 10.0 ** sum(self._at.epochs >= epochs for epochs in drops)

    def first_layer(self) -> float:
        """Return what the first layer's rate is multiplied with now; 0: that layer is frozen."""
        if self._settings.kind != "run-145":
            return 1.0
        return min(
            (factor for epochs, factor in _RUN_145_FIRST_LAYER.items() if self._at.epochs >= epochs), default=1.0
        )

    def after_epoch(self, validation_error: float | None) -> None:
        """Count an epoch, and take its validation error, 0 to 1, into account; None where no image was seen."""
        at = self._at
        at.epochs += 1
        if validation_error is None:
            return
        if validation_error < at.best_error:
            at.best_error, at.stalled_epochs = validation_error, 0
            return
        at.stalled_epochs += 1
        if at.stalled_epochs >= self._settings.patience_epochs and at.dropped < self._settings.drops:
            at.dropped, at.stalled_epochs = at.dropped + 1, 0

    def state(self) -> ScheduleState:
        """Return what `restore` needs."""
        return dataclasses.replace(self._at)

    def restore(self, state: ScheduleState) -> None:
        """Continue from a checkpoint's state."""
        self._at = dataclasses.replace(state)
