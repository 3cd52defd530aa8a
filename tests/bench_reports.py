"""Reports of benchmarks made up so that every figure is known beforehand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alexnet.tools.bench import measure
from alexnet.tools.bench.measure import Case
from alexnet.tools.bench.report import Report, Round, Row, read_report
from alexnet.tools.bench.stage import Answer

DOCS = Path(__file__).parents[1] / "docs"
CONDITIONS = read_report(DOCS / "measurements" / "dataloader.json").conditions
assert CONDITIONS.data
DATA = CONDITIONS.data


def row_of(case: Case, rate: float, *, foreign: float = 0.0, wall: float = 1.0, factors: Any = (1, 0.99, 1.01)) -> Row:
    """Make rounds up: in each, all cores of a row are busy for a second, of which `wall` is what the clock saw."""
    rounds = [
        Round(amount=rate * f, seconds=1 / wall, cpu_seconds=case.cores, foreign_load=foreign, peak_bytes=500_000_000)
        for f in factors
    ]
    return measure.row_of(case, Answer(settings="so", before_bytes=200_000_000), rounds)


def rows_of(cases: Sequence[Case], rates: dict[str, float], **how: Any) -> dict[str, Row]:
    """Return the rows of cases that have a rate, with shares of their limits."""
    rows = {case.name: row_of(case, rates[case.name], **how) for case in cases if case.name in rates}
    return {row.name: row for row in measure.with_shares(cases, rows)}


def report_of(rows: dict[str, Row], **more: Any) -> Report:
    """Return a report of rows, measured where the project's own were."""
    given: dict[str, Any] = {"command": "dataloader", "complete": True, "conditions": CONDITIONS, "verdict": "Fast."}
    return Report(rows=tuple(rows.values()), **given | more)


def on_data(**changes: Any) -> Any:
    """Return the conditions with other data."""
    return replace(CONDITIONS, data=replace(DATA, **changes))
