"""The loader's guarded ratios, and the stages of the stream told apart by differences between rows."""

import math
import statistics
from typing import Any

from alexnet.tools.bench.guards import BESIDE_TRAINER, DATALOADER, THREADS_SHARE, Guard, ratio_of


def guarded(rows: dict[str, dict[str, Any]], threads: int, cores: int) -> list[dict[str, Any]]:
    """Return each ratio whose rows were measured: by wall time, by CPU time, and whether it holds.

    CPU time decides where others used more than 5% of the cores beside one of the two rows.
    """
    asked = THREADS_SHARE * min(threads, cores)  # more threads than cores gain nothing
    gain = Guard(row="stream-float32", over="stream-1-thread", at_least=asked, about=f"1 to {threads} threads")
    known = [g for g in (*DATALOADER, gain) if {g.row, g.over} <= rows.keys()]
    return [ratio_of(g, rows[g.row], rows[g.over], by_cpu=g is gain) for g in known] + _beside_trainer(rows)


def _beside_trainer(rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the stream beside a trainer over the stream alone with as many threads, by wall time.

    CPU time would not do: the trainer's is in it.
    """
    alone = [name for name in rows if name.startswith("stream-") and name.endswith(("-thread", "-threads"))]
    if not alone:
        return []
    over = max(alone, key=lambda name: int(name.split("-")[1]))  # what the rows beside a trainer run with
    ratios = []
    for where, process, at_least in (("here", "this", BESIDE_TRAINER), ("elsewhere", "another", None)):
        about = f"the stream beside a trainer in {process} process over the stream alone"
        guard = Guard(row=f"stream-beside-trainer-{where}", over=over, at_least=at_least, about=about)
        if guard.row in rows:
            ratios.append(ratio_of(guard, rows[guard.row], rows[over], by_wall=True))
    return ratios


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
