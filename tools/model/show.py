"""`alexnet-model show`: a network in numbers. Without a layout it needs neither torch nor DALI."""

import click

from alexnet.model.networks.catalogue import DRAWINGS, drawing_named
from alexnet.model.networks.figures import LayerFigures, figures
from alexnet.tools.console import name_of, one_line_errors
from alexnet.tools.model.table import print_table

_COLUMNS = ("layer", "", "reads", "output", "parameters", "neurons", "multiply-adds")


@click.command(help=f"Show the layers of ARCH, one of {', '.join(DRAWINGS)}.")
@click.argument("arch", type=name_of(DRAWINGS))
@click.option("--classes", type=click.IntRange(min=1), help="[default: 1000; networks for small images: 10]")
@click.option("--channels", type=click.IntRange(min=1), help="Of the image.  [default: what ARCH was made for]")
@click.option("--size", "px", type=click.IntRange(min=1), help="Side of the image, px.  [default: the usual one]")
@click.option("--gpus", type=click.IntRange(min=1), help="Show, too, who of so many processes holds what.")
@click.option("--parallel", type=click.Choice(["towers", "data", "owt"]), help="What they divide.  [default: towers]")
@click.option("--batch-images", type=click.IntRange(min=1), help="Global batch of that layout.  [default: 128]")
@one_line_errors
def show(
    arch: str,
    classes: int | None,
    channels: int | None,
    px: int | None,
    gpus: int | None,
    parallel: str | None,
    batch_images: int | None,
) -> None:
    """Print a table of layers and the totals, and one of processes where a layout is asked for."""
    drawing = drawing_named(arch)
    channels, px = channels or drawing.channels, px or drawing.input_px[0]
    classes = classes or (10 if drawing.shards_px else 1000)
    rows = figures(drawing, px=px, channels=channels, classes=classes)
    click.echo(f"{drawing.name}: {drawing.about}")
    click.echo(f"images: {px}x{px}, channels: {channels}; takes {drawing.sizes()}")
    print_table(_COLUMNS, _cells(rows), numbers_from=3, total=True)
    if gpus is None:
        if parallel or batch_images:
            raise click.UsageError("--parallel and --batch-images describe a layout: give --gpus as well")
        return
    from alexnet.model.networks.settings import NetSettings
    from alexnet.tools.model.layout import show_layout

    click.echo()
    settings = NetSettings(arch=arch, classes=classes, channels=channels)
    show_layout(settings, px, gpus=gpus, parallel=parallel or "towers", batch_images=batch_images or 128)


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
