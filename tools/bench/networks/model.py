"""`alexnet-bench model`: what networks make on this machine, beside its rooflines and beside the naive version.

Settings come in, a report goes out; the rows are in `model_rows`, the turns in `rounds`, the arithmetic in
`model_report`.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.model.networks.settings import NetSettings, architecture_of
from alexnet.model.placement import choose_placement, cpu_has_bf16
from alexnet.shards.errors import InputError
from alexnet.shards.processes import usable_cores
from alexnet.tools.bench.guards import missed
from alexnet.tools.bench.measuring.conditions import machine_before
from alexnet.tools.bench.measuring.figures import refuse_unwritable
from alexnet.tools.bench.measuring.rounds import Timing, measure_rows
from alexnet.tools.bench.measuring.stages_seam import NetStageSettings
from alexnet.tools.bench.networks.model_report import model_report_of
from alexnet.tools.bench.networks.model_rows import captured_rows, layer_rows, limit_rows, naive_rows, network_rows
from alexnet.tools.bench.networks.model_table import print_model
from alexnet.tools.bench.networks.running import finish, status
from alexnet.tools.console import interruptible

CPU_BATCHES, GPU_BATCHES = (64,), (128, 512, 1024)


@dataclass(frozen=True, kw_only=True)
class ModelBench:
    """Settle what is measured. Empty tuples and None: what suits the machine.

    `gpus`, `parallel`: layouts, each number with each way to divide. `naive`: beside the naive version. `layers`: also
    each layer by itself. `check`: end with 1 if a guarded ratio fails.
    """

    archs: tuple[str, ...]
    precisions: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    gpus: tuple[int, ...] = ()
    parallel: tuple[str, ...] = ("towers",)
    device: str | None = None
    threads: int | None = None
    rounds: int = 5
    seconds: float = 2.0
    naive: bool = True
    layers: bool | None = None
    check: bool = False


def run_model(bench: ModelBench, json_file: Path | None, html_file: Path | None = None) -> None:
    """Measure, print, and write what was asked for. After Ctrl-C that is what was measured until then."""
    refuse_unwritable(json_file)
    refuse_unwritable(html_file, "--html")
    with interruptible("interrupted before anything was measured"):
        report = measure(bench)
        print_model(report)
        finish(report, json_file, html_file, missed(report["ratios"]) if bench.check else [])


def measure(bench: ModelBench) -> dict[str, Any]:
    """Return the report. Raises InputError for layouts that the network or the machine cannot have."""
    device = choose_placement(bench.device, gpus=1, precision="auto").device.type
    threads = bench.threads or usable_cores()
    precisions = bench.precisions or default_precisions(device)
    batches = bench.batches or (CPU_BATCHES if device == "cpu" else GPU_BATCHES)
    gpus = bench.gpus or default_gpus(device, threads, bench)
    for count in gpus:
        refuse_layout(bench.archs, count, bench.parallel, device, min(batches))
    networks = network_rows(bench.archs, precisions, batches, gpus, bench.parallel)
    if device == "cuda":
        networks += captured_rows(networks)
    rows = [*limit_rows(precisions), *networks, *(naive_rows(bench.archs, batches) if bench.naive else [])]
    if bench.layers if bench.layers is not None else device == "cuda":
        plain = [row for row in networks if not row.options.get("capture")]
        rows += layer_rows(row for row in plain if row.options["precision"] == precisions[-1])
    conditions = machine_before() | {
        "device": device,
        "cpu_has_bf16": cpu_has_bf16(),
        "threads": threads,
        "rounds": bench.rounds,
        "seconds": bench.seconds,
    }
    timing = Timing(rounds=bench.rounds, seconds=bench.seconds)
    with status() as say:
        measured, complete = measure_rows(rows, NetStageSettings(device=device, threads=threads), timing, say)
    conditions["load"]["after"] = os.getloadavg()[0]
    return model_report_of(measured, conditions, complete=complete)


def default_precisions(device: str) -> tuple[str, ...]:
    """Return what is worth measuring: on a CPU that does not multiply bf16, only float32 is."""
    return ("fp32", "bf16") if device == "cuda" or cpu_has_bf16() else ("fp32",)


def default_gpus(device: str, threads: int, bench: ModelBench) -> tuple[int, ...]:
    """Return how many processes: one, and on a CPU with two cores or more also two, if every network has two towers."""
    towers = {architecture_of(NetSettings(arch=arch)).towers for arch in bench.archs}
    return (1, 2) if device == "cpu" and threads > 1 and towers == {2} else (1,)


def refuse_layout(archs: tuple[str, ...], gpus: int, parallel: tuple[str, ...], device: str, batch: int) -> None:
    """Raise InputError for what cannot be: before anything is measured."""
    for arch in archs:
        for how in parallel:
            towers = architecture_of(NetSettings(arch=arch)).towers
            choose_placement(device, gpus, "auto", parallel=how, towers=towers)  # type: ignore[arg-type]
    if batch < gpus:
        raise InputError(f"--batch {batch}: must be at least {gpus}, one image for each process")
