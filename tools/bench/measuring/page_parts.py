"""The parts of the pages of `alexnet-bench`: a bar a row, the row's limit, and a dot a round; tables; conditions.

They look as the page of `alexnet-prep show` does, whose style sheet and markup they use, and fetch nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from typing import Any
from xml.etree.ElementTree import Element

from alexnet.tools.report.charts import svg
from alexnet.tools.report.markup import document, element

_WIDTH, _RIGHT, _ROW = 1_100.0, 90.0, 30.0
_NARROW, _WIDE, _LETTERS = 330.0, 460.0, 44  # room for titles, and how long they may be for the narrow one
_DOT = 2.4  # radius
_FEW = 100.0  # images a second: below it, tenths are told
_FACTS = ("when", "governor", "data", "manifest", "split", "batch_images", "threads", "cores", "device", "rounds")

Limit = Callable[[dict[str, Any]], float | None]


def page(title: str, verdict: str, *sections: Element | Iterable[Element]) -> str:
    """Return a page as HTML."""
    style = (files("alexnet.tools.report") / "page.css").read_text(encoding="utf-8")
    head = element("header", element("h1", title), element("p", verdict))
    return document(title, style, element("main", head, *sections))


def bars(rows: Sequence[dict[str, Any]], key: str, limit_of: Limit) -> Element:
    """Draw a bar a row; `key`: which of the two rates; `limit_of`: what a row is measured against, if anything."""
    limits = [limit_of(row) for row in rows]
    most = max((row[key]["max"] for row in rows), default=1.0) or 1.0
    most = max(most, *(limit or 0.0 for limit in limits)) if limits else most
    left = _WIDE if any(len(row["title"]) > _LETTERS for row in rows) else _NARROW
    scale = (_WIDTH - left - _RIGHT) / most
    marks: list[Element] = []
    for k, (row, limit) in enumerate(zip(rows, limits, strict=True)):
        marks += _bar(k * _ROW, left, row, key, scale)
        if limit:
            marks.append(_limit(k * _ROW, left + limit * scale))
    return svg(_WIDTH, max(1, len(rows)) * _ROW, f"Images a second of {len(rows)} rows", marks)


def _bar(top: float, left: float, row: dict[str, Any], key: str, scale: float) -> list[Element]:
    rate, rounds = row[key], [r[key] for r in row["rounds"]]
    median, low, high = (_figure(rate[k]) for k in ("median", "min", "max"))
    end = round(left + rate["median"] * scale, 1)
    tip = element("title", f"{row['title']}: {median} ({low} to {high})")
    dots = [
        element("circle", cx=round(left + v * scale, 1), cy=top + 15, r=_DOT, style="fill:var(--mark)") for v in rounds
    ]
    far = round(max(end, left + rate["max"] * scale) + 8, 1)
    return [
        element("text", row["title"], x=left - 10, y=top + 19, class_="label end"),
        element("rect", tip, x=left, y=top + 6, width=round(end - left, 1), height=18, rx=2, class_="bar"),
        *dots,
        element("text", f"{median}{' !' * row['disturbed']}", x=far, y=top + 19, class_="note start"),
    ]


def _figure(rate: float) -> str:
    return f"{rate:,.1f}" if rate < _FEW else f"{rate:,.0f}"


def _limit(top: float, x: float) -> Element:
    return element("line", x1=round(x, 1), x2=round(x, 1), y1=top + 2, y2=top + _ROW - 2, class_="median")


def ratios_section(ratios: Sequence[dict[str, Any]]) -> list[Element]:
    """Return the ratios with what is asked of them; nothing if there are none."""
    if not ratios:
        return []
    cells = [
        (
            r["about"],
            f"{r['wall']['median']:.2f}",
            f"{r['cpu']['median']:.2f}",
            "" if r["at_least"] is None else f"{r['at_least']:.2f}",
            "" if r["at_least"] is None else f"{'holds' if r['holds'] else 'fails'} by {r['by']}",
        )
        for r in ratios
    ]
    heads = ("ratio", "by wall time", "by CPU time", "at least", "")
    return [section("Ratios", "", table(heads, cells, "plain"))]


def missing_section(missing: Sequence[dict[str, str]]) -> list[Element]:
    """Return what was not measured and why; nothing if all was."""
    if not missing:
        return []
    return [section("Not measured", "", table(("row", "why"), [(m["title"], m["why"]) for m in missing], "plain"))]


def conditions_section(conditions: dict[str, Any]) -> Element:
    """Return machine, load and data."""
    machine = conditions["machine"]
    gpu = machine["gpu"]["name"] if machine["gpu"] else machine["gpu_why"]
    load = conditions["load"]
    loads = f"{load['before']:.2f} before, {load['after']:.2f} after; others before: {load['foreign_before']:.0%}"
    facts = [
        ("CPU", str(machine["cpu"])),
        ("GPU", str(gpu)),
        ("system", str(machine["system"])),
        ("load", loads),
        *((name.replace("_", " "), str(conditions[name])) for name in _FACTS if name in conditions),
        *((f"version of {name}", number) for name, number in machine["versions"].items()),
    ]
    return section("Conditions", "", table((), facts, "facts"))


def how(row: dict[str, Any]) -> str:
    """Say how a row was run: its settings and versions."""
    versions = ", ".join(f"{name} {number}" for name, number in row["versions"].items())
    return f"{row['settings']}{'; ' * bool(versions)}{versions}"


def section(title: str, caption: str, *children: Element | Iterable[Element]) -> Element:
    """Return a section with its heading."""
    return element("section", element("h2", title), element("p", caption, class_="caption"), *children)


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], kind: str) -> Element:
    """Return a table; `kind`: a class of the style sheet, `plain` or `facts`."""
    names = [element("th", name, scope="col") for name in heads]
    head = [element("thead", element("tr", names))] if names else []
    body = element("tbody", [element("tr", [element("td", cell) for cell in row]) for row in rows])
    return element("div", element("table", head, body, class_=kind), class_="scroll")
