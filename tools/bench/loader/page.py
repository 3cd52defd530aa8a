"""Draw the loader's report as one self-contained page."""

from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element

from alexnet.tools.bench.measuring.page_parts import (
    bars,
    conditions_section,
    how,
    missing_section,
    page,
    ratios_section,
    section,
    table,
)

_BY_BYTES = ("storage-cold", "storage-cached", "memory-copy", "read")


def dataloader_page(report: dict[str, Any]) -> str:
    """Return the page as HTML; the same report gives the same text."""
    rows = [row for group in ("limits", "rows", "parts", "peers") for row in report[group]]
    images = [row for row in rows if row["name"] not in _BY_BYTES and row not in report["parts"]]
    conditions = report["conditions"]
    title = f"Data loading, {conditions['images']:,} images"
    repeated = " The data were repeated from the CPU's cache: these figures are not to be quoted."
    wall, busy = (
        {row["name"]: row[key]["median"] for row in images} for key in ("images_per_s", "images_per_s_all_cores_busy")
    )
    return page(
        title,
        report["verdict"],
        section(
            "By wall time",
            "Images a second: the bar is the median, a dot is a round, the dashed line is what the row is measured "
            "against." + repeated * conditions["repeated"],
            bars(images, "images_per_s", lambda row: wall.get(row["limit"])),
        ),
        section(
            "With all cores busy",
            "The same by CPU time: what the row would make if it had the machine to itself and kept it busy. On a "
            "machine that others use this is the figure to compare.",
            bars(
                [row for row in images if not row["gpu"]],
                "images_per_s_all_cores_busy",
                lambda row: busy.get(row["limit"]),
            ),
        ),
        _bytes_section([row for row in rows if row["name"] in _BY_BYTES]),
        _stages(report["stages"]),
        ratios_section(report["ratios"]),
        section("How each was run", "", table(("row", "settings"), [(r["title"], how(r)) for r in rows], "plain")),
        missing_section(report["missing"]),
        conditions_section(conditions),
    )


def _bytes_section(rows: Sequence[dict[str, Any]]) -> list[Element]:
    if not rows:
        return []
    cells = [(row["title"], f"{row['mb_per_s']:,.0f} MB/s", how(row)) for row in rows]
    return [section("Storage and memory", "", table(("row", "", "settings"), cells, "plain"))]


def _stages(stages: Sequence[dict[str, Any]]) -> list[Element]:
    if not stages:
        return []
    caption = "CPU time of the float32 stream, microseconds an image, from differences between rows of this run."
    cells = [
        (s["name"], f"{s['cpu_us']:,.0f} ± {s['plus_minus_us']:,.0f}", f"{s['share']:.0%}", s["how"]) for s in stages
    ]
    return [section("Where the time goes", caption, table(("stage", "µs", "share", "measured as"), cells, "plain"))]
