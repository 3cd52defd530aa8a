"""The command line of `alexnet-bench`, and what every command does around its measuring, which is loaded late."""

import functools
import importlib
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from alexnet.model.networks.others import ARCHITECTURES
from alexnet.shards.errors import InputError, reason_of
from alexnet.tools import console
from alexnet.tools.console import Programs, StoppedError, interruptible, name_of, one_line_errors, recipe_or_file
from alexnet.tools.settings import recipe_names
from alexnet.tools.start import INTERRUPTED

if TYPE_CHECKING:
    from alexnet.tools.bench.report import Report

PEERS = (
    "webdataset", "torch", "dali", "ffcv", "spdl", "torchcodec", "grain", "litdata", "streaming", "nvimagecodec",
    "torchvision",
)  # fmt: skip
"""The loaders that there are baselines of."""
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


def several(one: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Return a type for click: values with commas between, each once."""

    def values(text: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(one(value.strip()) for value in text.split(",") if value.strip()))

    return values


def measures(*, rounds: int = 5) -> Callable[[Command], Command]:
    """Have NAME measure: `NAME.measure_NAME` is called with what the command's function makes of its options."""
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

            _refuse_unwritable(json_file, "--json")
            _refuse_unwritable(html_file, "--html")
            given, wanted, quick = options.pop("rounds"), options.pop("seconds"), options["quick"]
            usual = (_QUICK_ROUNDS, _QUICK_SECONDS) if quick else (rounds, _SECONDS)
            journal = json_file and json_file.with_suffix(".rounds")
            _forget(journal)
            timing = Timing(given or usual[0], wanted or usual[1], journal=journal)
            with interruptible("interrupted before anything was measured"):
                report = _measured(function.__name__, function(**options) | {"timing": timing})
                _tell(report, json_file, html_file, check=check)
                _forget(journal)  # the report has all of it

        wrapped = one_line_errors(command)
        for option in reversed(shared):
            wrapped = option(wrapped)
        return wrapped

    return decorated


def _forget(journal: Path | None) -> None:
    if journal:
        journal.unlink(missing_ok=True)


def _measured(name: str, settled: dict[str, Any]) -> "Report":
    from rich.console import Console

    measure = getattr(importlib.import_module(f"alexnet.tools.bench.{name}"), f"measure_{name}")
    with Console(stderr=True).status("") as status:
        report: Report = measure(status.update, **settled)
    return replace(report, conditions=replace(report.conditions, load_after=os.getloadavg()[0]))


def _tell(report: "Report", json_file: Path | None, html_file: Path | None, *, check: bool) -> None:
    """Print a report and write what was asked for; after Ctrl-C that is what was measured until then.

    Raises StoppedError for a full disk, and with `check` for ratios that fail; SystemExit if it was interrupted.
    """
    from alexnet.tools.bench.report import to_json
    from alexnet.tools.bench.tables import page_of, print_report

    print_report(report)
    _write(json_file, to_json(report))
    _write(html_file, page_of(report).encode())
    if not report.rows:
        whys = "; ".join(sorted({one.why for one in report.missing})) or "nothing was asked for"
        click.echo(f"nothing was measured: {whys}", err=True)
    if not report.complete:
        raise SystemExit(INTERRUPTED)
    if check and report.failed():
        raise StoppedError(f"guarded ratios that fail: {'; '.join(report.failed())}")


def _write(file: Path | None, content: bytes) -> None:
    try:
        if file is not None:
            file.write_bytes(content)
    except OSError as error:
        raise StoppedError(f"{file}: cannot be written ({reason_of(error)}); the figures above are complete") from None


def _refuse_unwritable(file: Path | None, option: str) -> None:
    if file is not None and not os.access(file if file.exists() else file.absolute().parent, os.W_OK):
        raise InputError(f"{option} {file}: cannot be written; give a file in a folder that exists")


_device = click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda if there is one]")
_data = click.argument("data", required=False, type=click.Path(path_type=Path))
_numbers = several(click.IntRange(min=1))


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
@click.option("--rows", type=several(str), default="", help="Only these, with commas between; a wrong name lists them.")
@click.option("--compare", type=several(name_of(PEERS)), default="", help=f"Other loaders, of {','.join(PEERS)}.")
@click.option(
    "--planes", type=click.Path(path_type=Path), metavar="DIR",
    help="What `alexnet-prep decode DATA` wrote.  [default: DATA-planes, if it is there]",
)  # fmt: skip
@click.option("--tune", "tune_seconds", type=Finite(min=0), default=0.0, help="Seconds to search options for.")
@console.storage_options
@measures()
def dataloader(data: Path | None, quick: bool, **options: Any) -> dict[str, Any]:
    """Images per second of the data path on DATA, beside its limits and beside other loaders.

    DATA is found as `alexnet-train` finds it. Each row runs in a process of its own, in turn with the others, round
    after round, so that a machine whose speed drifts treats them alike; the table gives median, minimum and maximum by
    wall time, and the rate by CPU time, which other users of the machine do not change. docs/benchmarks.md explains
    rows and JSON. Ctrl-C writes what was measured until then.
    """
    from alexnet.tools.bench.bench_data import bench_data

    folder, why = bench_data(data, quick=quick)
    return {"data": folder, "why": why, "quick": quick, **options}


