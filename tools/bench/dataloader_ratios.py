"""Ratios between rows of one run that must not fall, and the stages of the stream told apart by differences.

A ratio is taken round by round, between rows that ran within seconds of each other, so that a machine's drift cancels.
"""

import math
import statistics
from dataclasses import dataclass
from typing import Any

from alexnet.tools.bench.conditions import FOREIGN_LOAD_MARK
from alexnet.tools.bench.figures import spread

_THREADS_SHARE = 0.95  # of a gain by the number of threads: 1.9 for two


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Say that a row must reach so many times another one."""

    row: str
    over: str
    at_least: float
    about: str


GUARDS = (
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


def guarded(rows: dict[str, dict[str, Any]], threads: int) -> list[dict[str, Any]]:
    """Return each ratio whose rows were measured: by wall time, by CPU time, and whether it holds.

    CPU time decides where others used more than 5% of the cores beside one of the two rows.
    """
    gain = Guard(
        row="stream-float32", over="stream-1-thread", at_least=_THREADS_SHARE * threads, about=f"1 to {threads} threads"
    )
    return [_ratio(g, rows[g.row], rows[g.over]) for g in (*GUARDS, gain) if g.row in rows and g.over in rows]


def _ratio(guard: Guard, row: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    wall, cpu = (_round_by_round(row, over, key) for key in ("images_per_s", "images_per_s_all_cores_busy"))
    by = "cpu" if max(row["foreign_load"], over["foreign_load"]) > FOREIGN_LOAD_MARK else "wall"
    value = (cpu if by == "cpu" else wall)["median"]
    return {
        "about": guard.about,
        "row": guard.row,
        "over": guard.over,
        "wall": wall,
        "cpu": cpu,
        "by": by,
        "at_least": guard.at_least,
        "holds": value >= guard.at_least,
    }


def _round_by_round(row: dict[str, Any], over: dict[str, Any], key: str) -> dict[str, float]:
    pairs = zip(row["rounds"], over["rounds"], strict=False)  # a run that was interrupted has one row a round ahead
    return spread([a[key] / b[key] for a, b in pairs])


_STAGES = (
    ("read", ("read",), (), "row `read`"),
    ("entropy decoding", ("jpeg-entropy",), (), "libjpeg-turbo asked for the window's last pixel only"),
    (
        "inverse DCT, colour, mirror",
        ("jpeg-window",),
        ("jpeg-entropy",),
        "the window to uint8, less entropy decoding",
    ),
    ("to float32: mean, scale, write", ("jpeg-float32",), ("jpeg-window",), "the window to float32, less to uint8"),
    (
        "plan, queues, Python",
        ("stream-float32",),
        ("jpeg-float32", "read"),
        "the whole stream, less the decoder alone, less reading",
    ),
)


def stages_of(rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Tell where the CPU time of the float32 stream goes: microseconds an image. Empty if a row is missing.

    `plus_minus_us`: what the spread of the rounds leaves open.
    """
    needed = {name for _, plus, minus, _ in _STAGES for name in (*plus, *minus)}
    if not needed <= rows.keys():
        return []
    costs = {name: [1e6 * r["cpu_seconds"] / r["images"] for r in rows[name]["rounds"]] for name in needed}
    whole = statistics.median(costs["stream-float32"])
    stages = []
    for name, plus, minus, how in _STAGES:
        value = sum(statistics.median(costs[n]) for n in plus) - sum(statistics.median(costs[n]) for n in minus)
        open_ = math.hypot(*(_uncertainty(costs[n]) for n in (*plus, *minus)))
        stages.append({"name": name, "cpu_us": value, "plus_minus_us": open_, "share": value / whole, "how": how})
    return stages


def _uncertainty(values: list[float]) -> float:
    """Return the standard error of the median, from the spread (1.25: a median's over a mean's, for normal values)."""
    return 1.25 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
