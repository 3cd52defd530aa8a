"""The learning rate over a run."""

from dataclasses import dataclass
from typing import Any, Literal

from alexnet.shards.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """Settle how the rate changes.

    `plateau`: divide by 10 when the validation error has not improved for `patience_epochs`, at most `drops` times
    (paper, section 5: three). `linear-tail`: constant, then falling to zero over the last `tail` of the run.
    """

    kind: Literal["plateau", "linear-tail"] = "plateau"
    patience_epochs: int = 5
    drops: int = 3
    tail: float = 1 / 3

    def __post_init__(self) -> None:
        if not 0 < self.tail <= 1:
            raise InputError(f"schedule.tail={self.tail}: must be above 0 and at most 1")
        if self.patience_epochs < 1 or self.drops < 0:
            raise InputError(
                f"schedule.patience_epochs={self.patience_epochs}, schedule.drops={self.drops}: "
                "patience must be at least 1, drops not negative"
            )


class Schedule:
    """Say the learning rate of each step; told the validation error after each epoch."""

    def __init__(self, settings: ScheduleSettings, base_rate: float, total_steps: int) -> None:
        self._settings, self._base_rate, self._total_steps = settings, base_rate, total_steps
        self._best_error = float("inf")
        self._stalled_epochs = 0
        self._dropped = 0

    def rate(self, step: int) -> float:
        """Return the rate of a step, counted from 0; always above 0."""
        if self._settings.kind == "linear-tail":
            tail_steps = max(1.0, self._total_steps * self._settings.tail)
            return self._base_rate * min(1.0, max(1, self._total_steps - step) / tail_steps)
        return self._base_rate / 10.0**self._dropped

    def after_epoch(self, validation_error: float) -> None:
        """Take the validation error, 0 to 1, into account."""
        if validation_error < self._best_error:
            self._best_error, self._stalled_epochs = validation_error, 0
            return
        self._stalled_epochs += 1
        if self._stalled_epochs >= self._settings.patience_epochs and self._dropped < self._settings.drops:
            self._dropped, self._stalled_epochs = self._dropped + 1, 0

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {"best_error": self._best_error, "stalled_epochs": self._stalled_epochs, "dropped": self._dropped}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's state."""
        self._best_error = float(state["best_error"])
        self._stalled_epochs, self._dropped = int(state["stalled_epochs"]), int(state["dropped"])
