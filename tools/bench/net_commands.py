"""The command lines of `alexnet-bench model` and `train`; what they run is loaded when it runs."""

from pathlib import Path
from typing import Any

import click

from alexnet.model.networks.others import ARCHITECTURES
from alexnet.tools.bench.names import SECONDS, numbers, words
from alexnet.tools.console import name_of, one_line_errors
from alexnet.tools.run.recipes import recipe_names

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--arch", default="alexnet-2012", show_default=True, help=f"Of {', '.join(ARCHITECTURES)}.")
@click.option("--precision", default="", help="Of fp32,bf16.  [default: both; fp32 on a CPU without bf16]")
@click.option("--batch", default="", help="Images in a batch.  [default: 64 on a CPU, 128,512,1024 on a GPU]")
@click.option("--gpus", default="", help="Processes, a device each.  [default: 1; 1,2 on a CPU, for two towers]")
@click.option("--parallel", default="towers", show_default=True, help="Of towers,data,owt: what several divide.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda if there is one]")
@click.option("--threads", type=click.IntRange(min=1), help="Of the CPU.  [default: one a core]")
@click.option("--rounds", type=click.IntRange(min=1), help="Interleaved rounds.  [default: 5; 3 with --quick]")
@click.option("--seconds", type=SECONDS, help="Of one row in one round.  [default: 2; 0.5]")
@click.option("--quick", is_flag=True, help="Shorter rounds, and fewer.")
@click.option("--naive/--no-naive", default=True, show_default=True, help="Beside the naive version.")
@click.option("--check", is_flag=True, help="Exit code 1 if a guarded ratio fails.")
@click.option("--json", "json_file", type=_FILE, help="Write the figures here, too.")
@click.option("--html", "html_file", type=_FILE, help="Write a page of charts.")
@one_line_errors
def model(
    arch: str,
    precision: str,
    batch: str,
    gpus: str,
    parallel: str,
    rounds: int | None,
    seconds: float | None,
    quick: bool,
    check: bool,
    json_file: Path | None,
    html_file: Path | None,
    **options: Any,
) -> None:
    """Images per second of networks in training, beside the machine's rooflines and a naive version.

    Batches are made up and already on the device. Options take several values with commas between; each combination is
    a row, and each row runs in processes of its own, in turn with the others. docs/benchmarks.md explains rows and
    JSON. Ctrl-C writes what was measured until then.
    """
    from alexnet.tools.bench.measure import Timing
    from alexnet.tools.bench.model import measure_model
    from alexnet.tools.bench.output import run

    timing = Timing(rounds=rounds or (3 if quick else 5), seconds=seconds or (0.5 if quick else 2.0))
    asked: dict[str, Any] = {
        "archs": words("--arch", arch, ARCHITECTURES),
        "precisions": words("--precision", precision, ("fp32", "bf16")) if precision else (),
        "batches": numbers("--batch", batch) if batch else (),
        "gpus": numbers("--gpus", gpus) if gpus else (),
        "parallel": words("--parallel", parallel, ("towers", "data", "owt")),
    }
    options |= {"timing": timing, **asked}
    run(lambda say: measure_model(say, **options), json_file, html_file, check=check)


@click.command()
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option("--arch", type=name_of(ARCHITECTURES), default="alexnet-2012", help=f"One of {', '.join(ARCHITECTURES)}.")
@click.option("--recipe", type=name_of(recipe_names()), help="Settings of the run.  [default: the network's]")
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="[default: bf16; fp32 on a CPU without bf16]")
@click.option("--batch", "batch_images", type=click.IntRange(min=1), help="[default: 64 on a CPU, 128 on a GPU]")
@click.option("--scaling", default="1", show_default=True, help="Processes to train in, such as 1,2,4.")
@click.option("--parallel", type=click.Choice(["towers", "data", "owt"]), default="towers", show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda if there is one]")
@click.option("--threads", type=click.IntRange(min=1), help="Of the CPU.  [default: one a core]")
@click.option("--rounds", type=click.IntRange(min=1), help="Interleaved rounds.  [default: 5; 3 with --quick]")
@click.option("--seconds", type=SECONDS, help="Of one row in one round.  [default: 2; 0.5]")
@click.option("--quick", is_flag=True, help="Shorter rounds, and the bundled images if no DATA are given.")
@click.option("--json", "json_file", type=_FILE, help="Write the figures here, too.")
@click.option("--html", "html_file", type=_FILE, help="Write a page of charts.")
@one_line_errors
def train(
    data: Path | None,
    scaling: str,
    rounds: int | None,
    seconds: float | None,
    quick: bool,
    json_file: Path | None,
    html_file: Path | None,
    **options: Any,
) -> None:
    """Images per second of training on DATA, beside the loader alone and the network alone.

    Says which of the two bounds training, how long it waits for data, and what remains between. DATA is found as
    `dataloader` finds it. docs/benchmarks.md explains rows and JSON. Ctrl-C writes what was measured until then.
    """
    from alexnet.tools.bench.bench_data import bench_data
    from alexnet.tools.bench.measure import Timing
    from alexnet.tools.bench.output import run
    from alexnet.tools.bench.train import measure_train

    timing = Timing(rounds=rounds or (3 if quick else 5), seconds=seconds or (0.5 if quick else 2.0))
    options |= {"scaling": numbers("--scaling", scaling), "timing": timing}
    folder, why = bench_data(data, quick=quick)
    run(lambda say: measure_train(say, data=folder, why=why, **options), json_file, html_file)
