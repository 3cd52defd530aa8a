"""A report for people: lines, tables and charts, which a terminal, docs/measurements.md and an HTML page show."""

import statistics
from collections.abc import Iterable
from typing import NamedTuple

import click
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from alexnet.shards.errors import one_line
from alexnet.tools.bench.report import Clock, Ratio, Report, Row, Spread, Unit
from alexnet.tools.pages.render import render

_PIPED_WIDTH = 400  # what is piped into a file is not cut to the 80 columns of a terminal that is not there
_SCALES: dict[Unit, tuple[float, str]] = {"images": (1, ""), "bytes": (1e9, " GB/s"), "flop": (1e12, " TFLOP/s")}
_LONGEST_NUMBER = 20  # characters


class Table(NamedTuple):
    """A table of text."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables_of(report: Report) -> list[Table]:
    """Return the rows, where a row's time goes, and the ratios: those tables that have rows, without empty columns."""
    repeated = bool(report.conditions.data and report.conditions.data.repeated)
    figures = dict.fromkeys(name for row in report.rows for name in row.figures)
    tables = [
        _table("rows", [_row(row, figures, repeated=repeated) for row in report.rows]),
        _table("CPU time of the float32 stream", [
            {"stage": s.name, "us an image": f"{s.cpu_us:,.0f} ± {s.plus_minus_us:,.0f}", "share": f"{s.share:.0%}",
             "measured as": s.how}
            for s in report.stages
        ]),
        _table("ratios", [_ratio(ratio) for ratio in report.ratios]),
    ]  # fmt: skip
    return [table for table in tables if table.rows]


def _table(title: str, cells: list[dict[str, str]]) -> Table:
    """Return a table of rows that have the same columns, without those that are empty."""
    heads = tuple(head for head in (cells[0] if cells else ()) if any(row[head] for row in cells))
    return Table(title, heads, tuple(tuple(row[head] for head in heads) for row in cells))


def _row(row: Row, figures: Iterable[str], *, repeated: bool) -> dict[str, str]:
    scale, unit = _SCALES[row.unit]
    shares = (f"{' / '.join(f'{v:.0%}' for v in share.values())} of {name}" for name, share in row.shares.items())
    marks = [f"others {row.foreign_load:.0%}"] * row.disturbed + ["repeated"] * repeated
    return {
        "row": row.title,
        "images/s": number(row.wall.median / scale) + unit,
        "min-max": f"{number(row.wall.min / scale)}-{number(row.wall.max / scale)}",
        "by CPU time": number(row.cpu.median / scale) + unit if row.cpu else "",
        "cores busy": f"{sum(r.cpu_seconds for r in row.rounds) / sum(r.seconds for r in row.rounds):.2f}",
        **{name.replace("_", " "): number(row.figures[name]) if name in row.figures else "" for name in figures},
        "of its limit": ", ".join(shares),
        "peak MB": f"{row.rounds[-1].peak_bytes / 1e6:,.0f}",
        "page faults an image": _page_faults(row),
        "": ", ".join(marks),
    }


def _page_faults(row: Row) -> str:
    """Return the median of the rounds, of rows of images."""
    found = [r.page_faults / r.amount for r in row.rounds if r.page_faults is not None]
    return number(statistics.median(found)) if found and row.unit == "images" else ""


def _ratio(ratio: Ratio) -> dict[str, str]:
    asked = ratio.at_least is not None
    return {
        "ratio, round by round": ratio.about,
        "by wall time": _spread(ratio.wall),
        "by CPU time": _spread(ratio.cpu) if ratio.cpu else "",
        "at least": f"{ratio.at_least:.2f}" if asked else "",
        "": f"{'holds' if ratio.holds else 'FAILS'} by {ratio.by} time" if asked else "",
    }


def _spread(values: Spread) -> str:
    return f"{values.median:.2f} ({values.min:.2f}-{values.max:.2f})"


