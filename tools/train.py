"""`alexnet-train`: the command line. `run/training.py` has what it starts: `--help` loads no torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click

from alexnet.model.networks.others import ARCHITECTURES
from alexnet.pipeline.lighting import Lighting
from alexnet.tools.console import Program, name_of, one_line_errors, recipe_or_file, storage_options
from alexnet.tools.settings import DEFAULT_RECIPE, recipe_for, recipe_names

_PATH = click.Path(path_type=Path)
_BY_RECIPE = "  [default: the recipe's]"


def setting(option: str, key: str, **attributes: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return an option that is a setting under a shorter name: its parameter is the key, `train__epochs` for one."""
    return click.option(option, key.replace(".", "__"), **attributes)


@click.command(cls=Program)
@click.version_option(package_name="alexnet", prog_name="alexnet-train")
@click.argument("data", required=False, type=_PATH)
@click.option(
    "--recipe",
    type=recipe_or_file,
    help=f"Settings of the run: {', '.join(recipe_names())}, or your own, FILE.toml.  "
    f"[default: --arch's, else {DEFAULT_RECIPE}]",
)
@setting("--arch", "net.arch", type=name_of(ARCHITECTURES), help=f"Network: {', '.join(ARCHITECTURES)}.{_BY_RECIPE}")
@setting("--epochs", "train.epochs", type=int, help=f"Passes over the data.{_BY_RECIPE}")
@setting("--steps", "train.steps", type=int, help="Stop after so many steps, whatever the epochs say.")
@setting(
    "--seed",
    "train.seed",
    type=int,
    help="Initial values, order, augmentation and dropout follow from it.  [default: 0]",
)
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
@setting(
    "--cache",
    "stream.cache",
    metavar="DIR",
    help="Of data at a URL: keeps whole shards.  [default: ~/.cache/alexnet/remote]",
)
@setting("--cache-gb", "stream.cache_gb", type=float, metavar="GB", help=f"What that may take.{_BY_RECIPE}")
@storage_options
@setting("--decode", "stream.decode", help=f"Who decodes: default, gpu, dali, host or split=SHARE.{_BY_RECIPE}")
@setting(
    "--lighting",
    "augment.lighting",
    type=click.Choice(get_args(Lighting)),
    help=f"Whose colour noise.{_BY_RECIPE}",
)
@setting("--checkpoint-every", "train.checkpoint_every", type=int, metavar="STEPS", help="[default: each epoch]")
@setting(
    "--keep",
    "train.keep_checkpoints",
    type=int,
    metavar="N",
    help="Keep the newest N checkpoints.  [default: the recipe's, else 2]",
)
@setting(
    "--final-views",
    "train.final_views",
    type=click.Choice(["1", "10"]),
    help=f"Views of each image at the end.{_BY_RECIPE}",
)
@setting(
    "--deterministic",
    "train.deterministic",
    is_flag=True,
    default=None,
    help="Two runs on one machine are equal to the bit, on a GPU, too.",
)
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Change one setting, e.g. optim.lr=0.02."
)
@click.option("--init", type=_PATH, help="Start from the weights in this run or file.")
@click.option("--out", type=_PATH, help="Run folder.  [default: runs/DATA-RECIPE-seedSEED]")
@click.option("--tensorboard", is_flag=True, help="Write event files for TensorBoard into the run folder, too.")
@click.option("--dry-run", is_flag=True, help="Print every setting and the plan, and stop. Nothing is written.")
@click.option("--overwrite", is_flag=True, help="Delete the run that is in the run folder and start anew.")
@click.option("--resume", is_flag=True, help="Continue the run in the run folder; refuse to start a new one.")
@one_line_errors
def main(data: Path | None, recipe: str | None, **options: Any) -> None:
    """Train the two-tower network of 2012, or another, on the shards in DATA.

    DATA is what `alexnet-prep` wrote, of JPEGs or of planes: a folder, or a URL (s3://, gs://, az:// or http(s)://).
    Left out, it is what the environment variable ALEXNET_DATA names, else the 100 images that come with the package.

    An unfinished run with the same settings in the run folder is continued from its newest checkpoint.

    \b
    Examples:
      alexnet-train --recipe small                     100 bundled images, minutes on a CPU
      alexnet-train /data/ilsvrc-256                   the paper's recipe, 90 epochs
      alexnet-train /data/ilsvrc-256 --gpus 2          one tower on each GPU
      alexnet-train s3://bucket/ilsvrc-256             shards that live elsewhere
      alexnet-train DATA --set train.batch_images=256 --set optim.lr=0.02
      alexnet-train /data/cifar10-32 --arch cuda-convnet-cifar
    """  # noqa: D301 (click wants the character)
    from alexnet.tools.run.settings import TrainOptions, load_recipe
    from alexnet.tools.run.training import run_training

    settings = {name.replace("__", "."): options.pop(name) for name in list(options) if "__" in name}
    settings = {key: value for key, value in settings.items() if value is not None}
    if recipe is None:
        recipe = recipe_for(settings["net.arch"]) if "net.arch" in settings else DEFAULT_RECIPE
    base = load_recipe(recipe)
    run_training(TrainOptions(data=data, recipe=recipe, recipe_settings=base, settings=settings, **options))
