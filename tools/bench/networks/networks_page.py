"""Draw the reports of `alexnet-bench model` and `train` as one self-contained page."""

from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element

from alexnet.tools.bench.measuring.page_parts import (
    Limit,
    bars,
    conditions_section,
    how,
    missing_section,
    page,
    ratios_section,
    section,
    table,
)
from alexnet.tools.bench.networks.model_table import machine_rate

_PARTS = ("forward", "backward", "update", "rest", "communication")


def networks_page(report: dict[str, Any]) -> str:
    """Return the page as HTML; the same report gives the same text."""
    machine = [row for row in report["limits"] if "unit" in row]
    alone = [row for row in report["limits"] if "unit" not in row]
    rows = [*alone, *report["rows"], *report["peers"]]
    networks = [row for row in rows if "arch" in row]
    title = "Networks in training" if report["command"] == "model" else "Training on data"
    loader = [row for row in rows if "arch" not in row]
    return page(
        title,
        report["verdict"],
        section(
            "By wall time",
            "Images a second: the bar is the median, a dot is a round, the dashed line is what arithmetic and memory "
            "allow layer by layer.",
            bars(networks, "images_per_s", _limit_by("wall")),
        ),
        section(
            "With all cores busy",
            "The same by CPU time, for a CPU that others use, too; what threads spin while they wait is in it.",
            bars(networks, "images_per_s_all_cores_busy", _limit_by("cpu")),
        ),
        [section("The stream alone", "", bars(loader, "images_per_s", lambda _: None))] if loader else [],
        _step(networks),
        _machine(machine),
        ratios_section(report["ratios"]),
        section(
            "How each was run", "", table(("row", "settings"), [(row["title"], how(row)) for row in rows], "plain")
        ),
        missing_section(report["missing"]),
        conditions_section(report["conditions"]),
    )


def _limit_by(clock: str) -> Limit:
    """Return the roofline of the rows that were judged by a clock."""
    return lambda row: row["limits"]["layers"] if row["limits_by"] == clock else None


def _step(rows: Sequence[dict[str, Any]]) -> Element:
    caption = "Milliseconds, medians. Communication is part of forward and backward, measured once more by itself."
    cells = [(row["title"], f"{row['step_ms']['median']:,.1f}", *_parts(row), *_shares(row)) for row in rows]
    heads = ("row", "step", *_PARTS, "of arithmetic", "of layers", "of best kernels")
    return section("A step", caption, table(heads, cells, "plain"))


def _parts(row: dict[str, Any]) -> list[str]:
    parts = row["parts_ms"] or {}
    return ["" if parts.get(name) is None else f"{parts[name]:,.1f}" for name in _PARTS]


def _shares(row: dict[str, Any]) -> list[str]:
    share = row["share_of_limit"]
    return ["" if share[name] is None else f"{share[name]:.0%}" for name in ("arithmetic", "layers", "best_kernels")]


def _machine(limits: Sequence[dict[str, Any]]) -> list[Element]:
    if not limits:
        return []
    cells = [(limit["title"], machine_rate(limit), limit["settings"]) for limit in limits]
    return [section("The machine", "", table(("limit", "", "settings"), cells, "plain"))]
