"""Draw a report as one self-contained page: a bar a row, the row's limit, and a dot a round.

It looks as the page of `alexnet-prep show` does, whose style sheet and markup it uses, and fetches nothing.
"""

from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any
from xml.etree.ElementTree import Element

from alexnet.tools.report.charts import svg
from alexnet.tools.report.markup import document, element

_WIDTH, _LEFT, _RIGHT, _ROW = 1_100.0, 330.0, 90.0, 30.0
_BY_BYTES = ("storage-cold", "storage-cached", "memory-copy", "read")
_DOT = 2.4  # radius


def dataloader_page(report: dict[str, Any]) -> str:
    """Return the page as HTML; the same report gives the same text."""
    style = (files("alexnet.tools.report") / "page.css").read_text(encoding="utf-8")
    rows = [row for group in ("limits", "rows", "parts", "peers") for row in report[group]]
    images = [row for row in rows if row["name"] not in _BY_BYTES and row not in report["parts"]]
    conditions = report["conditions"]
    title = f"Data loading, {conditions['images']:,} images"
    repeated = " The data were repeated from the CPU's cache: these figures are not to be quoted."
    body = element(
        "main",
        element("header", element("h1", title), element("p", report["verdict"])),
        _section(
            "By wall time",
            "Images a second: the bar is the median, a dot is a round, the dashed line is what the row is measured "
            "against." + repeated * conditions["repeated"],
            _bars(images, "images_per_s"),
        ),
        _section(
            "With all cores busy",
            "The same by CPU time: what the row would make if it had the machine to itself and kept it busy. On a "
            "machine that others use this is the figure to compare.",
            _bars(images, "images_per_s_all_cores_busy"),
        ),
        _bytes_section([row for row in rows if row["name"] in _BY_BYTES]),
        _stages(report["stages"]),
        _ratios(report["ratios"]),
        _section("How each was run", "", _table(("row", "settings"), [(r["title"], _how(r)) for r in rows], "plain")),
        _missing(report["missing"]),
        _section("Conditions", "", _table((), _facts(conditions), "facts")),
    )
    return document(title, style, body)


def _bars(rows: Sequence[dict[str, Any]], key: str) -> Element:
    """Draw a bar a row; `key`: which of the two rates."""
    limits = {row["name"]: row[key]["median"] for row in rows}
    most = max((row[key]["max"] for row in rows), default=1.0) or 1.0
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    marks: list[Element] = []
    for k, row in enumerate(rows):
        marks += _bar(k * _ROW, row["title"], row[key], [r[key] for r in row["rounds"]], scale, row["disturbed"])
        if row["limit"] in limits:
            marks.append(_limit(k * _ROW, limits[row["limit"]] * scale))
    return svg(_WIDTH, max(1, len(rows)) * _ROW, f"Images a second of {len(rows)} rows", marks)


def _bar(
    top: float, title: str, rate: dict[str, float], rounds: Iterable[float], scale: float, disturbed: bool
) -> list[Element]:
    end = round(_LEFT + rate["median"] * scale, 1)
    tip = element("title", f"{title}: {rate['median']:,.0f} ({rate['min']:,.0f} to {rate['max']:,.0f})")
    dots = [
        element("circle", cx=round(_LEFT + v * scale, 1), cy=top + 15, r=_DOT, style="fill:var(--mark)") for v in rounds
    ]
    far = round(max(end, _LEFT + rate["max"] * scale) + 8, 1)
    note = f"{rate['median']:,.0f}{' !' if disturbed else ''}"
    return [
        element("text", title, x=_LEFT - 10, y=top + 19, class_="label end"),
        element("rect", tip, x=_LEFT, y=top + 6, width=round(end - _LEFT, 1), height=18, rx=2, class_="bar"),
        *dots,
        element("text", note, x=far, y=top + 19, class_="note start"),
    ]


def _limit(top: float, width: float) -> Element:
    x = round(_LEFT + width, 1)
    return element("line", x1=x, x2=x, y1=top + 2, y2=top + _ROW - 2, class_="median")


def _bytes_section(rows: Sequence[dict[str, Any]]) -> list[Element]:
    if not rows:
        return []
    cells = [(row["title"], f"{row['mb_per_s']:,.0f} MB/s", _how(row)) for row in rows]
    return [_section("Storage and memory", "", _table(("row", "", "settings"), cells, "plain"))]


def _stages(stages: Sequence[dict[str, Any]]) -> list[Element]:
    if not stages:
        return []
    caption = "CPU time of the float32 stream, microseconds an image, from differences between rows of this run."
    cells = [
        (s["name"], f"{s['cpu_us']:,.0f} ± {s['plus_minus_us']:,.0f}", f"{s['share']:.0%}", s["how"]) for s in stages
    ]
    return [_section("Where the time goes", caption, _table(("stage", "µs", "share", "measured as"), cells, "plain"))]


def _ratios(ratios: Sequence[dict[str, Any]]) -> list[Element]:
    if not ratios:
        return []
    cells = [
        (
            r["about"],
            f"{r['wall']['median']:.2f}",
            f"{r['cpu']['median']:.2f}",
            "" if r["at_least"] is None else f"{r['at_least']:.2f}",
            f"{'holds' if r['holds'] else 'fails'} by {r['by']}",
        )
        for r in ratios
    ]
    heads = ("ratio", "by wall time", "by CPU time", "at least", "")
    return [_section("Ratios that must not fall", "", _table(heads, cells, "plain"))]


def _missing(missing: Sequence[dict[str, str]]) -> list[Element]:
    if not missing:
        return []
    return [_section("Not measured", "", _table(("row", "why"), [(m["title"], m["why"]) for m in missing], "plain"))]


def _facts(conditions: dict[str, Any]) -> list[tuple[str, str]]:
    machine = conditions["machine"]
    gpu = machine["gpu"]["name"] if machine["gpu"] else machine["gpu_why"]
    load = conditions["load"]
    loads = f"{load['before']:.2f} before, {load['after']:.2f} after; others before: {load['foreign_before']:.0%}"
    plain = ("when", "governor", "data", "manifest", "split", "batch_images", "threads", "cores", "device", "rounds")
    return [
        ("CPU", str(machine["cpu"])),
        ("GPU", str(gpu)),
        ("system", str(machine["system"])),
        ("load", loads),
        *((name.replace("_", " "), str(conditions[name])) for name in plain),
        *((f"version of {name}", number) for name, number in machine["versions"].items()),
    ]


def _how(row: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in row["versions"].items())
    return f"{row['settings']}{'; ' * bool(versions)}{versions}"


def _section(title: str, caption: str, *children: Element | Iterable[Element]) -> Element:
    return element("section", element("h2", title), element("p", caption, class_="caption"), *children)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]], kind: str) -> Element:
    names = [element("th", name, scope="col") for name in heads]
    head = [element("thead", element("tr", names))] if names else []
    body = element("tbody", [element("tr", [element("td", cell) for cell in row]) for row in rows])
    return element("div", element("table", head, body, class_=kind), class_="scroll")
