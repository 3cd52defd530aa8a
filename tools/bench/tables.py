"""A report for people: lines and tables, which a terminal, docs/measurements.md and the HTML page all show."""

from collections.abc import Iterable
from typing import NamedTuple

import click
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from alexnet.shards.errors import one_line
from alexnet.tools.bench.report import Conditions, Ratio, Report, Row, Spread, Unit

_PIPED_WIDTH = 400  # what is piped into a file is not cut to the 80 columns of a terminal that is not there
_SCALES: dict[Unit, tuple[float, str]] = {"images": (1, ""), "bytes": (1e9, " GB/s"), "flop": (1e12, " TFLOP/s")}
_LONGEST_NUMBER = 20  # characters
_VERSIONS = ("python", "torch", "DALI", "numpy")


class Table(NamedTuple):
    """A table of text."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables_of(report: Report) -> list[Table]:
    """Return the rows, where a row's time goes, and the ratios: those tables that have rows, without empty columns."""
    figures = tuple(dict.fromkeys(name for row in report.rows for name in row.figures))
    heads = (
        "row",
        "images/s",
        "min-max",
        "by CPU time",
        "cores busy",
        *(name.replace("_", " ") for name in figures),
        "of its limit",
        "peak MB",
        "",
    )
    stages = [(s.name, f"{s.cpu_us:,.0f} ± {s.plus_minus_us:,.0f}", f"{s.share:.0%}", s.how) for s in report.stages]
    rows = (_row(row, report.conditions, figures) for row in report.rows)
    ratio_heads = ("ratio, round by round", "by wall time", "by CPU time", "at least", "")
    tables = [
        _table("rows", heads, rows),
        _table("CPU time of the float32 stream", ("stage", "us an image", "share", "measured as"), stages),
        _table("ratios", ratio_heads, map(_ratio, report.ratios)),
    ]
    return [table for table in tables if table.rows]


def lines_before(report: Report) -> list[str]:
    """Return data, machine and how it was measured, in lines."""
    c = report.conditions
    gpu = c.machine.gpu
    lines = [
        f"CPU: {c.machine.cpu}, {c.cores} cores, governor {c.governor}; {c.machine.system}",
        f"GPU: {gpu.name}, driver {gpu.driver}" if gpu else c.machine.gpu_why,
        f"load: {c.load_before:.2f} before, {c.load_after:.2f} after; others before: {c.foreign_before:.0%}",
        "versions: " + ", ".join(f"{name} {number}" for name, number in c.machine.versions.items()),
        f"{c.device}, {c.threads} threads on {c.cores} cores; {c.rounds} interleaved rounds of {c.seconds:g} s, each "
        "row in a process of its own",
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


def settings_lines(report: Report) -> list[str]:
    """Return how each row was run: what it was told, and by which versions."""
    versions = {row.name: ", ".join(f"{name} {number}" for name, number in row.versions.items()) for row in report.rows}
    return [f"{row.title}: {'; '.join(filter(None, (row.settings, versions[row.name])))}" for row in report.rows]


def print_report(report: Report) -> None:
    """Print it all; of other loaders also how they were set up."""
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
    baselines = [line for line, row in zip(settings_lines(report), report.rows, strict=True) if row.group != "row"]
    for line in [*baselines, *lines_after(report)]:
        click.echo(one_line(line))


def markdown(report: Report) -> str:
    """Return it as a section of docs/measurements.md."""
    c = report.conditions
    gpu = c.machine.gpu.name if c.device == "cuda" and c.machine.gpu else c.machine.cpu
    versions = ", ".join(f"{name} {c.machine.versions[name]}" for name in _VERSIONS if name in c.machine.versions)
    data = f"{c.data.images:,} images of {c.data.bytes_per_image / 1e3:.1f} kB, {c.data.why}. " if c.data else ""
    words = (
        f"{data}{gpu}, {c.threads} threads on {c.cores} cores; {c.rounds} interleaved rounds of {c.seconds:g} s, each "
        f"row in a process of its own; load {c.load_before:.1f} before, others {c.foreign_before:.0%}; {versions}; "
        f"{c.when[:10]}."
    )
    return "\n\n".join([words, *map(_markdown_table, tables_of(report)), *lines_after(report)])


def _markdown_table(table: Table) -> str:
    lines = [table.heads, ("---",) * len(table.heads), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def _table(title: str, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    found = tuple(rows)
    kept = [k for k in range(len(heads)) if any(row[k] for row in found)]
    return Table(title, tuple(heads[k] for k in kept), tuple(tuple(row[k] for k in kept) for row in found))


def _row(row: Row, conditions: Conditions, figures: tuple[str, ...]) -> tuple[str, ...]:
    scale, unit = _SCALES[row.unit]
    marks = [f"others {row.foreign_load:.0%}"] if row.disturbed else []
    if conditions.data and conditions.data.repeated:
        marks.append("repeated")
    busy = sum(r.cpu_seconds for r in row.rounds) / sum(r.seconds for r in row.rounds)
    shares = (" / ".join(f"{value:.0%}" for value in share.values()) for share in row.shares.values())
    limits = (f"{share} of {name}" for share, name in zip(shares, row.shares, strict=True))
    return (
        row.title,
        number(row.wall.median / scale) + unit,
        f"{number(row.wall.min / scale)}-{number(row.wall.max / scale)}",
        number(row.cpu.median / scale) + unit if row.cpu else "",
        f"{busy:.2f}",
        *(number(row.figures[name]) if name in row.figures else "" for name in figures),
        ", ".join(limits),
        f"{row.rounds[-1].peak_bytes / 1e6:,.0f}",
        ", ".join(marks),
    )


def _ratio(ratio: Ratio) -> tuple[str, ...]:
    asked = ratio.at_least is not None
    verdict = f"{'holds' if ratio.holds else 'FAILS'} by {ratio.by} time" if asked else ""
    least = f"{ratio.at_least:.2f}" if asked else ""
    return ratio.about, _spread(ratio.wall), _spread(ratio.cpu) if ratio.cpu else "", least, verdict


def _spread(values: Spread) -> str:
    return f"{values.median:.2f} ({values.min:.2f}-{values.max:.2f})"


def number(value: float) -> str:
    """Return a number with as many digits as it was measured to, roughly."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"
