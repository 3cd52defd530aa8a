"""What a report of any command has to compare: rows with their rates, round by round."""

from dataclasses import dataclass
from typing import Any

WALL, CPU = "wall", "cpu"
_GROUPS = ("limits", "rows", "peers")
_MACHINES = "per_s"  # of rows that count operations or bytes instead of images


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Hold a row's rates by wall time and by CPU time, one a round. `decides`: it is the project's own."""

    name: str
    title: str
    decides: bool
    disturbed: bool
    rates: dict[str, list[float]]


def comparable(report: dict[str, Any]) -> list[Compared]:
    """Return the rows of a report. Those of `prep` are known by wall time only, its bound by CPU time only."""
    if report["command"] == "prep":
        return _of_prep(report)
    return [_of_row(group, row) for group in _GROUPS for row in report[group]]


def _of_row(group: str, row: dict[str, Any]) -> Compared:
    key = _MACHINES if _MACHINES in row else "images_per_s"
    rates = {
        by: [r[name] for r in row["rounds"] if r[name] > 0]
        for by, name in ((WALL, key), (CPU, f"{key}_all_cores_busy"))
    }
    return Compared(
        name=row["name"], title=row["title"], decides=group == "rows", disturbed=row["disturbed"], rates=rates
    )


def _of_prep(report: dict[str, Any]) -> list[Compared]:
    def compared(name: str, rates: list[float], *, decides: bool) -> Compared:
        return Compared(name=name, title=name, decides=decides, disturbed=False, rates={WALL: rates, CPU: rates})

    bound = compared("bound: one core, decode + resize + encode", report["bound_rounds"], decides=False)
    return [bound, *(compared(f"{row['workers']} workers", row["rounds"], decides=True) for row in report["rows"])]
