"""Describe a run in lines: what is printed at its start, and `--dry-run`."""

from pathlib import Path

import click

from alexnet.model.needs import describe_layout, held_parameters, memory_need
from alexnet.model.placement import Layout, Placement
from alexnet.shards.manifest import Manifest
from alexnet.shards.url import origin_of, place_of
from alexnet.tools.console import tell
from alexnet.tools.run.assembly import Streams
from alexnet.tools.run.settings import RunSettings


def describe_run(settings: RunSettings, streams: Streams, placement: Placement) -> list[str]:
    """Return what is about to run: the stream, the device, who holds what, the network and the number of steps."""
    batch_images, crop_px = settings.train.batch_images, settings.augment.crop_px
    layout = describe_layout(settings.net, placement, batch_images=batch_images, crop_px=crop_px)
    steps = settings.total_steps(len(streams.train))
    return [
        *streams.lines(),
        f"device: {placement.why}",
        f"layout: {layout}",
        f"network: {settings.net.arch}, {held_parameters(settings.net, Layout()):,} parameters; {steps:,} steps",
    ]


def dry_run(data: Path, recipe: str, settings: RunSettings, placement: Placement, manifest: Manifest) -> None:
    """Print every setting and the plan, in the first process where there are several."""
    if placement.layout.rank:
        return
    streams = Streams(data, settings, placement, local_ranks=placement.layout.ranks)
    for section, values in settings.as_json().items():
        for key, value in values.items():
            click.echo(f"{section}.{key} = {_written(value)}")
    tell(f"recipe: {recipe}")
    tell(f"data: {place_of(data)}; {streams.describe(manifest)}")
    for line in describe_run(settings, streams, placement):
        click.echo(line)
    click.echo(f"memory: {_describe_memory(settings, placement)}")
    click.echo(f"plan: {_describe_plan(settings, streams, manifest)}")
    kept = f" but the small files of the data set in {data}" if origin_of(data) else ""
    tell(f"dry run: nothing was started or written{kept}")


def _describe_plan(settings: RunSettings, streams: Streams, manifest: Manifest) -> str:
    an_epoch = len(streams.train)
    steps = settings.total_steps(an_epoch)
    images = steps * settings.train.batch_images
    shards = len(manifest.shards_of("train"))
    final = f", {settings.train.final_views} views at the end" if settings.train.final_views > 1 else ""
    judged = streams.validation.images
    validation = f"validation of {judged:,} images after each epoch{final}" if judged else "no validation images"
    return (
        f"{steps:,} steps of {settings.train.batch_images:,} images, {an_epoch:,} an epoch: {steps / an_epoch:,.4g} "
        f"epochs, {images:,} images from {shards:,} shard{'s' * (shards != 1)}; {validation}"
    )


def _describe_memory(settings: RunSettings, placement: Placement) -> str:
    need = memory_need(settings.net, placement, settings.augment.crop_px)
    images = len(placement.layout.convolved(settings.train.batch_images))
    each = " in each process" if placement.layout.ranks > 1 else ""
    return (
        f"{need.of_step(images) / 1e6:,.0f} MB{each}: parameters {need.parameters / 1e6:,.0f}, their gradients and "
        f"momentum as much each, {(need.copies + images * need.image) / 1e6:,.0f} kept for the backward pass over "
        f"{images:,} images"
    )


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
