"""Turn measured rounds into the report: a figure a row by wall time and by CPU time, its share of its limit, a verdict.

The report is plain data; `schema.py` says what it holds.
"""

import statistics
from typing import Any

from alexnet.tools.bench.loader.ratios import guarded, stages_of
from alexnet.tools.bench.loader.verdict import verdict_of
from alexnet.tools.bench.measuring.report_rows import missing_rows, row_of
from alexnet.tools.bench.measuring.rounds import Measured
from alexnet.tools.bench.schema import SCHEMA

_LISTS = {"limit": "limits", "row": "rows", "part": "parts", "peer": "peers"}
_ONE_CORE = ("storage", "read")  # kinds that use one thread, whatever there is


def report_of(
    measured: list[Measured], conditions: dict[str, Any], *, complete: bool, need: float | None
) -> dict[str, Any]:
    """Return the report of a run; `complete` is False for one that was interrupted."""
    rows = {one.row.name: _row(one, conditions) for one in measured if one.rounds}
    for row in rows.values():
        _compare_with_limit(row, rows)
    report: dict[str, Any] = {"schema": SCHEMA, "command": "dataloader", "complete": complete, "conditions": conditions}
    for group, name in _LISTS.items():
        report[name] = [rows[o.row.name] for o in measured if o.row.group == group and o.row.name in rows]
    report["missing"] = missing_rows(measured)
    report["stages"] = stages_of(rows)
    report["ratios"] = guarded(rows, conditions["threads"], conditions["cores"])
    report["tune"] = []
    report["verdict"] = verdict_of(rows, conditions, need)
    return report


def _row(one: Measured, conditions: dict[str, Any]) -> dict[str, Any]:
    row = row_of(one, _cores(one, conditions))
    for kept, r in zip(row["rounds"], one.rounds, strict=True):
        kept["bytes"] = r["amount"]
    row["mb_per_s"] = statistics.median(r["bytes"] / r["seconds"] / 1e6 for r in row["rounds"])
    return row | {"gpu": _gpu(one), "limit": one.row.limit or None, "by": one.row.by, "share_of_limit": None}


def _gpu(one: Measured) -> dict[str, float]:
    """Return how busy the GPU and its JPEG engine were, where a row tells it."""
    told = [r.get("more", {}) for r in one.rounds]
    names = sorted({name for more in told for name in more})
    return {name: statistics.median(more[name] for more in told if name in more) for name in names}


def _cores(one: Measured, conditions: dict[str, Any]) -> int:
    """Return how many cores a row could keep busy."""
    threads = 1 if one.row.kind in _ONE_CORE else int(one.row.options.get("threads", conditions["threads"]))
    return min(threads, int(conditions["cores"]))


def _compare_with_limit(row: dict[str, Any], rows: dict[str, dict[str, Any]]) -> None:
    """Fill in the shares, by wall time and by CPU time; the latter means nothing of storage and of a GPU."""
    by, limit = row.pop("by"), rows.get(row["limit"])
    if limit is None:
        return
    if by == "mb_per_s":
        row["share_of_limit"] = {"wall": row["mb_per_s"] / limit["mb_per_s"], "cpu": None}
        return
    wall, cpu = (row[k]["median"] / limit[k]["median"] for k in ("images_per_s", "images_per_s_all_cores_busy"))
    row["share_of_limit"] = {"wall": wall, "cpu": None if row["gpu"] else cpu}
