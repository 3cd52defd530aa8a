"""The command line of `alexnet-bench`; what it runs is loaded when it runs."""

import functools
import importlib
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from alexnet.model.networks.others import ARCHITECTURES
from alexnet.shards.errors import InputError, nearest
from alexnet.tools.console import Programs, name_of, one_line_errors
from alexnet.tools.run.recipes import recipe_names

_PARALLEL, _PRECISIONS = ("towers", "data", "owt"), ("fp32", "bf16")
_QUICK_ROUNDS, _SECONDS, _QUICK_SECONDS = 3, 2.0, 0.5

Command = Callable[..., Any]


class Finite(click.FloatRange):
    """A range of numbers, without nan, which every comparison lets pass, and without infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no number of this range: {self._describe_range()}.", param, ctx)
        return number


def words(option: str, text: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the names in a text with commas between, each once. Raises InputError for one that is not known."""
    allowed = tuple(known)
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in found:
        if name not in allowed:
            raise InputError(f"{option} {name}: must be of {', '.join(allowed)}{nearest(name, allowed)}")
    return found


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Return the numbers in a text, each once. Raises InputError for what is none, and below 1."""
    try:
        found = tuple(dict.fromkeys(int(n) for n in text.split(",") if text))
    except ValueError:
        raise InputError(f"{option} {text}: must be numbers with commas between, such as 1,2") from None
    if min(found, default=1) < 1:
        raise InputError(f"{option} {text}: every number must be at least 1")
    return found


def measures(name: str, *, rounds: int = 5) -> Callable[[Command], Command]:
    """Have a command measure: `NAME.measure_NAME` is called with what the command's function makes of its options."""
    file, seconds = click.Path(path_type=Path, dir_okay=False), Finite(min=0.05, max=3600)
    shared = [
        click.option("--rounds", type=click.IntRange(min=1), help=f"Interleaved.  [default: {rounds}; 3 with --quick]"),
        click.option("--seconds", type=seconds, help="Of one row in one round.  [default: 2; 0.5 with --quick]"),
        click.option("--quick", is_flag=True, help="Shorter rounds, and fewer; of a data path, the main rows."),
        click.option("--check", is_flag=True, help="Exit code 1 if a guarded ratio fails."),
        click.option("--json", "json_file", type=file, help="Write the figures here, too."),
        click.option("--html", "html_file", type=file, help="Write a page of charts."),
    ]

    def decorated(function: Command) -> Command:
        @functools.wraps(function)
        def command(json_file: Path | None, html_file: Path | None, check: bool, **options: Any) -> None:
            from alexnet.tools.bench.measure import Timing
            from alexnet.tools.bench.output import run

            measure = getattr(importlib.import_module(f"alexnet.tools.bench.{name}"), f"measure_{name}")
            given, wanted = options.pop("rounds"), options.pop("seconds")
            quick = options["quick"]
            timing = Timing(
                rounds=given or (_QUICK_ROUNDS if quick else rounds),
                seconds=wanted or (_QUICK_SECONDS if quick else _SECONDS),
            )
            settled = function(**options)
            run(lambda say: measure(say, timing=timing, **settled), json_file, html_file, check=check)

        wrapped = one_line_errors(command)
        for option in reversed(shared):
            wrapped = option(wrapped)
        return wrapped

    return decorated


_device = click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda if there is one]")
_data = click.argument("data", required=False, type=click.Path(path_type=Path))


def _threads(whose: str) -> Callable[[Command], Command]:
    return click.option("--threads", type=click.IntRange(min=1), help=f"{whose}.  [default: one a core]")


@click.group(cls=Programs)
@click.version_option(package_name="alexnet", prog_name="alexnet-bench")
def main() -> None:
    """Measure how fast this machine feeds and trains the network, what bounds it, and how far it is from that.

    \b
    Start here:
      alexnet-bench dataloader /data/ilsvrc-256
      alexnet-bench model
    """  # noqa: D301 (click wants the character)


@main.command()
@_data
@click.option("--split", type=click.Choice(["train", "val"]), default="train", show_default=True)
@click.option("--batch-images", type=click.IntRange(min=1), default=128, show_default=True)
@_threads("Of each loader")
@_device
@click.option("--rows", default="", help="Only these, with commas between; a wrong name lists them all.")
@click.option(
    "--compare", default="", help="Other loaders, of webdataset,torch,dali,ffcv,spdl,nvimagecodec,torchvision."
)
@click.option("--tune", "tune_seconds", type=Finite(min=0), default=0.0, help="Seconds to search options for.")
@measures("dataloader")
def dataloader(data: Path | None, quick: bool, rows: str, compare: str, **options: Any) -> dict[str, Any]:
    """Images per second of the data path on DATA, beside its limits and beside other loaders.

    DATA is found as `alexnet-train` finds it. Each row runs in a process of its own, in turn with the others, round
    after round, so that a machine whose speed drifts treats them alike; the table gives median, minimum and maximum by
    wall time, and the rate by CPU time, which other users of the machine do not change. docs/benchmarks.md explains
    rows and JSON. Ctrl-C writes what was measured until then.
    """
    from alexnet.tools.bench.bench_data import bench_data
    from alexnet.tools.bench.loader_rows import BASELINES

    names = tuple(name.strip() for name in rows.split(",") if name.strip())
    baselines = words("--compare", compare, BASELINES)
    folder, why = bench_data(data, quick=quick)
    return {"data": folder, "why": why, "quick": quick, "rows": names, "baselines": baselines, **options}


