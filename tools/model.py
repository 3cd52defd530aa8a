"""`alexnet-model`: look at networks. What a network is in numbers needs neither torch nor DALI."""

import click
from rich import box
from rich.console import Console
from rich.table import Table

from alexnet.model.networks.catalogue import DRAWINGS, drawing_named
from alexnet.model.networks.figures import LayerFigures, figures
from alexnet.tools.command import one_line_errors
from alexnet.tools.name_choice import name_of

_COLUMNS = ("layer", "", "reads", "output", "parameters", "neurons", "multiply-adds")
_NUMBERS_FROM = 3  # columns from here on are set to the right
_BETWEEN = 3  # spaces between two columns of the table with rules


@click.group()
@click.version_option(package_name="alexnet", prog_name="alexnet-model")
def main() -> None:
    """Look at networks.

    \b
    Start here:
      alexnet-model show alexnet-2012
    """  # noqa: D301 (click wants the character)


@main.command(help=f"Show the layers of ARCH, one of {', '.join(DRAWINGS)}.")
@click.argument("arch", type=name_of(DRAWINGS))
@click.option("--classes", type=click.IntRange(min=1), help="[default: 1000; networks for small images: 10]")
@click.option("--channels", type=click.IntRange(min=1), help="Of the image.  [default: what ARCH was made for]")
@click.option("--size", "px", type=click.IntRange(min=1), help="Side of the image, px.  [default: the usual one]")
@one_line_errors
def show(arch: str, classes: int | None, channels: int | None, px: int | None) -> None:
    """Print a table of layers and the totals."""
    drawing = drawing_named(arch)
    channels, px = channels or drawing.channels, px or drawing.input_px[0]
    rows = figures(drawing, px=px, channels=channels, classes=classes or (10 if drawing.shards_px else 1000))
    click.echo(f"{drawing.name}: {drawing.about}")
    click.echo(f"images: {px}x{px}, channels: {channels}; takes {drawing.sizes()}")
    _print(_cells(rows))


def _cells(rows: tuple[LayerFigures, ...]) -> list[tuple[str, ...]]:
    """Return the table's cells, the totals last."""
    cells = [
        (row.name, row.what, row.reads, _shape(row), *_grouped(row.parameters, row.neurons, row.multiply_adds))
        for row in rows
    ]
    totals = (sum(r.parameters for r in rows), sum(r.neurons for r in rows), sum(r.multiply_adds for r in rows))
    return [*cells, ("total", "", "", "", *_grouped(*totals))]


def _shape(row: LayerFigures) -> str:
    maps, *sides = row.output
    return "x".join(map(str, [*sides, maps]))


def _grouped(*numbers: int) -> list[str]:
    return [f"{number:,}" for number in numbers]


def _print(cells: list[tuple[str, ...]]) -> None:
    """Print a table: in a terminal that is wide enough with rules, elsewhere in plain columns."""
    console = Console()
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *cells, strict=True)]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, column in enumerate(_COLUMNS):
        table.add_column(column, justify="right" if place >= _NUMBERS_FROM else "left", no_wrap=True)
    for row in cells:
        table.add_row(*row, end_section=row is cells[-2])
    if console.is_terminal and sum(widths) + _BETWEEN * (len(widths) - 1) <= console.width:
        console.print(table)
        return
    for row in (_COLUMNS, *cells):
        aligned = (
            cell.rjust(width) if place >= _NUMBERS_FROM else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        click.echo("  ".join(aligned).rstrip())
