"""`alexnet-prep`: turn ImageNet, as downloaded, into shards."""

import os
import time
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from alexnet.shards.manifest import SPLITS, Manifest
from alexnet.tools.command import one_line_errors
from alexnet.tools.convert.plan import ConvertSettings

_DEFAULT = ConvertSettings()


@click.group()
@click.version_option(package_name="alexnet", prog_name="alexnet-prep")
def main() -> None:
    r"""Prepare ILSVRC-2012 for training: archives in, WebDataset shards and a manifest out.

    \b
    Start here:
      alexnet-prep shard /data/ilsvrc          writes /data/ilsvrc-256
      alexnet-train /data/ilsvrc-256           trains on it
    """


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write.  [default: SOURCE-256, beside SOURCE]")
@click.option("--size", "size_px", default=_DEFAULT.size_px, show_default=True, help="Side of the stored squares, px.")
@click.option("--quality", default=_DEFAULT.quality, show_default=True, help="JPEG quality, 1 to 100.")
@click.option("--shard-images", default=_DEFAULT.shard_images, show_default=True, help="Images in a shard.")
@click.option("--seed", default=_DEFAULT.seed, show_default=True, help="Seed of the training set's shuffle.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes; the output does not depend on it.  [default: cores]"
)
@one_line_errors
def shard(
    source: Path, out: Path | None, size_px: int, quality: int, shard_images: int, seed: int, workers: int | None
) -> None:
    """Write SOURCE as 256 px shards with a manifest, an index and exact colour statistics.

    SOURCE is a folder with the three official files, as downloaded: ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar
    and ILSVRC2012_devkit_t12.tar.gz. They are read in place; nothing is extracted and nothing in SOURCE is changed.
    An image that cannot be decoded is listed in OUT/rejected.jsonl with the reason, and the run goes on. If the run
    is interrupted, the same command continues it.
    """
    from alexnet.tools.convert.build import build, is_complete
    from alexnet.tools.convert.sources import open_source

    settings = ConvertSettings(size_px=size_px, quality=quality, shard_images=shard_images, seed=seed)
    source = source.absolute()
    root = out or source.with_name(f"{source.name}-{size_px}")
    console = Console()
    found = open_source(source)
    sizes = ", ".join(f"{len(found.members[split]):,} {split}" for split in SPLITS)
    click.echo(f"{source}: official ILSVRC-2012 archives, {len(found.classes):,} classes, {sizes} entries")
    already = is_complete(root)
    started = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    total = sum(len(m) for m in found.members.values())
    with Progress(*columns, TextColumn("{task.fields[rejected]} rejected"), console=console, transient=True) as bars:
        bar = bars.add_task("converting", total=total, rejected=0)
        manifest = build(
            found,
            root,
            settings,
            workers or len(os.sched_getaffinity(0)),
            lambda p: bars.update(bar, completed=p.written + p.rejected + p.resumed, rejected=p.rejected),
        )
    _report(console, root, manifest, None if already else time.perf_counter() - started)


def _report(console: Console, root: Path, manifest: Manifest, seconds: float | None) -> None:
    for split, c in manifest.counts.items():
        click.echo(f"{split}: {c.input:,} in = {c.written:,} written + {c.rejected:,} rejected")
    colour = manifest.colour
    click.echo(f"mean RGB {_row(colour.mean)}; standard deviations along the axes {_row(colour.standard_deviations)}")
    if any(c.rejected for c in manifest.counts.values()):
        click.echo(f"rejected images and why: {root / 'rejected.jsonl'}")
    if seconds is None:
        click.echo(f"{root} was already complete; nothing to do")
    else:
        images = sum(c.input for c in manifest.counts.values())
        click.echo(f"{root} is complete: {len(manifest.shards)} shards, {images / seconds:,.0f} images/s")


def _row(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:.2f}" for v in values)
