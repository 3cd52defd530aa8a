"""Say how far the pass over a source's headers is, without slowing it down.

A pass has stages: folders are compared with a kept index, class tars are looked for, the training set is listed, then
validation. Each has its own total, so that the time left can be told. Whoever shows it decides how.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Stage = Literal["changes", "class tars", "train", "val", "md5"]
WalkUnit = Literal["bytes", "folders", "files"]

_TELL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Walked:
    """Say how far one stage is: entries found in it, and how much of its total is done; None where it is not known."""

    stage: Stage
    entries: int
    done: int
    total: int | None
    unit: WalkUnit


OnWalk = Callable[[Walked], None]
"""Told how far a pass is, at the beginning and the end of each stage and ten times a second between."""


class Walk:
    """Add up what a pass finds and tell of it; a call costs 0.2 us, so callers report some hundred entries at once."""

    def __init__(self, on_walk: OnWalk = lambda _: None, clock: Callable[[], float] = time.monotonic) -> None:
        self._on_walk, self._clock = on_walk, clock
        self._walked: Walked | None = None
        self._entries = self._done = 0
        self._due = 0.0

    def begin(self, stage: Stage, unit: WalkUnit, total: int | None = None) -> None:
        """Begin a stage, and end the one before."""
        self.end()
        self._entries = self._done = 0
        self._walked = Walked(stage=stage, entries=0, done=0, total=total, unit=unit)
        self._tell()

    def advance(self, done: int, entries: int = 0) -> None:
        """Count what was done of the stage's total, and the entries found in it."""
        self._done += done
        self._entries += entries
        if self._clock() >= self._due:
            self._tell()

    def end(self) -> None:
        """Tell where the stage ended."""
        if self._walked is not None:
            self._tell()
            self._walked = None

    def _tell(self) -> None:
        if self._walked is not None:
            last = self._walked
            self._on_walk(
                Walked(stage=last.stage, entries=self._entries, done=self._done, total=last.total, unit=last.unit)
            )
        self._due = self._clock() + _TELL_SECONDS
