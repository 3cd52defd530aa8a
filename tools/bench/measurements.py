"""Write docs/measurements.md from the JSON files that `make measure` leaves in docs/measurements.

    python -m alexnet.tools.bench.measurements [DOCS]

Every figure above the notes is read from a file, and a test compares the page with the files. `notes.md` beside them is
written by hand: what came from experiments that no command repeats.
"""

from pathlib import Path

import click

from alexnet.shards.errors import InputError
from alexnet.tools.bench.report import Report, read_report
from alexnet.tools.bench.tables import Table, lines_after, lines_before, tables_of
from alexnet.tools.console import one_line_errors

_TITLES = {"dataloader": "Data path", "model": "Networks", "train": "Training", "prep": "The converter"}
_HEAD = """# Measurements

This page is made by `make measurements-page` from the JSON files in [measurements](measurements), which `make measure`
writes; [benchmarks.md](benchmarks.md) says how they come about. Medians; minimum and maximum beside or in brackets."""
_NO_GPU = """## On a GPU

Not yet measured: no file here is of a run on a GPU. `make gpu-check` writes such files; [benchmarks.md](benchmarks.md)
says how they come here."""


def page_of(docs: Path) -> str:
    """Return the page for the files in a folder of documentation.

    Raises InputError for a file that is no report, and for one whose figures are not to be quoted.
    """
    folder = docs / "measurements"
    reports = [(file.stem, _quotable(file)) for file in sorted(folder.glob("*.json"))]
    if not reports:
        raise InputError(f"{folder}: holds no JSON files; `make measure` writes them")
    parts = [_HEAD]
    for command, title in _TITLES.items():
        own = [(stem, report) for stem, report in reports if report.command == command]
        for stem, report in own:
            parts += [f"## {title}{f' ({stem})' * (len(own) > 1)}", _section(report)]
    if not any(report.conditions.device == "cuda" for _, report in reports):
        parts.append(_NO_GPU)
    if (notes := folder / "notes.md").exists():
        parts.append(notes.read_text(encoding="utf-8").strip())
    return "\n\n".join(parts) + "\n"


def _quotable(file: Path) -> Report:
    report = read_report(file)
    if not report.complete:
        raise InputError(f"{file}: is of a run that was interrupted; repeat it")
    if (data := report.conditions.data) and data.repeated:
        raise InputError(f"{file}: is of {data.images} images from the CPU's cache; give more DATA")
    return report


def _section(report: Report) -> str:
    """Return conditions, tables and verdict of a report."""
    conditions = "\n".join(f"- {line.strip()}" for line in lines_before(report))
    return "\n\n".join([conditions, *map(_markdown, tables_of(report)), *lines_after(report)])


def _markdown(table: Table) -> str:
    lines = [table.heads, ("---",) * len(table.heads), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


@click.command()
@click.argument("docs", default="docs", type=click.Path(path_type=Path))
@one_line_errors
def main(docs: Path) -> None:
    """Write DOCS/measurements.md."""
    text = page_of(docs)
    (docs / "measurements.md").write_text(text, encoding="utf-8")
    click.echo(f"{docs / 'measurements.md'} is written")


if __name__ == "__main__":
    main()
