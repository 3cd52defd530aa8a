"""Show how far long work is: a bar where there is a terminal, plain lines elsewhere, JSON events for machines.

All three say the same: how much of how much, how fast, how long it will still take. What the work is, they are told.
"""

import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

import click
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

PLAIN_SECONDS = 30.0
EVENT_SECONDS = 1.0
_BARS_A_SECOND = 4  # drawing takes 0.4% of the core that does the work
_BAR_WIDTH = 24


@dataclass(frozen=True, kw_only=True)
class Amount:
    """Say how much of some work is done.

    `event`: its name in JSON. `stage`: what is being done, where it has several parts, which are measured apart.
    `total`: None where it is not known. `unit`: `bytes`, or what is counted. `counts`: found or made on the way, by
    name.
    """

    event: str
    done: int
    total: int | None
    unit: str
    stage: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


@contextmanager
def progress(*, as_json: bool, stream: TextIO | None = None) -> Iterator["ProgressView"]:
    """Show progress while a block runs, on standard output or another stream, and clean up however the block ends."""
    out = stream or sys.stdout
    console = Console(file=out)  # a terminal that cannot write over its lines, as an editor's or a CI's, gets lines
    moves = out.isatty() and console.is_terminal and not console.is_dumb_terminal
    view = JsonEvents(out) if as_json else Bar(out) if moves else PlainLines(out)
    try:
        yield view
    finally:
        view.close()


class ProgressView(ABC):
    """Show amounts as they are told, with the mean pace of each stage from the first amount that is told of it on."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._stage: str | None = None
        self._from_seconds, self._from_done = 0.0, 0

    def update(self, amount: Amount) -> None:
        """Show how far the work is, if it is time to."""
        begins = amount.stage != self._stage
        if begins:
            self._stage, self._from_seconds, self._from_done = amount.stage, self._clock(), amount.done
        self._show(amount, begins)

    def pace(self, amount: Amount) -> tuple[float | None, float | None]:
        """Return how fast the stage goes, per second, and how many seconds are left; None where it is not known."""
        seconds, done = self._clock() - self._from_seconds, amount.done - self._from_done
        if seconds <= 0 or done <= 0:
            return None, None
        return done / seconds, None if amount.total is None else (amount.total - amount.done) * seconds / done

    @abstractmethod
    def _show(self, amount: Amount, begins: bool) -> None:
        """Show an amount, with which a stage may begin."""

    def close(self) -> None:  # noqa: B027 (of lines, there is nothing to take away)
        """Show the last amount where that is of use, and take away what moves."""


def shown(view: ProgressView, check: Callable[[], None], told: list[Amount]) -> Callable[[Amount], None]:
    """Return what shows amounts, after a `check`, and keeps in `told` the first of progress and the last."""

    def on_progress(amount: Amount) -> None:
        check()
        if amount.event == "progress":
            told[1:] = [amount]  # behind the first: what earlier calls did
        view.update(amount)

    return on_progress


class Bar(ProgressView):
    """A bar with a line beside it; it appears with the first amount and leaves nothing behind."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._bars = Bars(
            BarColumn(_BAR_WIDTH),
            TextColumn("{task.description}"),
            console=Console(file=stream),
            transient=True,
            refresh_per_second=_BARS_A_SECOND,
            redirect_stdout=False,  # nothing is printed meanwhile, and what goes elsewhere must stay there
            redirect_stderr=False,
        )
        self._task: TaskID | None = None

    def _show(self, amount: Amount, begins: bool) -> None:
        if self._task is None:
            self._task = self._bars.add_task("")
            self._bars.start()
        line = sentence(amount, *self.pace(amount))
        self._bars.update(self._task, completed=amount.done, total=amount.total, description=line)

    def close(self) -> None:
        """Take it away."""
        if self._task is not None:
            self._bars.stop()


class PlainLines(ProgressView):
    """A line every 30 seconds, for logs."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, clock)
        self._due = clock() + PLAIN_SECONDS

    def _show(self, amount: Amount, begins: bool) -> None:
        if self._clock() >= self._due:
            self._due = self._clock() + PLAIN_SECONDS
            click.echo(sentence(amount, *self.pace(amount)), file=self._stream)


class JsonEvents(ProgressView):
    """An event a second and at the beginning and end of each stage, one line each, for machines."""

    _due = 0.0
    _unsaid: tuple[Amount, float | None, float | None] | None = None

    def _show(self, amount: Amount, begins: bool) -> None:
        if begins:
            self.close()
        self._unsaid = amount, *self.pace(amount)
        if begins or self._clock() >= self._due:
            self.close()

    def close(self) -> None:
        """Print the last amount, if it has not been."""
        if self._unsaid is not None:
            say(self._stream, **event(*self._unsaid))
            self._unsaid, self._due = None, self._clock() + EVENT_SECONDS


def say(stream: TextIO | None = None, **fields: Any) -> None:
    """Print one event, an object a line."""
    click.echo(json.dumps(fields), file=stream)


def event(amount: Amount, per_second: float | None, seconds_left: float | None) -> dict[str, Any]:
    """Return what a machine is told."""
    return {
        "event": amount.event,
        **({"stage": amount.stage} if amount.stage else {}),
        "done": amount.done,
        "total": amount.total,
        "unit": amount.unit,
        **amount.counts,
        f"{amount.unit}_per_s": None if per_second is None else round(per_second, 1),
        "seconds_left": None if seconds_left is None else round(seconds_left),
    }


def sentence(amount: Amount, per_second: float | None, seconds_left: float | None) -> str:
    """Return what people are told, in one line."""
    what = f"{amount.event} {amount.stage}: " if amount.stage else ""
    parts = [what + _share(amount)]
    if per_second is not None:
        parts.append(f"{_quantity(per_second, amount.unit)}/s")
    parts += [f"{count:,} {name}" for name, count in amount.counts.items()]
    if seconds_left is not None:
        parts.append(f"{_duration(seconds_left)} left")
    return ", ".join(parts)


def _share(amount: Amount) -> str:
    if amount.total is None:
        return _quantity(amount.done, amount.unit)
    share = amount.done / amount.total if amount.total else 1.0
    if amount.unit == "bytes":
        return f"{amount.done / 1e6:,.0f} of {amount.total / 1e6:,.0f} MB ({share:.0%})"
    return f"{amount.done:,} of {amount.total:,} {amount.unit} ({share:.0%})"


def _quantity(count: float, unit: str) -> str:
    return f"{count / 1e6:,.0f} MB" if unit == "bytes" else f"{count:,.0f} {unit}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
