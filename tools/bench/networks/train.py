"""`alexnet-bench train`: real data through the real trainer, beside the loader alone and the network alone.

All three are measured in the same run, in turn: so the difference between what training makes and what the slower of
the two allows can be told in a sentence.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.model.placement import choose_placement
from alexnet.shards.errors import InputError
from alexnet.shards.processes import usable_cores
from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.measuring.conditions import conditions_before
from alexnet.tools.bench.measuring.figures import refuse_unwritable
from alexnet.tools.bench.measuring.rounds import Timing, measure_rows
from alexnet.tools.bench.measuring.row import Row
from alexnet.tools.bench.measuring.stages_seam import NetStageSettings
from alexnet.tools.bench.networks.model import default_precisions, refuse_layout
from alexnet.tools.bench.networks.model_rows import network_options, title_of
from alexnet.tools.bench.networks.running import finish, status
from alexnet.tools.bench.networks.train_report import print_train, train_report_of
from alexnet.tools.console import interruptible

CPU_BATCH, GPU_BATCH = 64, 128


@dataclass(frozen=True, kw_only=True)
class TrainBench:
    """Settle what is measured. None: what suits the machine. `scaling`: numbers of processes to train in."""

    data: Path
    why: str
    arch: str = "alexnet-2012"
    recipe: str | None = None
    precision: str | None = None
    batch_images: int | None = None
    scaling: tuple[int, ...] = (1,)
    parallel: str = "towers"
    device: str | None = None
    threads: int | None = None
    rounds: int = 5
    seconds: float = 2.0


def run_train(bench: TrainBench, json_file: Path | None, html_file: Path | None = None) -> None:
    """Measure, print, and write what was asked for. After Ctrl-C that is what was measured until then."""
    refuse_unwritable(json_file)
    refuse_unwritable(html_file, "--html")
    with interruptible("interrupted before anything was measured"):
        report = measure(bench)
        print_train(report)
        finish(report, json_file, html_file, [])


def measure(bench: TrainBench) -> dict[str, Any]:
    """Return the report. Raises InputError if network, data and layouts do not go together."""
    device = choose_placement(bench.device, gpus=1, precision="auto").device.type
    threads = bench.threads or usable_cores()
    images = len(SplitReader(bench.data, "train"))
    batch = bench.batch_images or min(CPU_BATCH if device == "cpu" else GPU_BATCH, images)
    if not 1 <= batch <= images:
        raise InputError(f"--batch {batch}: must be at most {images}, the training images in {bench.data}")
    for count in bench.scaling:
        refuse_layout((bench.arch,), count, (bench.parallel,), device, batch)
    settings = NetStageSettings(device=device, threads=threads, data=bench.data.absolute())
    rows = rows_of(bench, bench.precision or default_precisions(device)[-1], batch)
    _refuse_misfit(rows[0], settings)
    conditions = conditions_before(bench.data, "train", batch) | {
        "why": bench.why,
        "device": device,
        "threads": threads,
        "batch_images": batch,
        "rounds": bench.rounds,
        "seconds": bench.seconds,
    }
    timing = Timing(rounds=bench.rounds, seconds=bench.seconds)
    with status() as say:
        measured, complete = measure_rows(rows, settings, timing, say)
    conditions["load"]["after"] = os.getloadavg()[0]
    return train_report_of(measured, conditions, complete=complete)


def rows_of(bench: TrainBench, precision: str, batch: int) -> list[Row]:
    """Return the loader, then the network on made-up batches and on the data, for each number of processes."""
    options = network_options(bench.arch, precision, batch) | {"recipe": bench.recipe}
    rows = [Row(name="loader", title="the stream alone", group="limit", kind="loader", options=options)]
    for count in bench.scaling:
        layout = {"gpus": count, "parallel": bench.parallel if count > 1 else "towers"}
        own = options | layout
        rows += [
            Row(
                name=f"model-{count}",
                title=f"made-up batches: {title_of(own)}",
                group="limit",
                kind="network",
                options=own,
            ),
            Row(
                name=f"train-{count}",
                title=f"real data: {title_of(own)}",
                group="row",
                kind="network",
                options=own | {"real": True},
            ),
        ]
    return rows


def _refuse_misfit(row: Row, settings: NetStageSettings) -> None:
    """Raise InputError before any process is started."""
    from alexnet.tools.bench.networks.net_run import run_settings

    run_settings(row.options, settings)
