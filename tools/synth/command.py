"""`alexnet-prep synth`: a data set to measure and to try things on, where there is no other."""

from pathlib import Path
from typing import Any

import click

from alexnet.tools.console import one_line_errors


@click.command()
@click.argument("root", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--classes", default=1000, show_default=True, help="Classes, at most 4,096.")
@click.option("--images", default=100_000, show_default=True, help="Training images of all classes together.")
@click.option("--val-images", type=int, help="Validation images.  [default: a twentieth, at least one a class]")
@click.option("--seed", default=2012, show_default=True, help="Everything follows from it.")
@click.option(
    "--layout",
    type=click.Choice(["shards", "official"]),
    default="shards",
    show_default=True,
    help="A data set that is ready to use, or ILSVRC-2012's archives as they are downloaded, for `shard`.",
)
@click.option("--size", "size_px", type=int, help="Side of the squares in shards, px, at most 256.  [default: 256]")
@click.option("--shard-images", type=int, help="Images in a shard.  [default: 5000]")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes; the output does not depend on it.  [default: cores]"
)
@click.option("--overwrite", is_flag=True, help="Delete the set that is in DIR and start anew.")
@click.option("--json", "as_json", is_flag=True, help="Print events for machines, one JSON object a line.")
@one_line_errors
def synth(root: Path, **options: Any) -> None:
    """Make a synthetic data set in DIR, from nothing but a seed.

    Images and files have the sizes of ImageNet's; a class is a texture, a figure's outline and the texture in it, which
    a convolutional network can learn and colours do not tell. The same command gives the same bytes on every machine
    with the same library versions. Interrupted, it continues with shards, and starts over in the official layout.

    100,000 images take 2.5 GB as shards and 12 GB in the official layout.
    """
    from alexnet.tools.synth.run import run_synth

    run_synth(root, **options)
