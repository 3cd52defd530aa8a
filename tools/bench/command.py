"""The command line of `alexnet-bench`; what it runs is loaded when it runs."""

from pathlib import Path

import click

from alexnet.shards.errors import InputError
from alexnet.tools.command import one_line_errors
from alexnet.tools.data import find_data


@click.group()
@click.version_option(package_name="alexnet", prog_name="alexnet-bench")
def main() -> None:
    """Measure how fast this machine feeds the network, stage by stage.

    \b
    Start here:
      alexnet-bench dataloader /data/ilsvrc-256
    """  # noqa: D301 (click wants the character)


@main.command()
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["train", "val"]), default="train", show_default=True)
@click.option("--batch-images", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Decoder threads.  [default: one a core]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda if there is one]")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Interleaved rounds.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.05), default=2.0, show_default=True, help="Of one row in one round."
)
@click.option("--quick", is_flag=True, help="3 rounds of half a second.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here, too."
)
@one_line_errors
def dataloader(
    data: Path | None,
    split: str,
    batch_images: int,
    threads: int | None,
    device: str | None,
    rounds: int,
    seconds: float,
    quick: bool,
    json_file: Path | None,
) -> None:
    """Images per second of reading, of decoding and of the full pipeline on DATA.

    DATA is found as `alexnet-train` finds it. Rows are measured in turn, round after round, so that a machine whose
    speed drifts treats them alike; the table gives median, minimum and maximum.
    """
    from alexnet.tools.bench.dataloader import DataloaderBench, run_dataloader

    folder, why = find_data(data)
    settings = DataloaderBench(
        data=folder,
        why=why,
        split="train" if split == "train" else "val",
        batch_images=batch_images,
        threads=threads,
        device=device,
        rounds=3 if quick else rounds,
        seconds=0.5 if quick else seconds,
    )
    run_dataloader(settings, json_file)


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--images", type=click.IntRange(min=1), default=2000, show_default=True, help="Taken evenly from SOURCE.")
@click.option("--workers", default="1,2", show_default=True, help="Numbers of processes to measure.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Interleaved rounds.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here, too."
)
@one_line_errors
def prep(source: Path, images: int, workers: str, rounds: int, json_file: Path | None) -> None:
    """Speed of `alexnet-prep shard` on SOURCE against one core's decode + resize + encode.

    Bound and converter are measured in turn on the same images; shards go to a temporary folder.
    """
    from alexnet.tools.bench.prep import run_prep

    try:
        counts = tuple(int(n) for n in workers.split(","))
    except ValueError:
        raise InputError(f"--workers {workers}: must be numbers with commas between, such as 1,2") from None
    if min(counts) < 1:
        raise InputError(f"--workers {workers}: every number must be at least 1")
    run_prep(source, images, counts, rounds, json_file)


@main.command()
@click.option("--entries", type=int, default=14_000_000, show_default=True, help="Of the index.")
@click.option("--classes", type=click.IntRange(min=1), default=21_841, show_default=True, help="Of the index.")
@click.option("--shard-images", type=int, default=5000, show_default=True, help="Images in a worker's shard.")
@click.option("--walk", is_flag=True, help="Read tar headers for all entries, not for a fourteenth: 5 minutes.")
@click.option("--quick", is_flag=True, help="1,400,000 entries in 2,184 classes, shards of 1,000 images: 15 seconds.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here, too."
)
@one_line_errors
def prep_memory(entries: int, classes: int, shard_images: int, walk: bool, quick: bool, json_file: Path | None) -> None:
    """Memory of `alexnet-prep shard`: of the index of millions of entries, and of a worker.

    Sources are generated. A fourteenth of the entries is walked in class tars, header by header, as the converter does
    it; all of them are collected by the same code without tars, unless --walk is given; both are measured in processes
    of their own. A worker converts 500x375 px JPEGs: a smaller shard, a full one, and two full ones in turn. It takes
    a minute and a half and 1 GB in the folder for temporary files.
    """
    from alexnet.tools.bench.prep_memory import MemoryBench, run_prep_memory

    if quick:
        entries, classes, shard_images = 1_400_000, 2_184, 1_000
    bench = MemoryBench(entries=entries, classes=classes, shard_images=shard_images, walk=walk)
    run_prep_memory(bench, json_file)
