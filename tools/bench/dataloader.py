"""`alexnet-bench dataloader`: measure the stages in interleaved rounds and say which one bounds the pipeline."""

import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from alexnet import __version__
from alexnet.model.placement import choose_placement
from alexnet.pipeline import ImageStream
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Split
from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.stages import Stage, decode, full, read

SCHEMA = 1
_REPEATED_BELOW_BATCHES = 8
_WARM_UP_BATCHES = 4


@dataclass(frozen=True, kw_only=True)
class DataloaderBench:
    """Settle what is measured: `rounds` rounds in which each row runs for `seconds`."""

    data: Path
    why: str
    split: Split
    batch_images: int
    threads: int | None
    device: str | None
    rounds: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Hold a figure over the rounds."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: list[float]) -> "Rate":
        """Summarise one value a round."""
        return cls(median=statistics.median(values), min=min(values), max=max(values))


def run_dataloader(settings: DataloaderBench, json_file: Path | None) -> None:
    """Measure, print the table and, if asked, write the JSON."""
    if json_file is not None and not os.access(json_file.absolute().parent, os.W_OK):
        raise InputError(f"--json {json_file}: cannot be written; give a file in a folder that exists")
    report = measure(settings)
    _print(report, settings)
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=1) + "\n")


def measure(settings: DataloaderBench) -> dict[str, Any]:
    """Return the report: schema, conditions, rows, verdict."""
    reader = SplitReader(settings.data, settings.split)
    if not len(reader):
        raise InputError(f"{settings.data}: its {settings.split} split has no images; give --split with the other")
    device = choose_placement(settings.device, gpus=1, precision="auto").device.type
    threads = settings.threads or len(os.sched_getaffinity(0))
    batch_images = min(settings.batch_images, len(reader))
    stream = ImageStream(
        settings.data / settings.split,
        batch_images=batch_images,
        rank=0,
        ranks=1,
        device=device,
        threads=threads,
        channels_last=True,
    )
    stages = {
        "read only": read(reader, batch_images),
        "decode only": decode(reader, batch_images, threads, 0 if device == "cuda" else None),
        "full pipeline": full(stream),
    }
    rates = _measure_in_turn(stages, settings)
    image_bytes = reader.jpeg_bytes() / len(reader)
    rows = [
        {"name": name, "images_per_s": asdict(rate), "mb_per_s": rate.median * image_bytes / 1e6}
        for name, rate in rates.items()
    ]
    return {
        "schema": SCHEMA,
        "conditions": _conditions(settings, reader, batch_images, threads, device),
        "rows": rows,
        "verdict": _verdict(rates, device),
    }


def _measure_in_turn(stages: dict[str, Stage], settings: DataloaderBench) -> dict[str, Rate]:
    values: dict[str, list[float]] = {name: [] for name in stages}
    for stage in stages.values():
        for _ in range(_WARM_UP_BATCHES):
            next(stage)
    for _ in range(settings.rounds):
        for name, stage in stages.items():
            next(stage)  # batches that were ready before the clock started do not count
            images, started = 0, time.perf_counter()
            while (seconds := time.perf_counter() - started) < settings.seconds:
                images += next(stage)
            values[name].append(images / seconds)
    for stage in stages.values():
        stage.close()  # type: ignore[attr-defined]
    return {name: Rate.of(v) for name, v in values.items()}


def _verdict(rates: dict[str, Rate], device: str) -> str:
    share = rates["full pipeline"].median / rates["decode only"].median
    where = "the GPU's decoder" if device == "cuda" else "the CPU's decoder"
    if rates["read only"].median < 2 * rates["decode only"].median:
        return "Storage bounds this pipeline: reading alone is not twice as fast as decoding."
    return (
        f"Decoding bounds this pipeline: the full pipeline runs at {share:.0%} of what {where} does with whole images "
        "(on a CPU it decodes only the window)."
    )


def _conditions(
    settings: DataloaderBench, reader: SplitReader, batch_images: int, threads: int, device: str
) -> dict[str, Any]:
    return {
        "data": str(settings.data),
        "manifest": reader.manifest.digest(),
        "split": settings.split,
        "images": len(reader),
        "bytes_per_image": round(reader.jpeg_bytes() / len(reader)),
        "repeated": len(reader) < _REPEATED_BELOW_BATCHES * settings.batch_images,
        "batch_images": batch_images,
        "device": device,
        "threads": threads,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "rounds": settings.rounds,
        "seconds": settings.seconds,
        "versions": {
            "alexnet": __version__,
            "dali": version("nvidia-dali-cuda130"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _print(report: dict[str, Any], settings: DataloaderBench) -> None:
    c = report["conditions"]
    click.echo(f"data: {settings.data} ({settings.why}), {c['split']}, {c['images']:,} images")
    click.echo(f"{c['device']}, {c['threads']} decoder threads on {c['cores']} cores, batches of {c['batch_images']}")
    table = Table("stage", "images/s", "min", "max", "MB/s")
    for row in report["rows"]:
        rate = row["images_per_s"]
        figures = [f"{rate[k]:,.0f}" for k in ("median", "min", "max")]
        table.add_row(row["name"] + (" (repeated)" if c["repeated"] else ""), *figures, f"{row['mb_per_s']:,.1f}")
    Console().print(table)
    if c["repeated"]:
        click.echo(
            "repeated: the data is smaller than eight batches and lies in the CPU's cache; do not quote these rows"
        )
    click.echo(report["verdict"])
