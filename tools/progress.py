"""Show how far long work is: a bar where there is a terminal, plain lines elsewhere, JSON events for machines.

All three say the same: how much of how much, how fast, how long it will still take. What the work is, they are told.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

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


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Say how fast work goes, per second, and how many seconds are left; None where it is not known."""

    per_second: float | None
    seconds_left: float | None


class Stopwatch:
    """Measure the pace of each stage, from the first amount that is told of it on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage: str | None = None
        self._from_seconds, self._from_done = 0.0, 0

    def pace(self, amount: Amount) -> Pace:
        """Return the mean pace of the stage so far."""
        if amount.stage != self._stage:
            self._stage, self._from_seconds, self._from_done = amount.stage, self._clock(), amount.done
        seconds, done = self._clock() - self._from_seconds, amount.done - self._from_done
        if seconds <= 0 or done <= 0:
            return Pace(per_second=None, seconds_left=None)
        left = None if amount.total is None else (amount.total - amount.done) * seconds / done
        return Pace(per_second=done / seconds, seconds_left=left)


class ProgressView(Protocol):
    """Show amounts as they are told; `close` leaves the screen clean."""

    def update(self, amount: Amount) -> None:
        """Show how far the work is, if it is time to."""

    def close(self) -> None:
        """Show the last amount where that is of use, and take away what moves."""


@contextmanager
def progress(*, as_json: bool, stream: TextIO | None = None) -> Iterator[ProgressView]:
    """Show progress while a block runs, on standard output or another stream, and clean up however the block ends."""
    out = stream or sys.stdout
    view: ProgressView = JsonEvents(out) if as_json else Bar(out) if _can_move(out) else PlainLines(out)
    try:
        yield view
    finally:
        view.close()


def _can_move(stream: TextIO) -> bool:
    """Say whether a stream is a terminal, and one that can write over its lines: an editor's or a CI's often cannot."""
    console = Console(file=stream)
    return stream.isatty() and console.is_terminal and not console.is_dumb_terminal


class Bar:
    """A bar with a line beside it; it appears with the first amount and leaves nothing behind."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        columns = (BarColumn(_BAR_WIDTH), TextColumn("{task.description}"))
        console = Console(file=stream)
        self._bars = Bars(
            *columns,
            console=console,
            transient=True,
            refresh_per_second=_BARS_A_SECOND,
            redirect_stdout=False,  # nothing is printed meanwhile, and what goes elsewhere must stay there
            redirect_stderr=False,
        )
        self._task: TaskID | None = None
        self._stopwatch = Stopwatch(clock)

    def update(self, amount: Amount) -> None:
        """Move the bar."""
        if self._task is None:
            self._task = self._bars.add_task("")
            self._bars.start()
        line = sentence(amount, self._stopwatch.pace(amount))
        self._bars.update(self._task, completed=amount.done, total=amount.total, description=line)

    def close(self) -> None:
        """Take it away."""
        if self._task is not None:
            self._bars.stop()


class PlainLines:
    """A line every 30 seconds, for logs."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._stopwatch = Stopwatch(clock)
        self._due = clock() + PLAIN_SECONDS

    def update(self, amount: Amount) -> None:
        """Print a line if one is due."""
        pace = self._stopwatch.pace(amount)
        if self._clock() >= self._due:
            self._due = self._clock() + PLAIN_SECONDS
            click.echo(sentence(amount, pace), file=self._stream)

    def close(self) -> None:
        """Leave it at that: what came of the work is said by whoever did it."""


class JsonEvents:
    """An event a second and at the beginning and end of each stage, one line each, for machines."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._stopwatch = Stopwatch(clock)
        self._due = 0.0
        self._stage: str | None = None
        self._unsaid: Amount | None = None

    def update(self, amount: Amount) -> None:
        """Print an event if one is due."""
        begun = amount.stage != self._stage
        if begun:
            self.close()
        self._stage, self._unsaid = amount.stage, amount
        if begun or self._clock() >= self._due:
            self.close()

    def close(self) -> None:
        """Print the last amount, if it has not been."""
        if self._unsaid is None:
            return
        say(self._stream, **event(self._unsaid, self._stopwatch.pace(self._unsaid)))
        self._unsaid = None
        self._due = self._clock() + EVENT_SECONDS


def say(stream: TextIO | None = None, **fields: Any) -> None:
    """Print one event, an object a line."""
    click.echo(json.dumps(fields), file=stream)


def event(amount: Amount, pace: Pace) -> dict[str, Any]:
    """Return what a machine is told."""
    return {
        "event": amount.event,
        **({"stage": amount.stage} if amount.stage else {}),
        "done": amount.done,
        "total": amount.total,
        "unit": amount.unit,
        **amount.counts,
        f"{amount.unit}_per_s": None if pace.per_second is None else round(pace.per_second, 1),
        "seconds_left": None if pace.seconds_left is None else round(pace.seconds_left),
    }


def sentence(amount: Amount, pace: Pace) -> str:
    """Return what people are told, in one line."""
    what = f"{amount.event} {amount.stage}: " if amount.stage else ""
    parts = [what + _share(amount)]
    if pace.per_second is not None:
        parts.append(f"{_quantity(pace.per_second, amount.unit)}/s")
    parts += [f"{count:,} {name}" for name, count in amount.counts.items()]
    if pace.seconds_left is not None:
        parts.append(f"{_duration(pace.seconds_left)} left")
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
