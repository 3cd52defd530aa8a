"""`alexnet-model`: the command line. What needs torch is loaded when a command that needs it runs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from alexnet.model.networks.others import ARCHITECTURES
from alexnet.model.networks.settings import NetSettings, architecture_named
from alexnet.shards.errors import InputError, one_line
from alexnet.shards.files import read_bytes
from alexnet.shards.manifest import read_manifest
from alexnet.shards.url import place_of
from alexnet.tools.console import Programs, cache_option, name_of, one_line_errors, storage_options, tell
from alexnet.tools.use.show import print_table, show_layers, show_layout

if TYPE_CHECKING:
    from alexnet.model.placement import Parallel

_PATH = click.Path(path_type=Path)
_DEVICE = click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda if there is one]")


@click.group(cls=Programs)
@click.version_option(package_name="alexnet", prog_name="alexnet-model")
def main() -> None:
    """Look at networks and use trained ones.

    CHECKPOINT is a run folder (its newest checkpoint counts), one of its checkpoints, or a file that `export` wrote.

    \b
    Start here:
      alexnet-model show alexnet-2012
      alexnet-model evaluate runs/demo shards/ci-100
      alexnet-model predict runs/demo cat.jpg dog.png
      alexnet-model report runs/demo
    """  # noqa: D301 (click wants the character)


@main.command(help=f"Show the layers of ARCH, one of {', '.join(ARCHITECTURES)}.")
@click.argument("arch", type=name_of(ARCHITECTURES))
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
    parallel: "Parallel | None",
    batch_images: int | None,
) -> None:
    """Print a table of layers and the totals, and one of processes where a layout is asked for."""
    architecture = architecture_named(arch)
    px = px or architecture.input_px[0]
    settings = NetSettings(
        arch=arch, classes=classes or (10 if architecture.shards_px else 1000), channels=channels or 0
    )
    show_layers(settings, px)
    if gpus is None:
        if parallel or batch_images:
            raise click.UsageError("--parallel and --batch-images describe a layout: give --gpus as well")
        return
    click.echo()
    show_layout(settings, px, gpus=gpus, parallel=parallel or "towers", batch_images=batch_images or 128)


@main.command()
@click.argument("checkpoints", metavar="CHECKPOINT...", nargs=-1, required=True, type=_PATH)
@click.argument("data", type=_PATH)
@click.option("--views", type=click.Choice(["1", "10"]), default="1", show_default=True, help="Windows of each image.")
@_DEVICE
@click.option(
    "--batch-images", type=click.IntRange(min=1), default=128, show_default=True, help="Windows at a time: memory."
)
@cache_option
@storage_options
@one_line_errors
def evaluate(
    checkpoints: tuple[Path, ...], data: Path, views: str, device: str | None, batch_images: int, cache: Path | None
) -> None:
    """Evaluate networks on the validation images of the data set DATA, a folder or a URL: each image once.

    Of several networks, which may be of different kinds, each one's error is printed and that of their average: the
    mean of the probabilities that they give to the classes. The paper's 15.3% is such an average, of five networks and
    two with a sixth convolution. With ten views, the probabilities of the four corners and the centre of an image and
    of their mirror images are averaged first, as in the paper.
    """
    from alexnet.pipeline import StreamSettings
    from alexnet.shards.local_root import local_root
    from alexnet.tools.use.evaluate import evaluate_together
    from alexnet.tools.use.trained import open_trained

    networks = [open_trained(path) for path in checkpoints]
    root = local_root(data, cache)
    images, hidden = read_manifest(root).counts["val"].written, not sys.stderr.isatty()
    with click.progressbar(length=images, label="evaluating", file=sys.stderr, hidden=hidden) as bar:
        count: Literal[1, 10] = 10 if views == "10" else 1
        *each, mean = evaluate_together(
            networks,
            root,
            views=count,
            device=device,
            batch_images=batch_images,
            settings=StreamSettings(cache=str(cache or "")),
            on_batch=bar.update,
        )
    names = [(one_line(str(network.path)), network.net.arch, f"{network.step:,}") for network in networks]
    if len(networks) > 1:
        names, each = [*names, (f"average of {len(networks)}", "", "")], [*each, mean]
    rows = [(*name, f"{1 - e.top1:.2%}", f"{1 - e.top5:.2%}") for name, e in zip(names, each, strict=True)]
    seen = f"{mean.images:,} of {mean.of:,} validation images"
    tell(f"{place_of(data)}: {seen}, {'ten views' if count == 10 else 'centre window'}")
    print_table(("network", "", "step", "top-1 error", "top-5 error"), rows, numbers_from=3, total=len(networks) > 1)


@main.command()
@click.argument("checkpoint", type=_PATH)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=_PATH)
@_DEVICE
@one_line_errors
def predict(checkpoint: Path, images: tuple[Path, ...], device: str | None) -> None:
    """Print the five most probable classes of each IMAGE.

    Images may have any format that `alexnet-prep shard` takes, and are prepared as it prepares them, but turned upright
    where their EXIF data say that they are not. One that cannot be used is named with the reason, and the others are
    predicted all the same; the exit code is 2 then.
    """
    from alexnet.tools.convert.opening import MAX_BYTES, UndecodableError
    from alexnet.tools.use.predict import Predictor
    from alexnet.tools.use.trained import open_trained

    predictor = Predictor(open_trained(checkpoint), device)
    bad = 0
    for image in images:
        try:
            square, turned = predictor.stored(read_bytes(image, MAX_BYTES))
        except (OSError, ValueError, UndecodableError, MemoryError) as error:
            bad += 1
            reason = error.strerror if isinstance(error, OSError) else str(error) or "takes more memory than there is"
            tell(f"{image}: {reason}", err=True)
            continue
        tell(f"{image} (turned upright, as its EXIF data say)" if turned else str(image))
        for guess in predictor.guesses([square])[0]:
            tell(f"  {guess.probability:7.2%}  {guess.name}")
    if bad:
        raise InputError(f"{bad} of {len(images)} images could not be used; the reasons are above")


@main.command()
@click.argument("checkpoint", type=_PATH)
@click.option("--to", "form", type=click.Choice(["safetensors", "torchvision"]), required=True, help="Kind of file.")
@click.option("--out", type=_PATH, required=True, help="File to write; one that is there is replaced.")
@one_line_errors
def export(checkpoint: Path, form: Literal["safetensors", "torchvision"], out: Path) -> None:
    """Write a network into one file.

    `safetensors` takes any network; the file holds all that the other commands and `alexnet-train --init` need.
    `torchvision` takes alexnet-owt: a state dict that torchvision's `alexnet` loads.
    """
    from alexnet.tools.use import export as exporting
    from alexnet.tools.use.trained import open_trained

    trained = open_trained(checkpoint)
    exporting.export(trained, form, out)
    tell(f"{out}: {trained.net.arch}, step {trained.step:,}, {out.stat().st_size / 1e6:,.1f} MB")
    tell("feed it: " + "; ".join(f"{name} {_short(value)}" for name, value in exporting.feed(trained).items()))


@main.command()
@click.argument("run", type=_PATH)
@click.option("--data", type=_PATH, help="The run's data set.  [default: where it was while training]")
@storage_options
@one_line_errors
def report(run: Path, data: Path | None) -> None:
    """Write report.html into the run folder RUN, also of a run that is not finished.

    One page that opens from the disk: loss and error, speed and waiting for data, the first layer's kernels, twenty
    validation images with the five most probable classes of each, and what the run is worth in GTX 580. `alexnet-train`
    writes it at the end of a run.
    """
    from alexnet.tools.pages.run import write_report

    file = write_report(run, data)
    tell(f"{file}: {file.stat().st_size / 1e6:,.1f} MB")


def _short(value: object) -> str:
    return "[" + ", ".join(f"{v:.4g}" for v in value) + "]" if isinstance(value, list) else str(value)
