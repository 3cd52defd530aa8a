"""What the rows of every report have: rates by wall time and by CPU time, load, memory, and the rounds."""

from typing import Any

from alexnet.tools.bench.measuring.conditions import FOREIGN_LOAD_MARK
from alexnet.tools.bench.measuring.figures import spread
from alexnet.tools.bench.measuring.rounds import Measured


def row_of(one: Measured, cores: int) -> dict[str, Any]:
    """Return a measured row. `cores`: how many it could keep busy."""
    rounds = [
        {
            "images": r["images"],
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
        "cpu_s_per_1000_images": 1000 * cpu / images if images else None,
        "cores_busy": cpu / seconds,
        "cores": cores,
        "foreign_load": foreign,
        "disturbed": foreign > FOREIGN_LOAD_MARK,
        "memory_mb": {"before": one.ready["before_bytes"] / 1e6, "peak": one.rounds[-1]["peak_bytes"] / 1e6},
        "settings": one.ready["settings"],
        "versions": one.ready["versions"],
        "rounds": rounds,
    }


def missing_rows(measured: list[Measured]) -> list[dict[str, str]]:
    """Return what was not measured, and why."""
    return [
        {"name": one.row.name, "title": one.row.title, "why": one.why or "the run was interrupted before it"}
        for one in measured
        if one.why or not one.rounds
    ]
