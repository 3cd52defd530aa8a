"""What the index of a source and the plan of its shards take, measured in a process where nothing else counts.

The process loads what `alexnet-prep shard` loads, and does what it does before the first image: list the source, keep
the index, hash it, plan the shards, look up the members of one.
"""

import importlib
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Literal

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import ClassRecord
from alexnet.shards.processes import starting_workers
from alexnet.tools.bench.measuring.process_memory import peak_bytes
from alexnet.tools.convert.build import job_of
from alexnet.tools.convert.listing import Listing, ListingBuilder, Source
from alexnet.tools.convert.plan import ConvertSettings, plan_shards
from alexnet.tools.convert.sources import open_source
from alexnet.tools.convert.sources.cache import load_index, save_index

How = Literal["walked", "made up", "kept"]
"""Headers of tars were read; rows went straight to the listing; the index that an earlier process kept was loaded."""

_KEY = "made up"


@dataclass(frozen=True, kw_only=True)
class IndexTask:
    """Say what to index: `root` has class tars unless entries are made up. `cache`: where the index is kept."""

    how: How
    root: Path
    cache: Path
    classes: int
    entries: int


@dataclass(frozen=True, kw_only=True)
class IndexMemory:
    """Hold what an index took. `kept_bytes`: its columns. The peaks are of the whole process: Python is in them.

    `start_peak_bytes`: with everything loaded and nothing listed. `seconds`: of CPU.
    """

    how: How
    entries: int
    classes: int
    shards: int
    kept_bytes: int
    start_peak_bytes: int
    index_peak_bytes: int
    plan_peak_bytes: int
    seconds: float

    @property
    def kept_bytes_an_entry(self) -> float:
        """Return the bytes that the columns have for an entry."""
        return self.kept_bytes / self.entries


def measure_apart(task: IndexTask) -> IndexMemory:
    """Measure in a process of its own. Raises InputError if it dies."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            with starting_workers():
                measured = pool.submit(measure, task)
            return measured.result()
        except BrokenProcessPool:
            raise InputError(f"--entries {task.entries}: the process died; has the machine memory for them?") from None
        except KeyboardInterrupt:
            for process in active_children():  # or the pool would wait until it is done
                process.kill()
            raise


def measure(task: IndexTask) -> IndexMemory:
    """Measure in this process, whose peak must not have been raised by anything else."""
    importlib.import_module("alexnet.tools.convert.run")
    start, started = peak_bytes(), time.process_time()
    source = _source(task)
    index = peak_bytes()
    job_of(source, ConvertSettings())
    plans = plan_shards(source, ConvertSettings())
    plans[-1].members(source)
    listings = [source.listing(split) for split in source.members]
    return IndexMemory(
        how=task.how,
        entries=sum(len(listing) for listing in listings),
        classes=len(source.classes),
        shards=len(plans),
        kept_bytes=sum(array.nbytes for listing in listings for array in listing.arrays().values()),
        start_peak_bytes=start,
        index_peak_bytes=index,
        plan_peak_bytes=peak_bytes(),
        seconds=time.process_time() - started,
    )


def _source(task: IndexTask) -> Source:
    if task.how == "walked":
        return open_source(task.root, task.cache)
    if task.how == "made up":
        source = make_up(task.root, task.classes, task.entries)
        save_index(task.cache, _KEY, source)
        return source
    kept = load_index(task.cache, _KEY, task.root) or open_source(task.root, task.cache)
    if not task.cache.is_file():
        raise InputError(f"{task.cache.parent}: the index could not be kept there; make room")
    return kept


def make_up(root: Path, classes: int, entries: int) -> Source:
    """Return a source of class tars that are not there, collected as if they had been walked."""
    builder = ListingBuilder()
    for label in range(classes):
        wnid = f"n{label:08d}"
        first, last = label * entries // classes, (label + 1) * entries // classes
        found = [(f"{wnid}_{10_000 + i}.JPEG".encode(), 512 + (i << 17), 110_000) for i in range(last - first)]
        builder.add(f"{wnid}.tar", label, found)
    return Source(
        root=root,
        kind="class-tars",
        classes=tuple(ClassRecord(wnid=f"n{label:08d}", words=f"n{label:08d}") for label in range(classes)),
        members={"train": builder.finish(), "val": Listing.of(())},
    )
