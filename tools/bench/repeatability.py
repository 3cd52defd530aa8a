"""How far equal runs differ: what `alexnet-bench diff` cannot see in the rounds of two runs.

    python -m alexnet.tools.bench.repeatability RUN.json RUN.json ...

The runs are of one command on one machine, one after another, with nothing changed between them. Of each row, the
variance of the runs' mean logarithms is what the rounds' own variance gives, plus what changes from run to run only
(where memory came to lie, which cores, what else the machine does). That part is told here.
"""

import math
import statistics
import sys
from itertools import pairwise
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.tools.bench.comparable import CPU, WALL, Compared, comparable
from alexnet.tools.bench.diff import changes
from alexnet.tools.bench.schema import read_report

_LEAST_RUNS = 3


def run_to_run(runs: list[list[list[float]]]) -> tuple[float, float]:
    """Return the deviation from run to run beyond that of the rounds, as a share, and the runs' largest difference.

    `runs`: of each row, the rates of each run's rounds. The deviation is pooled over the rows.
    """
    beyond: list[float] = []
    largest = 0.0
    for rates in runs:
        logarithms = [[math.log(rate) for rate in one] for one in rates]
        means = [statistics.fmean(one) for one in logarithms]
        within = statistics.fmean(statistics.variance(one) / len(one) for one in logarithms)
        beyond.append(statistics.variance(means) - within)
        medians = [statistics.median(one) for one in rates]
        largest = max(largest, max(medians) / min(medians) - 1)
    return math.sqrt(max(0.0, statistics.fmean(beyond))), largest


def false_alarms(runs: list[list[Compared]], max_slowdown: float, by: str) -> tuple[int, int]:
    """Return how many comparisons of neighbouring runs cried, and how many there were: nothing has changed."""
    cried = [
        any(c.slower and c.decides for c in changes(a, b, max_slowdown, by))
        for one, other in pairwise(runs)
        for a, b in ((one, other), (other, one))
    ]
    return sum(cried), len(cried)


def report_lines(files: list[Path]) -> list[str]:
    """Return what the runs say, in lines. Raises InputError for fewer than three runs, or of different commands."""
    if len(files) < _LEAST_RUNS:
        raise InputError(f"{len(files)} files: must be at least {_LEAST_RUNS} runs of one command")
    reports = [read_report(file) for file in files]
    if len({report["command"] for report in reports}) > 1:
        raise InputError("the files are of different commands; give runs of one")
    runs = [comparable(report) for report in reports]
    names = [row.name for row in runs[0] if all(row.name in {r.name for r in run} for run in runs)]
    lines = []
    for by in (WALL, CPU):
        rates = [[next(r for r in run if r.name == name).rates[by] for run in runs] for name in names]
        whole = [of_row for of_row in rates if all(len(one) > 1 for one in of_row)]
        if not whole:
            continue
        deviation, largest = run_to_run(whole)
        cried, compared = false_alarms(runs, 0.05, by)
        lines.append(
            f"by {by} time: {deviation:.1%} from run to run beyond the rounds ({len(whole)} rows, {len(runs)} runs); "
            f"largest difference of medians {largest:.1%}; `diff` cried in {cried} of {compared} comparisons"
        )
    return lines


def main() -> None:
    """Print it."""
    try:
        print("\n".join(report_lines([Path(name) for name in sys.argv[1:]])))
    except InputError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
