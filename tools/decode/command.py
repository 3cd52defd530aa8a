"""`alexnet-prep decode`: a data set of planes, which a stream reads several times as fast as JPEGs."""

import time
from pathlib import Path

import click

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Manifest, Split, read_manifest
from alexnet.shards.url import as_url
from alexnet.tools.console import cache_option, interruptible, one_line_errors, storage_options, tell, workers_option
from alexnet.tools.output_folder import beside
from alexnet.tools.progress import Amount, progress, say, shown


@click.command()
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder or URL.  [default: DATA-planes, beside DATA]")
@click.option(
    "--split", type=click.Choice(["train", "val"]), help="Only this one; the other is empty.  [default: both]"
)
@click.option(
    "--classes",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Names of the classes to take, one a line: a class's label is its line.  [default: all, labels as they are]",
)
@workers_option
@cache_option
@storage_options
@click.option("--overwrite", is_flag=True, help="Delete the data set that is in the folder and start anew.")
@click.option("--json", "as_json", is_flag=True, help="Print events for machines, one JSON object a line.")
@one_line_errors
def decode(
    data: Path,
    out: Path | None,
    split: Split | None,
    classes: Path | None,
    workers: int,
    cache: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Decode the JPEGs of the data set DATA, a folder or a URL, once: write a data set of planes.

    Planes are what a decoder has before it upsamples colour. They take 98,304 bytes an image of 256 px, four times a
    JPEG's: 133 GB for ImageNet. A stream of them yields the batches of the JPEGs by the host decoder, to the bit, and
    goes on where such a one stopped. Keys, labels and order stay; DATA is not changed, and not needed any more.

    With --classes the labels are new, and colour statistics are computed of the decoded images: other data.

    If it is interrupted, however that happens, the same command continues it.
    """
    from alexnet.shards.local_root import local_root
    from alexnet.tools.convert.bucket import destination_of, folder_for
    from alexnet.tools.convert.classes import chosen_labels
    from alexnet.tools.convert.staging import held_output
    from alexnet.tools.decode.build import decode as make
    from alexnet.tools.decode.plan import plan_planes

    how = ", without --overwrite if it had begun to decode" if overwrite else ""
    with interruptible(f"interrupted; the same command continues{how}"):
        started, told = time.perf_counter(), list[Amount]()
        root = folder_for(_output(data, out), cache)
        source = local_root(data, cache).absolute()
        labels = None if classes is None else chosen_labels(read_manifest(source).classes, classes)
        plan = plan_planes(source, split, labels)
        with held_output(root, overwrite=overwrite) as check, progress(as_json=as_json) as view:
            on_progress = shown(view, check, told)
            manifest = make(plan, root, workers=workers, overwrite=overwrite, on_progress=on_progress)
        what = f"planes of {sum(shard.bytes for shard in manifest.shards) / 1e9:,.2f} GB"
        tell_complete(destination_of(root), what, manifest, told, time.perf_counter() - started, as_json=as_json)


def _output(data: Path, out: Path | None) -> Path:
    """Return where planes go. Raises InputError where nobody says, or if it lies in what is read."""
    url = as_url(data)
    if url and not out:
        raise InputError(f"{url}: nothing lies beside it; give --out")
    out = out or beside(data.absolute(), "-planes")
    inside = out.is_relative_to(data) if url else out.resolve().is_relative_to(data.resolve())
    if inside:
        raise InputError(f"--out {as_url(out) or out}: lies in {url or data}, which is read; give one outside of it")
    return out


def tell_complete(
    place: str, what: str, manifest: Manifest, told: list[Amount], seconds: float, *, as_json: bool
) -> None:
    """Tell what came of it. `what`: it is. `told`: the first amount and the last; none if all was there."""
    images = told[-1].done - told[0].done if told else 0
    counts = {split: counts.written for split, counts in manifest.counts.items()}
    if as_json:
        taken = round(seconds, 3) if told else None
        say(event="complete", root=place, images=counts, decoded=images, seconds=taken)
        return
    whole = f"{place} is complete: {' and '.join(f'{n:,} {split}' for split, n in counts.items())} images, {what}"
    if not told:
        tell(f"{place} was already complete; nothing to do")
    elif images:
        earlier = f" ({told[0].done:,} more by an earlier call)" if told[0].done else ""
        tell(f"{whole}; {images:,} images{earlier} in {seconds:,.1f} s, {images / seconds:,.0f} images/s")
    else:
        tell(f"{whole}; all images were decoded by an earlier call")
