"""Who holds what of a network, and sends what, when several processes train it."""

import dataclasses
from typing import get_args

import click
import torch

from alexnet.model.full_layers import divided_layers
from alexnet.model.memory import held_parameters
from alexnet.model.networks.settings import NetSettings, drawing_of
from alexnet.model.placement import Parallel, Placement, choose_placement
from alexnet.model.traffic import describe_layout
from alexnet.shards.errors import InputError
from alexnet.tools.model.table import print_table

_COLUMNS = ("process", "holds", "convolves images", "parameters")


def show_layout(settings: NetSettings, px: int, *, gpus: int, parallel: str, batch_images: int) -> None:
    """Print a row a process, and what a process sends in a training step in bf16."""
    if batch_images < gpus:
        raise InputError(f"--batch-images {batch_images}: must be at least {gpus}, one for each process")
    placements = [_placement(settings, gpus, parallel, rank) for rank in range(gpus)]
    held = [held_parameters(settings, placement.layout) for placement in placements]
    rows = [_row(settings, p, batch_images, count) for p, count in zip(placements, held, strict=True)]
    print_table(_COLUMNS, rows, numbers_from=3)
    line = describe_layout(settings, placements[0], batch_images=batch_images, crop_px=px, parameters=held[0])
    click.echo(f"layout: {line}")


def _placement(settings: NetSettings, gpus: int, parallel: str, rank: int) -> Placement:
    """Return where a process would be; as on a machine with a GPU for each."""
    kind: Parallel = next(known for known in get_args(Parallel) if known == parallel)
    towers = drawing_of(settings).towers
    placed = choose_placement("cpu", gpus, "bf16", parallel=kind, towers=towers, rank=rank)
    return dataclasses.replace(placed, device=torch.device("cuda"))


def _row(settings: NetSettings, placement: Placement, batch_images: int, parameters: int) -> tuple[str, ...]:
    layout, towers = placement.layout, drawing_of(settings).towers
    rows = layout.convolved(batch_images)
    if layout.owt:
        holds = f"1/{layout.ranks} of {', '.join(divided_layers(settings, layout.ranks))}, all else"
    elif layout.towers is None:
        holds = "everything" if towers == 1 else f"all {towers} towers"
    else:
        holds = ", ".join(f"tower {tower + 1} of {towers}" for tower in layout.towers)
    return f"rank {layout.rank}", holds, f"{rows.start}-{rows.stop - 1}", f"{parameters:,}"
