"""Print a table: in a terminal that is wide enough with rules, elsewhere in plain columns."""

from collections.abc import Sequence

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alexnet.shards.errors import one_line

_BETWEEN = 3  # spaces between two columns of the table with rules


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int, total: bool = False
) -> None:
    """Print rows of cells; columns from `numbers_from` on are set to the right. `total`: the last row is one."""
    console, rows = Console(), [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place >= numbers_from else "left", no_wrap=True)
    for place, row in enumerate(rows):
        table.add_row(*map(Text, row), end_section=total and place == len(rows) - 2)
    if console.is_terminal and sum(widths) + _BETWEEN * (len(widths) - 1) <= console.width:
        console.print(table)
        return
    for row in (columns, *rows):
        aligned = (
            cell.rjust(width) if place >= numbers_from else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        click.echo("  ".join(aligned).rstrip())