@main.command()
@click.option(
    "--arch", "archs", type=several(name_of(ARCHITECTURES)), default="alexnet-2012", show_default=True,
    help=f"Of {', '.join(ARCHITECTURES)}.",
)  # fmt: skip
@click.option(
    "--precision", "precisions", type=several(name_of(_PRECISIONS)), default="",
    help="Of fp32,bf16.  [default: both; fp32 on a CPU without bf16]",
)  # fmt: skip
@click.option(
    "--batch", "batches", type=_numbers, default="",
    help="Images in a batch.  [default: 64 on a CPU, 128,512,1024 on a GPU]",
)  # fmt: skip
@click.option(
    "--gpus", type=_numbers, default="", help="Processes, a device each.  [default: 1; 1,2 on a CPU, for two towers]"
)
@click.option(
    "--parallel", type=several(name_of(_PARALLEL)), default="towers", show_default=True,
    help="Of towers,data,owt: what several divide.",
)  # fmt: skip
@_device
@_threads("Of the CPU")
@click.option("--naive/--no-naive", default=True, show_default=True, help="Beside the naive version.")
@click.option(
    "--count", is_flag=False, flag_value="paper", type=several(name_of(recipe_names())), default="",
    help="Instead: kernels and bytes of a GPU's step of these recipes, on any machine.  [paper if none is named]",
)  # fmt: skip
@measures()
def model(quick: bool, count: tuple[str, ...], **options: Any) -> dict[str, Any]:
    """Images per second of networks in training, beside the machine's rooflines and a naive version.

    Batches are synthetic and already on the device. Options take several values with commas between; each combination
    is a row, and each row runs in processes of its own, in turn with the others. docs/benchmarks.md explains rows and
    JSON. Ctrl-C writes what was measured until then.

    With --count, --precision (bf16), --batch (128) and --json say what is counted, and nothing is measured.
    """
    if count:
        from alexnet.tools.bench.count import print_counts

        context = click.get_current_context()
        _refuse_others(context, {"count", "precisions", "batches", "json_file"})
        _write(context.params["json_file"], print_counts(count, options["precisions"], options["batches"]))
        context.exit()
    return options


def _refuse_others(context: click.Context, known: set[str]) -> None:
    """Raise UsageError for options of the command line that --count does not know."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in known
        and context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"--count knows --precision, --batch and --json; leave {', '.join(given)} out", context)


@main.command()
@_data
@click.option("--arch", type=name_of(ARCHITECTURES), default="alexnet-2012", help=f"One of {', '.join(ARCHITECTURES)}.")
@click.option("--recipe", type=recipe_or_file, help="Settings of the run, or FILE.toml.  [default: the network's]")
@click.option("--precision", type=click.Choice(_PRECISIONS), help="[default: bf16; fp32 on a CPU without bf16]")
@click.option("--batch", "batch_images", type=click.IntRange(min=1), help="[default: 64 on a CPU, 128 on a GPU]")
@click.option("--scaling", type=_numbers, default="1", show_default=True, help="Processes to train in, such as 1,2,4.")
@click.option("--parallel", type=click.Choice(_PARALLEL), default="towers", show_default=True)
@_device
@_threads("Of the CPU")
@console.storage_options
@measures()
def train(data: Path | None, quick: bool, **options: Any) -> dict[str, Any]:
    """Images per second of training on DATA, beside the loader alone and the network alone.

    Says which of the two bounds training, how long it waits for data, and what remains between. DATA is found as
    `dataloader` finds it. docs/benchmarks.md explains rows and JSON. Ctrl-C writes what was measured until then.
    """
    from alexnet.tools.bench.bench_data import bench_data

    folder, why = bench_data(data, quick=quick)
    return {"data": folder, "why": why, **options}


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--images", type=click.IntRange(min=1), default=2000, show_default=True, help="Taken evenly from SOURCE.")
@click.option("--workers", type=_numbers, default="1,2", show_default=True, help="Numbers of processes to measure.")
@measures(rounds=3)
def prep(quick: bool, **options: Any) -> dict[str, Any]:
    """Speed of `alexnet-prep shard` on SOURCE against one core's decode + resize + encode.

    Bound and converter are measured in turn on the same images; shards go to a temporary folder. Where SOURCE is a data
    set, the speed of `alexnet-prep decode` against one core's decoder.
    """
    return options


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
