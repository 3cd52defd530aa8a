"""Compare two reports of one command of `alexnet-bench`, with a test that knows their spread.

A row is slower only if it is slower by more than is allowed *and* the rounds show it: a one-sided Welch test of the
logarithms of the rates, against the allowed slowdown, at 5% for all rows together (Bonferroni). What changes from run
to run but not from round to round is no part of the rounds' spread and is added to it: `repeatability.py` measures it.
Only rows of this project decide; a limit that is slower says that the machine is.
"""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from scipy import stats

from alexnet.shards.errors import InputError
from alexnet.tools.bench.comparable import CPU, WALL, Compared, comparable
from alexnet.tools.bench.measuring.console import console
from alexnet.tools.bench.schema import read_report
from alexnet.tools.console import StoppedError, tell

_ERROR = 0.05  # chance of one false alarm or more, if nothing changed
RUN_TO_RUN = 0.02
"""What equal runs differ by beyond their rounds, as a standard deviation; docs/measurements.md has this machine's."""
_LEAST_ROUNDS = 3
_SAME = (
    "cores",
    "threads",
    "device",
    "batch_images",
    "split",
    "images",
    "source",
    "entries",
    "pillow",
    "libjpeg_turbo",
)


@dataclass(frozen=True, kw_only=True)
class Change:
    """Hold how a row changed. `ratio`: of medians, B over A. `p`: of B's rounds, were the slowdown the allowed one."""

    title: str
    a: float
    b: float
    ratio: float
    p: float
    slower: bool
    decides: bool


def run_diff(file_a: Path, file_b: Path, max_slowdown: float, run_to_run: float = RUN_TO_RUN) -> None:
    """Print how B differs from A. Raises StoppedError (exit code 1) on a real slowdown."""
    a, b = read_report(file_a), read_report(file_b)
    if a["command"] != b["command"]:
        raise InputError(f"{file_b}: is of `{b['command']}`, {file_a} of `{a['command']}`; compare two of one command")
    if a["conditions"].get("manifest") != b["conditions"].get("manifest"):
        raise InputError(f"{file_b}: was measured on other data than {file_a}; measure both on the same")
    for line in differing(a["conditions"], b["conditions"]):
        tell(line)
    rows_a, rows_b = comparable(a), comparable(b)
    by = CPU if _by_cpu(a, [*rows_a, *rows_b]) else WALL
    found = changes(rows_a, rows_b, max_slowdown, by, run_to_run)
    if not found:
        raise InputError(f"{file_b}: has no row with {_LEAST_ROUNDS} rounds in common with {file_a}")
    _print(found, by)
    slower = [f"{c.title} {c.ratio - 1:+.1%}" for c in found if c.slower and c.decides]
    if slower:
        raise StoppedError(f"slower by more than {max_slowdown:.0%}: {'; '.join(slower)}")
    click.echo(f"no row is slower by more than {max_slowdown:.0%} beyond what its rounds leave open")


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Name conditions that differ: figures then compare less than they seem to."""
    pairs = [(name, a[name], b[name]) for name in _SAME if name in a and name in b]
    if "machine" in a and "machine" in b:
        old, new = a["machine"]["versions"], b["machine"]["versions"]
        pairs.append(("CPU", a["machine"]["cpu"], b["machine"]["cpu"]))
        pairs += [(name, old.get(name, "none"), new.get(name, "none")) for name in sorted(old.keys() | new.keys())]
    return [f"differs: {name}: {old} and {new}" for name, old, new in pairs if old != new]


def changes(
    a: list[Compared], b: list[Compared], max_slowdown: float, by: str, run_to_run: float = RUN_TO_RUN
) -> list[Change]:
    """Return the change of each row that both have with enough rounds."""
    old = {row.name: row for row in a}
    pairs = [(old[row.name], row) for row in b if row.name in old]
    pairs = [(x, y) for x, y in pairs if min(len(x.rates[by]), len(y.rates[by])) >= _LEAST_ROUNDS]
    alpha = _ERROR / max(1, sum(y.decides for _, y in pairs))
    return [
        _change(x, y, slowdown_p(x.rates[by], y.rates[by], max_slowdown, run_to_run), max_slowdown, by, alpha)
        for x, y in pairs
    ]


def slowdown_p(a: list[float], b: list[float], max_slowdown: float, run_to_run: float = 0.0) -> float:
    """Return how likely rates `b` at most are if they were those of `a` less the allowed slowdown.

    Welch's test with his degrees of freedom. `run_to_run`: a standard deviation, as a share, that each run's rates have
    in common.
    """
    allowed = [math.log(rate * (1 - max_slowdown)) for rate in a]
    measured = [math.log(rate) for rate in b]
    parts = [statistics.variance(rates) / len(rates) for rates in (allowed, measured)]
    variance = sum(parts) + 2 * run_to_run**2
    difference = statistics.fmean(measured) - statistics.fmean(allowed)
    if variance == 0:  # the sign decides
        return 0.0 if difference < 0 else 1.0
    within = [part**2 / (len(rates) - 1) for part, rates in zip(parts, (allowed, measured), strict=True)]
    freedom = sum(parts) ** 2 / sum(within) if sum(within) else math.inf
    return float(stats.t.cdf(difference / math.sqrt(variance), freedom))


def _change(x: Compared, y: Compared, p: float, max_slowdown: float, by: str, alpha: float) -> Change:
    before, after = statistics.median(x.rates[by]), statistics.median(y.rates[by])
    slower = after < (1 - max_slowdown) * before and p < alpha
    return Change(title=y.title, a=before, b=after, ratio=after / before, p=p, slower=slower, decides=y.decides)


def _by_cpu(report: dict[str, Any], rows: list[Compared]) -> bool:
    """Say whether CPU time decides: where others used the machine, and it is the CPU that computes."""
    return any(row.disturbed for row in rows) and report["conditions"].get("device") != "cuda"


def _print(found: list[Change], by: str) -> None:
    table = Table("", "A", "B", "change", "p", "", caption=f"a second, by {'CPU' if by == CPU else 'wall'} time")
    for c in found:
        verdict = ("SLOWER" if c.decides else "slower, not counted") if c.slower else ""
        table.add_row(c.title, _figure(c.a), _figure(c.b), f"{c.ratio - 1:+.1%}", f"{c.p:.3f}", verdict)
    console().print(table)


def _figure(rate: float) -> str:
    return f"{rate:,.1f}" if rate < 1_000 else f"{rate:,.0f}"
