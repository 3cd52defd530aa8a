"""Show a conversion's progress: a bar where there is a terminal, plain lines elsewhere, JSON events on request."""

import json
import sys
import time
from typing import Any, Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from alexnet.tools.convert.build import Progress

_PLAIN_SECONDS = 30.0


class ProgressView(Protocol):
    """Receive progress ten times a second."""

    def update(self, progress: Progress) -> None:
        """Show it."""

    def close(self) -> None:
        """Leave the screen clean."""


def progress_view(*, as_json: bool) -> ProgressView:
    """Choose the view that fits where the output goes."""
    if as_json:
        return JsonEvents()
    return Bar() if sys.stdout.isatty() else PlainLines()


class _Speed:
    """Turn counts into images/s of this call and seconds left."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def facts(self, progress: Progress) -> dict[str, Any]:
        seconds = time.monotonic() - self._started
        done = progress.written + progress.rejected
        speed = done / seconds if seconds else 0.0
        left = progress.total - progress.resumed - done
        return {
            "done": done + progress.resumed,
            "total": progress.total,
            "rejected": progress.rejected,
            "images_per_s": round(speed, 1),
            "seconds_left": round(left / speed) if speed else None,
        }


class Bar:
    """A bar with images/s, share done and time left."""

    def __init__(self) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.percentage:.0f}%"))
        speed = TextColumn("{task.fields[speed]} images/s, {task.fields[rejected]} rejected")
        self._bars = Bars(*columns, speed, TimeRemainingColumn(), console=Console(), transient=True)
        self._task = self._bars.add_task("", total=None, speed="", rejected=0)
        self._speed = _Speed()
        self._bars.start()

    def update(self, progress: Progress) -> None:
        """Move the bar."""
        facts = self._speed.facts(progress)
        self._bars.update(
            self._task,
            completed=facts["done"],
            total=facts["total"],
            speed=f"{facts['images_per_s']:,.0f}",
            rejected=facts["rejected"],
        )

    def close(self) -> None:
        """Take it away."""
        self._bars.stop()


class PlainLines:
    """A line every 30 seconds, for logs."""

    def __init__(self) -> None:
        self._speed = _Speed()
        self._next = time.monotonic() + _PLAIN_SECONDS

    def update(self, progress: Progress) -> None:
        """Print a line if one is due."""
        if time.monotonic() >= self._next:
            self._next += _PLAIN_SECONDS
            f = self._speed.facts(progress)
            left = "" if f["seconds_left"] is None else f", {f['seconds_left'] / 60:,.0f} min left"
            done = f"{f['done']:,}/{f['total']:,} images ({f['done'] / max(1, f['total']):.0%})"
            click.echo(f"{done}, {f['images_per_s']:,.0f} images/s, {f['rejected']:,} rejected{left}")

    def close(self) -> None:
        """Nothing to clean."""


class JsonEvents:
    """An event a second and one line each, for machines."""

    def __init__(self) -> None:
        self._speed = _Speed()
        self._next = time.monotonic()

    def update(self, progress: Progress) -> None:
        """Print an event if one is due."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 1.0
            click.echo(json.dumps({"event": "progress", **self._speed.facts(progress)}))

    def close(self) -> None:
        """Nothing to clean."""
