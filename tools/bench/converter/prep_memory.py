"""`alexnet-bench prep-memory`: show that the converter's memory is flat in the number of images and within bounds.

Two things could grow: the index of a source, which the command holds, and the workers. Both are measured on generated
sources, as nobody has 14 million images to spare. What is real and what is made up is said beside each figure.
"""

import json
import platform
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import PIL
from rich.console import Console
from rich.table import Table

from alexnet.shards.errors import InputError
from alexnet.shards.processes import usable_cores
from alexnet.tools.bench.converter.generated import HEIGHT_PX, WIDTH_PX, write_entries, write_pictures
from alexnet.tools.bench.converter.index_memory import IndexMemory, IndexTask, measure_apart
from alexnet.tools.bench.measuring.figures import refuse_unwritable
from alexnet.tools.bench.measuring.process_memory import WorkerPeak
from alexnet.tools.console import interruptible
from alexnet.tools.convert.build import BuildOptions, build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source

SCHEMA = 1
INDEX_GOAL_BYTES = 1_000_000_000
WORKER_GOAL_BYTES = 300_000_000
_FEWER = 14  # the index is also measured with so many times fewer entries
_SMALLER = 5  # and a worker with so many times smaller shards


@dataclass(frozen=True, kw_only=True)
class MemoryBench:
    """Settle what is measured: an index of `entries` in `classes`, and shards of `shard_images`.

    `walk`: walk tars for all entries, and not for a fourteenth of them.
    """

    entries: int = 14_000_000
    classes: int = 21_841
    shard_images: int = 5000
    walk: bool = False

    def __post_init__(self) -> None:
        if self.classes > self.entries // _FEWER:
            least = self.classes * _FEWER
            raise InputError(
                f"--entries {self.entries}: must be at least {least:,}, {_FEWER} a class; or fewer --classes"
            )
        if self.shard_images < _SMALLER:
            raise InputError(f"--shard-images {self.shard_images}: must be at least {_SMALLER}")


@dataclass(frozen=True, kw_only=True)
class WorkerMemory:
    """Hold what one worker took at most while it converted `shards` shards, one after the other."""

    shard_images: int
    shards: int
    jpeg_bytes: float
    peak_bytes: int


def run_prep_memory(bench: MemoryBench, json_file: Path | None) -> None:
    """Measure, print two tables and, if asked, write the JSON."""
    refuse_unwritable(json_file)
    small = bench.shard_images // _SMALLER
    with interruptible("interrupted; nothing was written"):
        with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as folder:
            index = measure_index(bench, Path(folder))
        worker = [measure_worker(*size) for size in ((small, 1), (bench.shard_images, 1), (bench.shard_images, 2))]
    _print_index(index)
    _print_worker(worker)
    if json_file is not None:
        report = {
            "schema": SCHEMA,
            "conditions": _conditions(),
            "index": [{**asdict(row), "kept_bytes_an_entry": row.kept_bytes_an_entry} for row in index],
            "worker": [asdict(row) for row in worker],
            "goals": {"index_bytes": INDEX_GOAL_BYTES, "worker_bytes": WORKER_GOAL_BYTES},
        }
        json_file.write_text(json.dumps(report, indent=1) + "\n")


def measure_index(bench: MemoryBench, folder: Path) -> list[IndexMemory]:
    """Measure an index of a fourteenth of the entries, one of all, and one of all that was kept by the latter."""
    fewer = bench.entries // _FEWER
    rows = [_walked(folder / "fewer", bench.classes, fewer)]
    root, cache = folder / "all", folder / "all.index"
    if bench.walk:
        rows.append(_walked(root, bench.classes, bench.entries))
    else:
        task = IndexTask(how="made up", root=root, cache=cache, classes=bench.classes, entries=bench.entries)
        rows.append(measure_apart(task))
    task = IndexTask(how="kept", root=root, cache=cache, classes=bench.classes, entries=bench.entries)
    return [*rows, measure_apart(task)]


def _walked(root: Path, classes: int, entries: int) -> IndexMemory:
    made = write_entries(root, classes, entries)
    cache = root.parent / f"{root.name}.index"
    return measure_apart(IndexTask(how="walked", root=root, cache=cache, classes=classes, entries=made))


def measure_worker(shard_images: int, shards: int) -> WorkerMemory:
    """Convert generated pictures with one worker and watch its memory."""
    with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as folder:
        root, peak = Path(folder) / "pictures", WorkerPeak()
        write_pictures(root, shard_images * shards)
        settings = ConvertSettings(shard_images=shard_images)
        manifest = build(open_source(root), Path(folder) / "set", settings, BuildOptions(), lambda _: peak.look())
    images = sum(shard.images for shard in manifest.shards)
    return WorkerMemory(
        shard_images=max(shard.images for shard in manifest.shards),
        shards=len(manifest.shards),
        jpeg_bytes=sum(shard.bytes for shard in manifest.shards) / images,
        peak_bytes=peak.bytes,
    )


def _conditions() -> dict[str, Any]:
    return {
        "cores": usable_cores(),
        "pillow": PIL.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _print_index(rows: list[IndexMemory]) -> None:
    table = Table("entries", "classes", "headers", "bytes an entry", "index, MB", "with plan, MB", "CPU s")
    for row in rows:
        peaks = (f"{peak / 1e6:,.0f}" for peak in (row.index_peak_bytes, row.plan_peak_bytes))
        figures = (f"{row.kept_bytes_an_entry:.1f}", *peaks, f"{row.seconds:.1f}")
        table.add_row(f"{row.entries:,}", f"{row.classes:,}", row.how, *figures)
    Console().print(table)
    click.echo(
        f"peaks of a process each, {rows[0].start_peak_bytes / 1e6:,.0f} MB of it before anything is listed. Headers "
        "walked: read in tars; made up: collected without tars; kept: the index of the line above, loaded again"
    )
    few, many = rows[0], rows[1]
    growth = (many.plan_peak_bytes - few.plan_peak_bytes) / (many.entries - few.entries)
    worst = max(row.plan_peak_bytes for row in rows)
    click.echo(f"index and plan grow by {growth:.0f} bytes an entry; {_verdict(worst, INDEX_GOAL_BYTES)}")


def _print_worker(rows: list[WorkerMemory]) -> None:
    table = Table("one worker, images a shard", "shards", "bytes an image stored", "peak, MB")
    for row in rows:
        figures = (f"{row.shard_images:,}", f"{row.shards}", f"{row.jpeg_bytes:,.0f}", f"{row.peak_bytes / 1e6:,.0f}")
        table.add_row(*figures)
    Console().print(table)
    worst = max(row.peak_bytes for row in rows)
    click.echo(f"generated JPEGs of {WIDTH_PX}x{HEIGHT_PX} px, converted; {_verdict(worst, WORKER_GOAL_BYTES)}")


def _verdict(worst_bytes: int, goal_bytes: int) -> str:
    said = "within" if worst_bytes <= goal_bytes else "MORE THAN"
    return f"at most {worst_bytes / 1e6:,.0f} MB, {said} the {goal_bytes / 1e6:,.0f} MB allowed"
