"""A report as a page of its own: a bar a row, a dot a round, a line for the row's limit; and its tables."""

from markupsafe import Markup

from alexnet.tools.bench.report import Clock, Report, Row
from alexnet.tools.bench.tables import lines_after, lines_before, number, settings_lines, tables_of
from alexnet.tools.pages.charts import svg
from alexnet.tools.pages.render import render, tag

_WIDTH, _RIGHT, _LETTER, _ROW, _DOT = 1_100.0, 90.0, 7.2, 30.0, 2.4


def page_of(report: Report) -> str:
    """Return the page as HTML; the same report gives the same text."""
    images = [row for row in report.rows if row.unit == "images" and row.group != "part"]
    return render(
        "bench.html",
        title=f"alexnet-bench {report.command}",
        lines=lines_after(report),
        wall=_bars(images, "wall"),
        cpu=_bars([row for row in images if row.cpu], "cpu"),
        tables=tables_of(report),
        settings=settings_lines(report),
        conditions=lines_before(report),
    )


def _bars(rows: list[Row], clock: Clock) -> Markup:
    """Draw a bar a row: the median of its images/s by a clock."""
    left = 20 + _LETTER * max((len(row.title) for row in rows), default=0)
    most = max((value for row in rows for value in (*row.rates(clock), *_limits(row, clock))), default=1.0)
    scale = (_WIDTH - left - _RIGHT) / most
    marks = [_bar(k * _ROW, left, scale, row, clock) for k, row in enumerate(rows)]
    return svg(_WIDTH, max(1, len(rows)) * _ROW, f"Images a second of {len(rows)} rows", marks)


def _bar(top: float, left: float, scale: float, row: Row, clock: Clock) -> Markup:
    median, rates = row.rate(clock), row.rates(clock)
    words, far = number(median), round(left + max(rates) * scale + 8, 1)
    tip = tag("title", f"{row.title}: {words} ({number(min(rates))} to {number(max(rates))})")
    limits = [round(left + limit * scale, 1) for limit in _limits(row, clock)]
    return tag(
        "g",
        tag("text", row.title, x=left - 10, y=top + 19, class_="label end"),
        tag("rect", tip, x=left, y=top + 6, width=round(median * scale, 1), height=18, rx=2, class_="bar"),
        [tag("circle", cx=round(left + v * scale, 1), cy=top + 15, r=_DOT, style="fill:var(--mark)") for v in rates],
        [tag("line", x1=x, x2=x, y1=top + 2, y2=top + _ROW - 2, class_="median") for x in limits],
        tag("text", f"{words}{' !' * row.disturbed}", x=far, y=top + 19, class_="note start"),
    )


def _limits(row: Row, clock: Clock) -> list[float]:
    """Return what the row is measured against, in images/s."""
    return [row.rate(clock) / share[clock] for share in row.shares.values() if share.get(clock)]
