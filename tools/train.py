"""`alexnet-train`: the command line. What it starts is in `training`, so that `--help` loads neither torch nor DALI."""

from pathlib import Path
from typing import get_args

import click

from alexnet.model.networks.catalogue import DRAWINGS
from alexnet.pipeline.lighting import Lighting
from alexnet.tools.console import Program, name_of, one_line_errors
from alexnet.tools.run.options import TrainOptions
from alexnet.tools.run.recipes import DEFAULT_RECIPE, recipe_for, recipe_names


@click.command(cls=Program)
@click.version_option(package_name="alexnet", prog_name="alexnet-train")
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option(
    "--recipe",
    type=name_of(recipe_names()),
    help=f"Settings of the run: {', '.join(recipe_names())}.  [default: --arch's, else {DEFAULT_RECIPE}]",
)
@click.option("--arch", type=name_of(DRAWINGS), help=f"Network: {', '.join(DRAWINGS)}.  [default: the recipe's]")
@click.option("--epochs", type=int, help="Passes over the data.  [default: the recipe's]")
@click.option("--steps", type=int, help="Stop after so many steps, whatever the epochs say.")
@click.option("--seed", type=int, help="Initial values, order, augmentation and dropout follow from it.  [default: 0]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda if there is one]")
@click.option("--gpus", type=int, help="Devices, one process each; with --device cpu processes.  [default: 1]")
@click.option(
    "--parallel",
    type=click.Choice(["towers", "data", "owt"]),
    default="towers",
    show_default=True,
    help="What several devices divide: towers (2 a network, then replicas), data (replicas only), or owt "
    "(images in convolutions, units in fully connected layers).",
)
@click.option("--decode", help="Who decodes: default, auto, gpu, dali, host or split=SHARE.  [default: the recipe's]")
@click.option("--lighting", type=click.Choice(get_args(Lighting)), help="Whose colour noise.  [default: the recipe's]")
@click.option("--checkpoint-every", type=int, metavar="STEPS", help="[default: each epoch]")
@click.option("--keep", type=int, metavar="N", help="Keep the newest N checkpoints.  [default: the recipe's, else 2]")
@click.option(
    "--final-views", type=click.Choice(["1", "10"]), help="Views of each image at the end.  [default: the recipe's]"
)
@click.option("--deterministic", is_flag=True, help="Two runs on one machine are equal to the bit, on a GPU, too.")
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change one setting, e.g. optim.lr=0.02."
)
@click.option("--init", type=click.Path(path_type=Path), help="Start from the weights in this run or file.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/DATA-RECIPE-seedSEED]")
@click.option("--tensorboard", is_flag=True, help="Write event files for TensorBoard into the run folder, too.")
@click.option("--dry-run", is_flag=True, help="Print every setting and the plan, and stop. Nothing is written.")
@click.option("--overwrite", is_flag=True, help="Delete the run that is in the run folder and start anew.")
@click.option("--resume", is_flag=True, help="Continue the run in the run folder; refuse to start a new one.")
@one_line_errors
def main(data: Path | None, recipe: str | None, arch: str | None, **options: object) -> None:
    """Train the two-tower network of 2012, or another, on the shards in DATA.

    DATA is a folder that `alexnet-prep shard` wrote; left out, it is the folder that the environment variable
    ALEXNET_DATA names, else the 100 images that come with the package.

    An unfinished run with the same settings in the run folder is continued from its newest checkpoint.

    \b
    Examples:
      alexnet-train --recipe small                     100 bundled images, minutes on a CPU
      alexnet-train /data/ilsvrc-256                   the paper's recipe, 90 epochs
      alexnet-train /data/ilsvrc-256 --gpus 2          one tower on each GPU
      alexnet-train DATA --set train.batch_images=256 --set optim.lr=0.02
      alexnet-train /data/cifar10-32 --arch cuda-convnet-cifar
    """  # noqa: D301 (click wants the character)
    from alexnet.tools.run.ending import lost_process_in_words
    from alexnet.tools.run.training import run_training

    chosen = recipe or (recipe_for(arch) if arch else DEFAULT_RECIPE)
    with lost_process_in_words():
        run_training(TrainOptions(data=data, recipe=chosen, arch=arch, **options))  # type: ignore[arg-type]
