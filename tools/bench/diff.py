"""Compare two reports of one command: which rows are slower beyond doubt.

Equal runs differ, too: by memory that came to lie elsewhere, by what else the machine did. On two idle cores four runs
of the loader differed by 2.0% from run to run, as a standard deviation, beyond what their rounds differ by, so two runs
seldom differ by 5%. Hence the rule: a row is slower if its median fell by more than is allowed and 5% more, and its
best round does not reach the other's worst.
"""

from pathlib import Path
from typing import NamedTuple

import click

from alexnet.shards.errors import InputError
from alexnet.tools.bench.report import Clock, Conditions, Report, read_report
from alexnet.tools.bench.tables import number
from alexnet.tools.console import StoppedError, tell

EQUAL_RUNS = 0.05
_LEAST_ROUNDS = 3


class Change(NamedTuple):
    """How a row changed: medians by one clock. `decides`: the row is the project's own."""

    title: str
    a: float
    b: float
    slower: bool
    decides: bool


def run_diff(file_a: Path, file_b: Path, max_slowdown: float) -> None:
    """Print how B differs from A. Raises StoppedError (exit code 1) on a real slowdown, InputError for other data."""
    a, b = read_report(file_a), read_report(file_b)
    if a.command != b.command:
        raise InputError(f"{file_b}: is of `{b.command}`, {file_a} of `{a.command}`; compare two of one command")
    if len({report.conditions.data and report.conditions.data.manifest for report in (a, b)}) > 1:
        raise InputError(f"{file_b}: was measured on other data than {file_a}; measure both on the same")
    for line in _differing(a.conditions, b.conditions):
        tell(line)
    clock: Clock = "cpu" if any(row.disturbed for row in (*a.rows, *b.rows)) else "wall"
    found = changes(a, b, max_slowdown, clock)
    if not found:
        raise InputError(f"{file_b}: has no row with {_LEAST_ROUNDS} rounds in common with {file_a}")
    click.echo(f"a second, by {clock} time:")
    for c in found:
        verdict = ("  SLOWER" if c.decides else "  slower, not counted") if c.slower else ""
        tell(f"{c.b / c.a - 1:+7.1%}  {number(c.a):>12} {number(c.b):>12}  {c.title}{verdict}")
    bound = f"{max_slowdown:.0%} beyond what equal runs differ by"
    slower = [f"{c.title} {c.b / c.a - 1:+.1%}" for c in found if c.slower and c.decides]
    if slower:
        raise StoppedError(f"slower by more than {bound}: {'; '.join(slower)}")
    click.echo(f"no row is slower by more than {bound}")


def changes(a: Report, b: Report, max_slowdown: float, clock: Clock) -> list[Change]:
    """Return the change of each row that both have with enough rounds; by wall time where CPU time says nothing."""
    old = a.named()
    found = []
    for row in b.rows:
        before = old.get(row.name)
        if before is None or min(len(before.rounds), len(row.rounds)) < _LEAST_ROUNDS:
            continue
        by = clock if row.cpu and before.cpu else "wall"
        fell = row.rate(by) < (1 - max_slowdown) * (1 - EQUAL_RUNS) * before.rate(by)
        slower = fell and max(row.rates(by)) < min(before.rates(by))
        found.append(Change(row.title, before.rate(by), row.rate(by), slower, row.group == "row"))
    return found


def _differing(a: Conditions, b: Conditions) -> list[str]:
    """Name conditions that differ: figures then compare less than they seem to."""
    old, new = _told(a), _told(b)
    return [
        f"differs: {name}: {old.get(name, 'none')} and {new.get(name, 'none')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _told(c: Conditions) -> dict[str, object]:
    told = {"CPU": c.machine.cpu, **c.machine.versions, "cores": c.cores, "threads": c.threads, "device": c.device}
    names = ("images", "batch_images", "split", "path") if c.data else ()
    return told | {name: getattr(c.data, name) for name in names}
