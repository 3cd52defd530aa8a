"""The ratios that must not fall, with their thresholds, for every command; `ratios.py` checks them all.

A ratio is taken round by round, between rows that ran within seconds of each other, so that a machine's drift cancels.
It is judged by wall time, or by CPU time where others used the cores beside one of the two rows.
"""

from dataclasses import dataclass
from typing import Any

from alexnet.tools.bench.measuring.conditions import FOREIGN_LOAD_MARK
from alexnet.tools.bench.measuring.figures import spread


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Say that a row must reach so many times another one. `at_least`: None where nothing is asked."""

    row: str
    over: str
    at_least: float | None
    about: str


DATALOADER = (
    Guard(row="stream-uint8", over="dali-plain", at_least=1.3, about="stream to uint8 over the plain DALI graph"),
    Guard(row="stream-float32", over="dali-plain", at_least=1.5, about="stream to float32 over the plain DALI graph"),
    Guard(
        row="stream-dali-float32",
        over="dali-plain",
        at_least=0.95,
        about="stream to float32 with the DALI decoder over the plain DALI graph",
    ),
    Guard(row="stream-uint8", over="jpeg-window", at_least=0.85, about="stream to uint8 over its limit"),
    Guard(row="stream-float32", over="jpeg-window", at_least=0.75, about="stream to float32 over its limit"),
)
THREADS_SHARE = 0.95
"""Of a gain by the number of threads, 1.9 for two; by CPU time, as a stream of one thread reads on another core."""
BESIDE_TRAINER = 0.9
"""The stream while the process that takes its batches trains on the other cores, over the stream alone."""

OVER_NAIVE = 2.5
"""The network in bf16 over the naive one, on a CPU that multiplies bf16, in batches of 64."""
OVER_NAIVE_BATCH = 64
PAIR_OVER_ONE = 1.0
"""Two processes of one thread over gloo, over one process of two threads."""

PREP_SHARE_OF_BOUND = 0.9
"""One worker of the converter over one core's decode + resize + encode."""


def ratio_of(
    guard: Guard, row: dict[str, Any], over: dict[str, Any], *, by_wall: bool = False, by_cpu: bool = False
) -> dict[str, Any]:
    """Return a ratio of two rows of a report, and whether it holds. `by_wall`, `by_cpu`: whatever others did."""
    wall, cpu = (_round_by_round(row, over, key) for key in ("images_per_s", "images_per_s_all_cores_busy"))
    disturbed = max(row["foreign_load"], over["foreign_load"]) > FOREIGN_LOAD_MARK
    by = "cpu" if by_cpu or (disturbed and not by_wall) else "wall"
    value = (cpu if by == "cpu" else wall)["median"]
    return {
        "about": guard.about,
        "row": guard.row,
        "over": guard.over,
        "wall": wall,
        "cpu": cpu,
        "by": by,
        "at_least": guard.at_least,
        "holds": guard.at_least is None or value >= guard.at_least,
    }


def in_words(ratio: dict[str, Any]) -> str:
    """Return a ratio's value, with as many digits as tell it from what is asked."""
    value, asked = ratio[ratio["by"]]["median"], ratio["at_least"]
    return f"{value:.2f}" if asked is None or f"{value:.2f}" != f"{asked:.2f}" else f"{value:.4f}"


def missed(ratios: list[dict[str, Any]]) -> list[str]:
    """Return a line for each ratio that fails."""
    return [
        f"{r['about']}: {in_words(r)} by {r['by']} time, must be at least {r['at_least']:.2f}"
        for r in ratios
        if not r["holds"]
    ]


def _round_by_round(row: dict[str, Any], over: dict[str, Any], key: str) -> dict[str, float]:
    pairs = zip(row["rounds"], over["rounds"], strict=False)  # a run that was interrupted has one row a round ahead
    return spread([a[key] / b[key] for a, b in pairs])
