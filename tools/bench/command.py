"""The command line of `alexnet-bench`; what it runs is loaded when it runs."""

from pathlib import Path
from typing import Any

import click

from alexnet.tools.bench.names import SECONDS, Finite, numbers
from alexnet.tools.bench.net_commands import model, train
from alexnet.tools.console import Programs, one_line_errors

FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Programs)
@click.version_option(package_name="alexnet", prog_name="alexnet-bench")
def main() -> None:
    """Measure how fast this machine feeds and trains the network, what bounds it, and how far it is from that.

    \b
    Start here:
      alexnet-bench dataloader /data/ilsvrc-256
      alexnet-bench model
    """  # noqa: D301 (click wants the character)


main.add_command(model)
main.add_command(train)


@main.command()
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["train", "val"]), default="train", show_default=True)
@click.option("--batch-images", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Of each loader.  [default: one a core]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda if there is one]")
@click.option("--rounds", type=click.IntRange(min=1), help="Interleaved rounds.  [default: 5; 3 with --quick]")
@click.option("--seconds", type=SECONDS, help="Of one row in one round.  [default: 2; 0.5 with --quick]")
@click.option("--quick", is_flag=True, help="The main rows only, under a minute without --compare.")
@click.option("--rows", default="", help="Only these, with commas between; a wrong name lists them all.")
@click.option(
    "--compare", default="", help="Other loaders, of webdataset,torch,dali,ffcv,spdl,nvimagecodec,torchvision."
)
@click.option("--tune", "tune_seconds", type=Finite(min=0), default=0.0, help="Seconds to search options for.")
@click.option("--check", is_flag=True, help="Exit code 1 if a guarded ratio fails.")
@click.option("--json", "json_file", type=FILE, help="Write the figures here, too.")
@click.option("--html", "html_file", type=FILE, help="Write a page of charts.")
@one_line_errors
def dataloader(
    data: Path | None,
    rounds: int | None,
    seconds: float | None,
    quick: bool,
    rows: str,
    check: bool,
    json_file: Path | None,
    html_file: Path | None,
    **options: Any,
) -> None:
    """Images per second of the data path on DATA, beside its limits and beside other loaders.

    DATA is found as `alexnet-train` finds it. Each row runs in a process of its own, in turn with the others, round
    after round, so that a machine whose speed drifts treats them alike; the table gives median, minimum and maximum by
    wall time, and the rate by CPU time, which other users of the machine do not change. docs/benchmarks.md explains
    rows and JSON. Ctrl-C writes what was measured until then.
    """
    from alexnet.tools.bench.bench_data import bench_data
    from alexnet.tools.bench.dataloader import measure_dataloader
    from alexnet.tools.bench.measure import Timing
    from alexnet.tools.bench.output import run

    folder, why = bench_data(data, quick=quick)
    timing = Timing(rounds=rounds or (3 if quick else 5), seconds=seconds or (0.5 if quick else 2.0))
    names = tuple(name.strip() for name in rows.split(",") if name.strip())
    options |= {"data": folder, "why": why, "timing": timing, "quick": quick, "rows": names}
    run(lambda say: measure_dataloader(say, **options), json_file, html_file, check=check)


@main.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--max-slowdown", type=Finite(0, 0.99), default=0.05, show_default=True, help="That is let pass.")
@one_line_errors
def diff(a: Path, b: Path, max_slowdown: float) -> None:
    """Compare two files that --json of one command wrote; exit code 1 if B is really slower.

    A row is slower if its median fell by more than the slowdown that is let pass and the 5% that equal runs differ by,
    and its best round does not reach the other's worst. Where others used the machine, rates are compared by CPU time.
    """
    from alexnet.tools.bench.diff import run_diff

    run_diff(a, b, max_slowdown)


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--images", type=click.IntRange(min=1), default=2000, show_default=True, help="Taken evenly from SOURCE.")
@click.option("--workers", default="1,2", show_default=True, help="Numbers of processes to measure.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Interleaved rounds.")
@click.option("--seconds", type=SECONDS, default=2.0, show_default=True, help="Of one row in one round, at least.")
@click.option("--check", is_flag=True, help="Exit code 1 if a guarded ratio fails.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here, too."
)
@one_line_errors
def prep(
    source: Path, images: int, workers: str, rounds: int, seconds: float, check: bool, json_file: Path | None
) -> None:
    """Speed of `alexnet-prep shard` on SOURCE against one core's decode + resize + encode.

    Bound and converter are measured in turn on the same images; shards go to a temporary folder.
    """
    from alexnet.tools.bench.converter import measure_prep
    from alexnet.tools.bench.measure import Timing
    from alexnet.tools.bench.output import run

    timing, counts = Timing(rounds=rounds, seconds=seconds), numbers("--workers", workers)
    run(
        lambda say: measure_prep(say, source=source, images=images, workers=counts, timing=timing),
        json_file,
        check=check,
    )
