"""`alexnet-prep`: turn ImageNet, and other image sets, into shards."""

from pathlib import Path
from typing import Any

import click

from alexnet.tools.adopt.command import adopt
from alexnet.tools.console import Programs, cache_option, one_line_errors, storage_options, workers_option
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.decode.command import decode
from alexnet.tools.show import show
from alexnet.tools.synth.command import synth
from alexnet.tools.verify import verify

_DEFAULT = ConvertSettings()


@click.group(cls=Programs)
@click.version_option(package_name="alexnet", prog_name="alexnet-prep")
def main() -> None:
    """Prepare image archives for training: ImageNet in, WebDataset shards and a manifest out.

    \b
    Start here:
      alexnet-prep shard /data/ilsvrc          writes /data/ilsvrc-256
      alexnet-prep verify /data/ilsvrc-256     checks every byte of it
      alexnet-prep show /data/ilsvrc-256       makes a page to look at
      alexnet-train /data/ilsvrc-256           trains on it

    \b
    Of WebDataset tars whose JPEGs are squares of one size, instead of shard:
      alexnet-prep adopt /data/tars            makes a data set of them where they lie

    \b
    Where decoding is what bounds training, and there is room:
      alexnet-prep decode /data/ilsvrc-256     writes /data/ilsvrc-256-planes, to train on instead
    """  # noqa: D301 (click wants the character)


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder or URL.  [default: SOURCE-SIZE, beside SOURCE]")
@click.option("--train", multiple=True, metavar="DIR", help="Below SOURCE, a folder of class folders; may be repeated.")
@click.option("--val", multiple=True, metavar="DIR", help="The same, for validation.  [default: told by their names]")
@click.option(
    "--classes",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Names of the classes to take, one a line: a class's label is its line.  [default: all, sorted as text]",
)
@click.option("--size", "size_px", type=int, help="Side of the stored squares, px.  [default: 256; CIFAR 32, MNIST 28]")
@click.option("--quality", default=_DEFAULT.quality, show_default=True, help="JPEG quality, 1 to 100.")
@click.option("--shard-images", default=_DEFAULT.shard_images, show_default=True, help="Images in a shard.")
@click.option("--seed", default=_DEFAULT.seed, show_default=True, help="Seed of the training set's shuffle.")
@workers_option
@cache_option
@storage_options
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
def shard(source: Path, **options: Any) -> None:
    """Write SOURCE as shards with a manifest, an index and exact colour statistics.

    SOURCE is what you downloaded; what it is, is recognised: the official ILSVRC-2012 archives, an extracted train/
    and val/ tree, the Kaggle layout, tiny-imagenet-200, a folder of class tars (ImageNet-21k), any folder with one
    sub-folder a class, CIFAR-10's python archive or MNIST's IDX files. It is read in place; nothing in it is changed.
    Splits are told by the names of folders; where those could be classes, too, --train and --val say which is which.

    An image that cannot be decoded is listed in OUT/rejected.jsonl with the reason, and the run goes on. If the run is
    interrupted, however that happens, the same command continues it.
    """
    from alexnet.tools.convert.run import ShardOptions, run_shard

    run_shard(source, ShardOptions(**options))


main.add_command(adopt)
main.add_command(decode)
main.add_command(verify)
main.add_command(show)
main.add_command(synth)


if __name__ == "__main__":
    main()
