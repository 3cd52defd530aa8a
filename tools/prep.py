"""`alexnet-prep`: turn ImageNet, and other image sets, into shards."""

import dataclasses
import json
import os
import signal
import time
from pathlib import Path

import click

from alexnet.shards.manifest import Manifest
from alexnet.shards.reader import SplitReader
from alexnet.shards.shuffle import shuffle_score
from alexnet.tools.command import one_line_errors
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.show import show
from alexnet.tools.verify import verify

_DEFAULT = ConvertSettings()
_INTERRUPTED = 130
_SHUFFLE_WINDOW = 256


@click.group()
@click.version_option(package_name="alexnet", prog_name="alexnet-prep")
def main() -> None:
    """Prepare image archives for training: ImageNet in, WebDataset shards and a manifest out.

    \b
    Start here:
      alexnet-prep shard /data/ilsvrc          writes /data/ilsvrc-256
      alexnet-prep verify /data/ilsvrc-256     checks every byte of it
      alexnet-prep show /data/ilsvrc-256       makes a page to look at
      alexnet-train /data/ilsvrc-256           trains on it
    """  # noqa: D301 (click wants the character)


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write.  [default: SOURCE-SIZE, beside SOURCE]")
@click.option("--size", "size_px", type=int, help="Side of the stored squares, px.  [default: 256; CIFAR 32, MNIST 28]")
@click.option("--quality", default=_DEFAULT.quality, show_default=True, help="JPEG quality, 1 to 100.")
@click.option("--shard-images", default=_DEFAULT.shard_images, show_default=True, help="Images in a shard.")
@click.option("--seed", default=_DEFAULT.seed, show_default=True, help="Seed of the training set's shuffle.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes; the output does not depend on it.  [default: cores]"
)
@click.option(
    "--on-error",
    type=click.Choice(["reject", "fail"]),
    default="reject",
    show_default=True,
    help="What an image that cannot be decoded does: it is listed in rejected.jsonl, or it ends the run.",
)
@click.option(
    "--max-rejected", type=click.IntRange(min=0), help="Accept so many.  [default: 5 or 0.1%, whichever is more]"
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or tasks of a Ray cluster (needs alexnet[ray]).",
)
@click.option("--address", metavar="HOST:PORT", help="Of the Ray cluster.  [default: one is started here]")
@click.option("--overwrite", is_flag=True, help="Delete the data set that is in the folder and start anew.")
@click.option("--md5", is_flag=True, help="Compare the official archives' md5 first: reads all of them once more.")
@click.option("--json", "as_json", is_flag=True, help="Print events for machines, one JSON object a line.")
@one_line_errors
def shard(
    source: Path,
    out: Path | None,
    size_px: int | None,
    quality: int,
    shard_images: int,
    seed: int,
    workers: int | None,
    on_error: str,
    max_rejected: int | None,
    engine: str,
    address: str | None,
    overwrite: bool,
    md5: bool,
    as_json: bool,
) -> None:
    """Write SOURCE as shards with a manifest, an index and exact colour statistics.

    SOURCE is what you downloaded; what it is, is recognised: the official ILSVRC-2012 archives, an extracted train/
    and val/ tree, the Kaggle layout, a folder of class tars (ImageNet-21k), any folder with one sub-folder a class,
    CIFAR-10's python archive or MNIST's IDX files. It is read in place; nothing in it is changed.

    An image that cannot be decoded is listed in OUT/rejected.jsonl with the reason, and the run goes on. If the run is
    interrupted, however that happens, the same command continues it.
    """
    from alexnet.tools.convert.build import BuildOptions, build
    from alexnet.tools.convert.claim import index_cache, is_complete, locked
    from alexnet.tools.convert.known import md5_notes
    from alexnet.tools.convert.progress import progress_view
    from alexnet.tools.convert.sources import native_size_px, open_source

    source = source.absolute()
    size_px = size_px or native_size_px(source) or _DEFAULT.size_px
    settings = ConvertSettings(size_px=size_px, quality=quality, shard_images=shard_images, seed=seed)
    options = BuildOptions(
        workers=workers or len(os.sched_getaffinity(0)),
        on_error="fail" if on_error == "fail" else "reject",
        max_rejected=max_rejected,
        overwrite=overwrite,
        engine="ray" if engine == "ray" else "local",
        ray_address=address,
    )
    root = out or source.with_name(f"{source.name}-{size_px}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end is an interruption like Ctrl-C
    started, view = time.perf_counter(), progress_view(as_json=as_json)
    try:
        with locked(root):
            already = is_complete(root) and not overwrite
            if not as_json:
                click.echo(f"reading the headers of {source} ...")
            found = open_source(source, index_cache(root))
            if not as_json:
                _describe(found, md5_notes(source) if md5 else ())
            manifest = build(found, root, settings, options, view.update)
    except KeyboardInterrupt:
        view.close()
        click.echo("interrupted; the same command continues", err=True)
        raise SystemExit(_INTERRUPTED) from None
    finally:
        view.close()
    seconds = None if already else time.perf_counter() - started
    if as_json:
        counts = {split: dataclasses.asdict(c) for split, c in manifest.counts.items()}
        click.echo(json.dumps({"event": "complete", "root": str(root), "counts": counts, "seconds": seconds}))
    else:
        _report(root, manifest, seconds)


main.add_command(verify)
main.add_command(show)


def _describe(found: Source, md5_notes: tuple[str, ...]) -> None:
    click.echo(f"found: {found.description}")
    click.echo(f"labels: {found.label_order}")
    for note in (*found.notes, *md5_notes):
        click.echo(f"note: {note}")
    if found.ignored:
        click.echo(f"ignored: {found.ignored:,} entries that are no regular files, or junk")


def _report(root: Path, manifest: Manifest, seconds: float | None) -> None:
    for split, c in manifest.counts.items():
        click.echo(f"{split}: {c.input:,} in = {c.written:,} written + {c.rejected:,} rejected")
    colour = manifest.colour
    click.echo(f"mean RGB {_row(colour.mean)}; standard deviations along the axes {_row(colour.standard_deviations)}")
    labels = SplitReader(root, "train").labels
    window = min(_SHUFFLE_WINDOW, len(labels))
    score, ideal = shuffle_score(labels, window)
    click.echo(f"shuffle: {score:.1f} classes in {window} consecutive images; a perfect shuffle has {ideal:.1f}")
    if any(c.rejected for c in manifest.counts.values()):
        click.echo(f"rejected images and why: {root / 'rejected.jsonl'}")
    if seconds is None:
        click.echo(f"{root} was already complete; nothing to do")
    else:
        images = sum(c.input for c in manifest.counts.values())
        click.echo(f"{root} is complete: {len(manifest.shards)} shards, {images / seconds:,.0f} images/s")


def _row(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:.2f}" for v in values)


if __name__ == "__main__":
    main()