@main.command()
@click.option("--arch", default="alexnet-2012", show_default=True, help=f"Of {', '.join(ARCHITECTURES)}.")
@click.option("--precision", default="", help="Of fp32,bf16.  [default: both; fp32 on a CPU without bf16]")
@click.option("--batch", default="", help="Images in a batch.  [default: 64 on a CPU, 128,512,1024 on a GPU]")
@click.option("--gpus", default="", help="Processes, a device each.  [default: 1; 1,2 on a CPU, for two towers]")
@click.option("--parallel", default="towers", show_default=True, help="Of towers,data,owt: what several divide.")
@_device
@_threads("Of the CPU")
@click.option("--naive/--no-naive", default=True, show_default=True, help="Beside the naive version.")
@measures("model")
def model(
    arch: str, precision: str, batch: str, gpus: str, parallel: str, quick: bool, **options: Any
) -> dict[str, Any]:
    """Images per second of networks in training, beside the machine's rooflines and a naive version.

    Batches are synthetic and already on the device. Options take several values with commas between; each combination
    is a row, and each row runs in processes of its own, in turn with the others. docs/benchmarks.md explains rows and
    JSON. Ctrl-C writes what was measured until then.
    """
    return {
        "archs": words("--arch", arch, ARCHITECTURES) or ("alexnet-2012",),
        "precisions": words("--precision", precision, _PRECISIONS),
        "batches": numbers("--batch", batch),
        "gpus": numbers("--gpus", gpus),
        "parallel": words("--parallel", parallel, _PARALLEL) or ("towers",),
        **options,
    }


@main.command()
@_data
@click.option("--arch", type=name_of(ARCHITECTURES), default="alexnet-2012", help=f"One of {', '.join(ARCHITECTURES)}.")
@click.option("--recipe", type=name_of(recipe_names()), help="Settings of the run.  [default: the network's]")
@click.option("--precision", type=click.Choice(_PRECISIONS), help="[default: bf16; fp32 on a CPU without bf16]")
@click.option("--batch", "batch_images", type=click.IntRange(min=1), help="[default: 64 on a CPU, 128 on a GPU]")
@click.option("--scaling", default="1", show_default=True, help="Processes to train in, such as 1,2,4.")
@click.option("--parallel", type=click.Choice(_PARALLEL), default="towers", show_default=True)
@_device
@_threads("Of the CPU")
@measures("train")
def train(data: Path | None, scaling: str, quick: bool, **options: Any) -> dict[str, Any]:
    """Images per second of training on DATA, beside the loader alone and the network alone.

    Says which of the two bounds training, how long it waits for data, and what remains between. DATA is found as
    `dataloader` finds it. docs/benchmarks.md explains rows and JSON. Ctrl-C writes what was measured until then.
    """
    from alexnet.tools.bench.bench_data import bench_data

    counts = numbers("--scaling", scaling) or (1,)
    folder, why = bench_data(data, quick=quick)
    return {"data": folder, "why": why, "scaling": counts, **options}


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--images", type=click.IntRange(min=1), default=2000, show_default=True, help="Taken evenly from SOURCE.")
@click.option("--workers", default="1,2", show_default=True, help="Numbers of processes to measure.")
@measures("prep", rounds=3)
def prep(source: Path, images: int, workers: str, quick: bool) -> dict[str, Any]:
    """Speed of `alexnet-prep shard` on SOURCE against one core's decode + resize + encode.

    Bound and converter are measured in turn on the same images; shards go to a temporary folder.
    """
    return {"source": source, "images": images, "workers": numbers("--workers", workers) or (1, 2)}


@main.command()
@click.argument("a", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("b", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--max-slowdown", type=Finite(0, 0.99), default=0.05, show_default=True, help="That is let pass.")
@one_line_errors
def diff(a: Path, b: Path, max_slowdown: float) -> None:
    """Compare two files that --json of one command wrote; exit code 1 if B is really slower.

    A row is slower if its median fell by more than the slowdown that is let pass and the 5% that equal runs differ by,
    and its best round does not reach the other's worst. Where others used the machine, rates are compared by CPU time.
    """
    from alexnet.tools.bench.diff import run_diff

    run_diff(a, b, max_slowdown)
