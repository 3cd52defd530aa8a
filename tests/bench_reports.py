"""Reports of benchmarks made up so that every figure is known beforehand."""

from collections.abc import Sequence
from typing import Any

from alexnet.tools.bench import measure
from alexnet.tools.bench.measure import Case
from alexnet.tools.bench.report import Conditions, Data, Report, Round, Row
from alexnet.tools.bench.stage import Answer
from alexnet.tools.machine import Machine

DATA = Data(
    path="/data", why="given", images=10_000, bytes_per_image=20_000, batch_images=128, manifest="0" * 64, size_px=256,
)  # fmt: skip
MACHINE = Machine(
    system="Linux", cpu="X", cores=2, memory_bytes=2**34, gpu=None, gpu_why="no GPU", versions={"torch": "2"},
)  # fmt: skip
CONDITIONS = Conditions(
    when="2026-01-01T00:00:00+00:00", machine=MACHINE, governor="performance", device="cpu", cores=2, threads=2,
    rounds=3, seconds=1.0, foreign_before=0.0, load_before=0.1, load_after=2.0, data=DATA,
)  # fmt: skip


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
    """Return a report of rows."""
    given: dict[str, Any] = {"command": "dataloader", "complete": True, "conditions": CONDITIONS, "verdict": "Fast."}
    return Report(rows=tuple(rows.values()), **given | more)
