"""Make a data set of planes: claim its folder, decode its shards, write index, statistics and, last, the manifest."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tarfile import BLOCKSIZE, RECORDSIZE
from typing import TypeVar

import numpy as np

from alexnet.shards.colour import ColourStatistics, ColourSums, statistics_of
from alexnet.shards.errors import InputError
from alexnet.shards.files import sha256_of
from alexnet.shards.index import INDEX_DTYPE, IndexRows, write_index
from alexnet.shards.manifest import (
    INDEX_NAME,
    MEAN_IMAGE_NAME,
    MEND,
    REJECTED_NAME,
    Manifest,
    ShardRecord,
    read_manifest,
)
from alexnet.shards.processes import Counts, WorkerDiedError, WorkerPool
from alexnet.shards.url import origin_of
from alexnet.shards.writer import remove_partials
from alexnet.tools.convert.bucket import at_once, disk_option
from alexnet.tools.convert.folder import claim, complete, given_back, is_complete, refuse_differences, seal, take_up
from alexnet.tools.convert.shard import ConversionError, finished, notes_file, read_arrays
from alexnet.tools.decode.plan import PlanesSet, PlanesShard
from alexnet.tools.decode.shard import DecodeJob, decode_shard
from alexnet.tools.output_folder import WORK, needed_and_free
from alexnet.tools.progress import Amount

Job = TypeVar("Job")

_DALI_LINE_BYTES = 200  # at most: a key has 69 characters and comes twice
_SUMS_BYTES_PER_PIXEL = 24  # of a shard's notes: three int64


def decode(
    plan: PlanesSet, root: Path, *, workers: int, overwrite: bool, on_progress: Callable[[Amount], None]
) -> Manifest:
    """Make the planes at `root`, or go on with what an earlier call left there.

    The bytes depend on the plan alone. The caller holds the folder (`folder.held`, which reports an OSError). Raises
    InputError if `root` holds anything else or has no disk space, or if a JPEG is damaged, and ConversionError if the
    run stopped and can be continued.
    """
    if overwrite:  # with nothing deleted yet
        _check_disk_space(root, plan, at_once(root, plan.shards, workers), given_back(root))
    _take_up(plan, root, overwrite=overwrite)
    if not is_complete(root):
        remove_partials(root)  # of a call that was killed: a shard is half a gigabyte
        left = [shard for shard in plan.shards if finished(root, shard.split, shard.number) is None]
        _check_disk_space(root, plan, at_once(root, left, workers))
        claim(root, plan.job)
        jobs = (
            DecodeJob(source=plan.source, root=root.absolute(), shard=shard, stored=plan.stored, colour=plan.chosen)
            for shard in left
        )
        earlier = plan.images - sum(len(shard.ids) for shard in left)
        do_jobs(decode_shard, jobs, workers, on_progress, earlier=earlier, images=plan.images)
        _finish(plan, root)
    seal(root)
    return read_manifest(root)


def _take_up(plan: PlanesSet, root: Path, *, overwrite: bool) -> None:
    """Refuse a folder that is, or is to be, of other images or other settings."""
    found = take_up(root, overwrite=overwrite)
    if not found:
        return
    refuse_differences(root, found, settings=plan.job.settings, source=plan.job.source)
    if found.source != plan.job.source:
        what = f"other JPEGs than {origin_of(plan.source) or plan.source} holds now, or of other classes"
    elif found.listed != plan.job.listed:
        what = "another --split"
    else:
        return
    raise InputError(f"{root}: already holds the planes of {what}; give another --out, or --overwrite to make it anew")


def _check_disk_space(root: Path, plan: PlanesSet, left: Sequence[PlanesShard], back: int = 0) -> None:
    """Refuse to start what the disk cannot hold, `back` bytes given back. What a sample takes is known before."""
    blocks = 3 + -(-plan.stored.max_sample_bytes // BLOCKSIZE)  # of a tar: two headers, a label, the planes
    sample = blocks * BLOCKSIZE + _DALI_LINE_BYTES + 2 * INDEX_DTYPE.itemsize
    shard = RECORDSIZE + _SUMS_BYTES_PER_PIXEL * plan.stored.size_px**2
    needed = sum(len(one.ids) * sample + shard for one in left)
    free = shutil.disk_usage(root).free + back
    if needed > free:
        option = disk_option(root)
        raise InputError(f"{option}: {needed_and_free(needed, free)}; make room, or give another {option.split()[0]}")


def do_jobs(
    function: Callable[[Job, Counts], object],
    jobs: Iterable[Job],
    workers: int,
    on_progress: Callable[[Amount], None],
    *,
    earlier: int,
    images: int,
) -> None:
    """Do jobs that count images in worker processes. `earlier`: of all `images`, those of earlier calls.

    Raises ConversionError if a worker died.
    """

    def on_counts(counts: list[int]) -> None:
        on_progress(Amount(event="progress", done=earlier + counts[0], total=images, unit="images"))

    on_counts([0])
    try:
        with WorkerPool(function, workers, on_counts=on_counts) as pool:
            for _ in pool.results(jobs):
                pass
    except WorkerDiedError as error:
        raise ConversionError(f"{error} The same command continues; fewer --workers take less") from None


def _finish(plan: PlanesSet, root: Path) -> None:
    """Write everything beside the shards, the manifest last."""
    if read_manifest(plan.source).digest() != plan.jpegs.digest():
        raise InputError(f"{plan.source}: became another data set meanwhile; begin anew with --overwrite")
    sums, records = ColourSums(plan.stored.size_px), list[ShardRecord]()

    def rows_of_shards() -> Iterator[IndexRows]:
        for shard in plan.shards:
            notes = finished(root, shard.split, shard.number)
            if notes is None:  # somebody deleted it
                raise ConversionError(f"{root}: {shard.name} is gone; give the same command again")
            rows, shard_sums = read_arrays(notes_file(root, shard.name))
            records.append(notes.record)
            sums.merge(shard_sums)
            yield rows

    index = root / WORK / f"{INDEX_NAME}.partial"
    write_index(index, rows_of_shards())
    index.replace(root / INDEX_NAME)
    colour = _write_mean_image(plan, root, sums)
    (root / REJECTED_NAME).write_bytes(b"" if plan.chosen else b"".join(_rejects(plan)))
    complete(root, plan.job, classes=plan.classes, counts=plan.counts, shards=records, colour=colour)


def _write_mean_image(plan: PlanesSet, root: Path, sums: ColourSums) -> ColourStatistics:
    """Write the mean image and return the colours: those of the JPEGs, or of the chosen ones' decoded pixels."""
    if plan.chosen:
        np.save(root / MEAN_IMAGE_NAME, sums.mean_image())
        return statistics_of(sums)
    (root / MEAN_IMAGE_NAME).write_bytes(_named(plan, MEAN_IMAGE_NAME).read_bytes())
    return plan.jpegs.colour


def _rejects(plan: PlanesSet) -> Iterator[bytes]:
    """Yield the lines of images that were rejected from the splits that there are."""
    for line in _named(plan, REJECTED_NAME).read_bytes().splitlines(keepends=True):
        if plan.counts[json.loads(line)["split"]].input:
            yield line


def _named(plan: PlanesSet, name: str) -> Path:
    """Return a file of the JPEGs' data set, if it is the one that the manifest names. Raises InputError if not."""
    path = plan.source / name
    if sha256_of(path) not in {record.sha256 for record in plan.jpegs.files if record.file == name}:
        raise InputError(f"{path}: is not the one that the manifest names; {MEND}")
    return path
