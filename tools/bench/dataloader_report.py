"""Turn measured rounds into the report: a figure a row by wall time and by CPU time, its share of its limit, a verdict.

The report is plain data; `schema.py` says what it holds.
"""

import statistics
from typing import Any

from alexnet.tools.bench.conditions import FOREIGN_LOAD_MARK
from alexnet.tools.bench.dataloader_ratios import guarded, stages_of
from alexnet.tools.bench.dataloader_rounds import Measured
from alexnet.tools.bench.dataloader_verdict import verdict_of
from alexnet.tools.bench.figures import spread
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
    report["missing"] = [
        {"name": one.row.name, "title": one.row.title, "why": one.why or "the run was interrupted before it"}
        for one in measured
        if one.why or not one.rounds
    ]
    report["stages"] = stages_of(rows)
    report["ratios"] = guarded(rows, conditions["threads"])
    report["tune"] = []
    report["verdict"] = verdict_of(rows, conditions, need)
    return report


def _row(one: Measured, conditions: dict[str, Any]) -> dict[str, Any]:
    cores = _cores(one, conditions)
    rounds = [
        {
            "images": r["images"],
            "bytes": r["bytes"],
            "seconds": r["seconds"],
            "cpu_seconds": r["cpu_seconds"],
            "foreign_load": r["foreign_load"],
            "images_per_s": r["images"] / r["seconds"],
            "images_per_s_all_cores_busy": cores * r["images"] / max(r["cpu_seconds"], 1e-9),
        }
        for r in one.rounds
    ]
    images = sum(r["images"] for r in rounds)
    seconds, cpu = (sum(r[key] for r in rounds) for key in ("seconds", "cpu_seconds"))
    foreign = sum(r["foreign_load"] * r["seconds"] for r in rounds) / seconds
    return {
        "name": one.row.name,
        "title": one.row.title,
        "images_per_s": spread([r["images_per_s"] for r in rounds]),
        "images_per_s_all_cores_busy": spread([r["images_per_s_all_cores_busy"] for r in rounds]),
        "mb_per_s": statistics.median(r["bytes"] / r["seconds"] / 1e6 for r in rounds),
        "cpu_s_per_1000_images": 1000 * cpu / images if images else None,
        "cores_busy": cpu / seconds,
        "cores": cores,
        "foreign_load": foreign,
        "disturbed": foreign > FOREIGN_LOAD_MARK,
        "limit": one.row.limit or None,
        "by": one.row.by,
        "share_of_limit": None,
        "memory_mb": {"before": one.ready["before_bytes"] / 1e6, "peak": one.rounds[-1]["peak_bytes"] / 1e6},
        "settings": one.ready["settings"],
        "versions": one.ready["versions"],
        "rounds": rounds,
    }


def _cores(one: Measured, conditions: dict[str, Any]) -> int:
    """Return how many cores a row could keep busy."""
    threads = 1 if one.row.kind in _ONE_CORE else int(one.row.options.get("threads", conditions["threads"]))
    return min(threads, int(conditions["cores"]))


def _compare_with_limit(row: dict[str, Any], rows: dict[str, dict[str, Any]]) -> None:
    """Fill in the shares, by wall time and by CPU time; storage knows no CPU time that would mean anything."""
    by, limit = row.pop("by"), rows.get(row["limit"])
    if limit is None:
        return
    if by == "mb_per_s":
        row["share_of_limit"] = {"wall": row["mb_per_s"] / limit["mb_per_s"], "cpu": None}
        return
    wall, cpu = (row[k]["median"] / limit[k]["median"] for k in ("images_per_s", "images_per_s_all_cores_busy"))
    row["share_of_limit"] = {"wall": wall, "cpu": cpu}