def number(value: float) -> str:
    """Return a number with as many digits as it was measured to, roughly."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"


def lines_before(report: Report) -> list[str]:
    """Return data, machine and how it was measured, in lines."""
    c = report.conditions
    gpu = c.machine.gpu
    lines = [
        f"CPU: {c.machine.cpu}, {c.cores} cores, governor {c.governor}; {c.machine.system}",
        f"GPU: {gpu.name}, driver {gpu.driver}" if gpu else c.machine.gpu_why,
        f"load: {c.load_before:.2f} before, {c.load_after:.2f} after; others before: {c.foreign_before:.0%}",
        f"versions: {_versions(c.machine.versions)}",
        f"{c.device}, {c.threads} threads on {c.cores} cores; {c.rounds} interleaved rounds of {c.seconds:g} s, each "
        f"row in a process of its own; {c.when[:10]}",
    ]
    if (d := c.data) is None:
        return lines
    cached = "" if d.cached is None else f"; {d.cached:.0%} in the system's cache"
    batches = f"; batches of {d.batch_images}" if d.batch_images else ""
    what = f"data: {d.path} ({d.why}), {d.images:,} images of {d.bytes_per_image:,} bytes{batches}{cached}"
    return [what, *([f"      {d.split}, manifest {d.manifest[:16]}"] if d.manifest else []), *lines]


def lines_after(report: Report) -> list[str]:
    """Return what was not measured and what is to be known besides, and the verdict, in lines."""
    data = report.conditions.data
    repeated = "repeated: the data are smaller than eight batches and lay in the CPU's cache; do not quote these rows"
    return [
        *(f"not measured: {one.title}: {one.why}" for one in report.missing),
        *([repeated] if data and data.repeated else []),
        *report.notes,
        *([] if report.complete else ["interrupted: these are the rounds up to then"]),
        report.verdict,
    ]


def settings_lines(rows: Iterable[Row]) -> list[str]:
    """Return how each row was run: what it was told, and by which versions."""
    return [f"{row.title}: {'; '.join(filter(None, (row.settings, _versions(row.versions))))}" for row in rows]


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def print_report(report: Report) -> None:
    """Print it all; of limits and other loaders also how they were set up."""
    console = Console()
    console = console if console.is_terminal else Console(width=_PIPED_WIDTH)
    for line in lines_before(report):
        click.echo(one_line(line))
    for title, heads, rows in tables_of(report):
        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
        for k, head in enumerate(heads):
            is_text = not k or any(len(row[k]) > _LONGEST_NUMBER for row in rows)
            table.add_column(head, overflow="fold", justify="left" if is_text else "right")
        for row in rows:
            table.add_row(*map(one_line, row))
        console.print(table, markup=False)
    for line in [*settings_lines(row for row in report.rows if row.group != "row"), *lines_after(report)]:
        click.echo(one_line(line))


def page_of(report: Report) -> str:
    """Return a page of its own, HTML: charts and tables; the same report gives the same text."""
    shown = [row for row in report.rows if row.unit == "images" and row.group != "part"]
    return render(
        "bench.html",
        title=f"alexnet-bench {report.command}",
        lines=lines_after(report),
        wall=_bars(shown, "wall"),
        cpu=_bars([row for row in shown if row.cpu], "cpu"),
        tables=tables_of(report),
        settings=settings_lines(report.rows),
        conditions=lines_before(report),
    )


def _bars(rows: list[Row], clock: Clock) -> list[dict[str, object]]:
    """Return what the page draws of each row: median, rounds and limits, as shares of the largest of all."""
    limits = [[row.rate(clock) / share[clock] for share in row.shares.values() if share.get(clock)] for row in rows]
    most = max((v for row, more in zip(rows, limits, strict=True) for v in (*row.rates(clock), *more)), default=1.0)
    return [
        {
            "title": row.title,
            "rate": number(row.rate(clock)),
            "range": f"{number(min(row.rates(clock)))} to {number(max(row.rates(clock)))}",
            "disturbed": row.disturbed,
            "bar": row.rate(clock) / most,
            "dots": [rate / most for rate in row.rates(clock)],
            "limits": [limit / most for limit in more],
        }
        for row, more in zip(rows, limits, strict=True)
    ]
