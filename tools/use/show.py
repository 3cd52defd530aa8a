"""Show a network in numbers: its layers, and which process holds what. Layers alone load neither torch nor DALI."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alexnet.model.networks.figures import LayerFigures, figures
from alexnet.model.networks.settings import NetSettings, architecture_of
from alexnet.shards.errors import InputError, one_line

if TYPE_CHECKING:
    from alexnet.model.placement import Parallel, Placement

_LAYERS = ("layer", "", "reads", "output", "parameters", "neurons", "multiply-adds")
_PROCESSES = ("process", "holds", "convolves images", "parameters")
_BETWEEN = 3  # spaces between two columns of the table with rules


def show_layers(settings: NetSettings, px: int) -> None:
    """Print a table of a network's layers, and the totals."""
    architecture, rows = architecture_of(settings), figures(settings, px)
    totals = (sum(r.parameters for r in rows), sum(r.neurons for r in rows), sum(r.multiply_adds for r in rows))
    click.echo(f"{architecture.name}: {architecture.about}")
    click.echo(f"images: {px}x{px}, channels: {settings.input_channels}; takes {architecture.sizes()}")
    cells = [*map(_layer, rows), ("total", "", "", "", *(f"{total:,}" for total in totals))]
    print_table(_LAYERS, cells, numbers_from=3, total=True)


def _layer(row: LayerFigures) -> tuple[str, ...]:
    maps, *sides = row.output
    numbers = (row.parameters, row.neurons, row.multiply_adds)
    return (row.name, row.what, row.reads, "x".join(map(str, [*sides, maps])), *(f"{number:,}" for number in numbers))


def show_layout(settings: NetSettings, px: int, *, gpus: int, parallel: "Parallel", batch_images: int) -> None:
    """Print a row a process, and what a process sends in a training step in bf16."""
    import torch

    from alexnet.model.needs import describe_layout, held_parameters
    from alexnet.model.placement import choose_placement

    if batch_images < gpus:
        raise InputError(f"--batch-images {batch_images}: must be at least {gpus}, one for each process")
    towers, rows = architecture_of(settings).towers, []
    for rank in range(gpus):  # as on a machine with a GPU for each
        placement = choose_placement("cpu", gpus, "bf16", parallel=parallel, towers=towers, rank=rank)
        placement = dataclasses.replace(placement, device=torch.device("cuda"))
        parameters = held_parameters(settings, placement.layout)
        convolved = placement.layout.convolved(batch_images)
        holds = _holds(settings, placement, towers)
        rows.append((f"rank {rank}", holds, f"{convolved.start}-{convolved.stop - 1}", f"{parameters:,}"))
        if rank == 0:
            line = describe_layout(settings, placement, batch_images=batch_images, crop_px=px)
    print_table(_PROCESSES, rows, numbers_from=3)
    click.echo(f"layout: {line}")


def _holds(settings: NetSettings, placement: "Placement", towers: int) -> str:
    from alexnet.model.owt import divided_layers

    layout = placement.layout
    if layout.owt:
        return f"1/{layout.ranks} of {', '.join(divided_layers(settings, layout.ranks))}, all else"
    if layout.towers is None:
        return "everything" if towers == 1 else f"all {towers} towers"
    return ", ".join(f"tower {tower + 1} of {towers}" for tower in layout.towers)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int, total: bool = False
) -> None:
    """Print rows of cells: in a terminal that is wide enough with rules, elsewhere in plain columns.

    Columns from `numbers_from` on are set to the right. `total`: the last row is one.
    """
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
