"""`alexnet-bench dataloader`: what the data path makes on this machine, beside its limits and beside other loaders.

A number without its bound and its conditions is worth little, so every row has both. Settings come in, a report goes
out; the rows are in `dataloader_rows`, the turns in `rounds`, the arithmetic in `dataloader_report`.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from alexnet.model.placement import choose_placement
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Split
from alexnet.shards.processes import usable_cores
from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.loader.page import dataloader_page
from alexnet.tools.bench.loader.report import report_of
from alexnet.tools.bench.loader.rows import choose_rows, peer_rows, rows_of
from alexnet.tools.bench.loader.table import print_dataloader
from alexnet.tools.bench.loader.tune import tune
from alexnet.tools.bench.measuring.conditions import conditions_before
from alexnet.tools.bench.measuring.figures import refuse_unwritable, write_figures, write_json
from alexnet.tools.bench.measuring.rounds import Timing, measure_rows
from alexnet.tools.bench.measuring.stages_seam import StageSettings
from alexnet.tools.console import StoppedError, interruptible
from alexnet.tools.start import INTERRUPTED


@dataclass(frozen=True, kw_only=True)
class DataloaderBench:
    """Settle what is measured: `rounds` rounds in which each row runs for about `seconds`.

    `rows`: only these; empty for those of the mode. `peers`: loaders to compare with. `need`: images/s that the trainer
    takes. `tune_seconds`: 0, or how long options are searched for. `check`: end with 1 if a guarded ratio fails.
    """

    data: Path
    why: str
    split: Split
    batch_images: int
    threads: int | None
    device: str | None
    rounds: int
    seconds: float
    quick: bool = False
    rows: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    need: float | None = None
    tune_seconds: float = 0.0
    check: bool = False


def run_dataloader(settings: DataloaderBench, json_file: Path | None, html_file: Path | None = None) -> None:
    """Measure, print, and write what was asked for. After Ctrl-C that is what was measured until then."""
    refuse_unwritable(json_file)
    refuse_unwritable(html_file, "--html")
    with interruptible("interrupted before anything was measured"):
        _run(settings, json_file, html_file)


def _run(settings: DataloaderBench, json_file: Path | None, html_file: Path | None) -> None:
    report = measure(settings)
    print_dataloader(report)
    if settings.tune_seconds and report["complete"]:
        stage, device = _stage_settings(settings), report["conditions"]["device"]
        report["tune"], report["complete"] = tune(stage, device, settings.tune_seconds)
        click.echo("\n".join(report["tune"]))
    write_json(json_file, report)
    write_figures(html_file, dataloader_page(report) if html_file else "")
    if not report["complete"]:
        raise SystemExit(INTERRUPTED)
    failed = [r["about"] for r in report["ratios"] if not r["holds"]]
    if settings.check and failed:
        raise StoppedError(f"guarded ratios that fail: {'; '.join(failed)}")


def measure(settings: DataloaderBench) -> dict[str, Any]:
    """Return the report."""
    stage = _stage_settings(settings)
    device = choose_placement(settings.device, gpus=1, precision="auto").device.type
    rows = [*rows_of(stage.threads, device), *peer_rows(settings.peers)]
    chosen = choose_rows(rows, quick=settings.quick, names=settings.rows)
    conditions = conditions_before(settings.data, settings.split, settings.batch_images) | {
        "why": settings.why,
        "batch_images": stage.batch_images,
        "threads": stage.threads,
        "device": device,
        "rounds": settings.rounds,
        "seconds": settings.seconds,
    }
    timing = Timing(rounds=settings.rounds, seconds=settings.seconds)
    with Console(stderr=True).status("") as status:
        measured, complete = measure_rows(chosen, stage, timing, lambda text: status.update(text))
    conditions["load"]["after"] = os.getloadavg()[0]
    if not any(one.rounds for one in measured):
        whys = "; ".join(sorted({one.why for one in measured if one.why})) or "the run was interrupted"
        click.echo(f"nothing was measured: {whys}", err=True)
    return report_of(measured, conditions, complete=complete, need=settings.need)


def _stage_settings(settings: DataloaderBench) -> StageSettings:
    reader = SplitReader(settings.data, settings.split)
    if not len(reader):
        raise InputError(f"{settings.data}: its {settings.split} split has no images; give --split with the other")
    return StageSettings(
        data=settings.data.absolute(),
        split=settings.split,
        batch_images=min(settings.batch_images, len(reader)),
        threads=settings.threads or usable_cores(),
    )
