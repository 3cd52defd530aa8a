"""Compare two reports of `alexnet-bench dataloader`, with a test that knows their spread.

A row is slower only if it is slower by more than is allowed *and* the rounds show it: a one-sided Welch test of the
logarithms of the rates, against the allowed slowdown, at 5% for all rows together (Bonferroni). Only rows of this
pipeline decide; a limit that is slower says that the machine is.
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
from alexnet.tools.bench.dataloader_table import console
from alexnet.tools.bench.schema import read_report
from alexnet.tools.command import StoppedError

_ERROR = 0.05  # chance of one false alarm or more, if nothing changed
_LEAST_ROUNDS = 3
_SAME = ("cores", "threads", "device", "batch_images", "split", "images")


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


def run_diff(file_a: Path, file_b: Path, max_slowdown: float) -> None:
    """Print how B differs from A. Raises StoppedError (exit code 1) on a real slowdown."""
    a, b = read_report(file_a), read_report(file_b)
    if a["conditions"]["manifest"] != b["conditions"]["manifest"]:
        raise InputError(f"{file_b}: was measured on other data than {file_a}; measure both on the same")
    for line in differing(a["conditions"], b["conditions"]):
        click.echo(line)
    by_cpu = any(row["disturbed"] for report in (a, b) for row in report["rows"])
    key = "images_per_s_all_cores_busy" if by_cpu else "images_per_s"
    found = changes(a, b, max_slowdown, key)
    if not found:
        raise InputError(f"{file_b}: has no row with {_LEAST_ROUNDS} rounds in common with {file_a}")
    _print(found, by_cpu)
    slower = [f"{c.title} {c.ratio - 1:+.1%}" for c in found if c.slower and c.decides]
    if slower:
        raise StoppedError(f"slower by more than {max_slowdown:.0%}: {'; '.join(slower)}")
    click.echo(f"no row is slower by more than {max_slowdown:.0%} beyond what its rounds leave open")


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Name conditions that differ: figures then compare less than they seem to."""
    pairs = [(name, a[name], b[name]) for name in _SAME]
    pairs.append(("CPU", a["machine"]["cpu"], b["machine"]["cpu"]))
    pairs += [
        (name, a["machine"]["versions"].get(name, "none"), b["machine"]["versions"].get(name, "none"))
        for name in sorted(a["machine"]["versions"].keys() | b["machine"]["versions"].keys())
    ]
    return [f"differs: {name}: {old} and {new}" for name, old, new in pairs if old != new]


def changes(a: dict[str, Any], b: dict[str, Any], max_slowdown: float, key: str) -> list[Change]:
    """Return the change of each row that both have with enough rounds."""
    groups = ("limits", "rows", "peers")
    old = {row["name"]: row for group in groups for row in a[group]}
    pairs = [(group, old[row["name"]], row) for group in groups for row in b[group] if row["name"] in old]
    pairs = [(g, x, y) for g, x, y in pairs if min(len(_rates(x, key)), len(_rates(y, key))) >= _LEAST_ROUNDS]
    alpha = _ERROR / max(1, sum(group == "rows" for group, _, _ in pairs))
    found = []
    for group, x, y in pairs:
        p = slowdown_p(_rates(x, key), _rates(y, key), max_slowdown)
        before, after = statistics.median(_rates(x, key)), statistics.median(_rates(y, key))
        slower = after < (1 - max_slowdown) * before and p < alpha
        found.append(
            Change(
                title=y["title"], a=before, b=after, ratio=after / before, p=p, slower=slower, decides=group == "rows"
            )
        )
    return found


def slowdown_p(a: list[float], b: list[float], max_slowdown: float) -> float:
    """Return how likely rates `b` at most are if they were those of `a` less the allowed slowdown."""
    allowed = [math.log(rate * (1 - max_slowdown)) for rate in a]
    measured = [math.log(rate) for rate in b]
    if statistics.pvariance(allowed) == statistics.pvariance(measured) == 0:  # no spread: the sign decides
        return 0.0 if measured[0] < allowed[0] else 1.0
    return float(stats.ttest_ind(measured, allowed, equal_var=False, alternative="less").pvalue)


def _rates(row: dict[str, Any], key: str) -> list[float]:
    return [r[key] for r in row["rounds"] if r[key] > 0]


def _print(found: list[Change], by_cpu: bool) -> None:
    table = Table(
        "", "A", "B", "change", "p", "", caption="images/s by CPU time" if by_cpu else "images/s by wall time"
    )
    for c in found:
        verdict = ("SLOWER" if c.decides else "slower, not counted") if c.slower else ""
        table.add_row(c.title, f"{c.a:,.0f}", f"{c.b:,.0f}", f"{c.ratio - 1:+.1%}", f"{c.p:.3f}", verdict)
    console().print(table)
