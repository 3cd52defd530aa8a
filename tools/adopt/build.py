"""Make a data set of tars where they lie: claim their folder, look into each, write index, statistics, manifest."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from alexnet.shards import files
from alexnet.shards.colour import ColourSums, statistics_of
from alexnet.shards.errors import InputError
from alexnet.shards.files import CHECKSUMS_NAME
from alexnet.shards.index import IndexRows, write_index
from alexnet.shards.manifest import (
    FILES,
    INDEX_NAME,
    MEAN_IMAGE_NAME,
    REJECTED_NAME,
    SPLITS,
    Manifest,
    ShardRecord,
    SplitCounts,
    dali_index_file,
    read_manifest,
)
from alexnet.shards.writer import entries_below, is_listable
from alexnet.tools.adopt.plan import AdoptedSet
from alexnet.tools.adopt.shard import AdoptJob, adopt_tar
from alexnet.tools.convert.earlier import Job
from alexnet.tools.convert.folder import claim, complete, seal
from alexnet.tools.convert.shard import ConversionError, finished, notes_file, read_arrays, read_notes
from alexnet.tools.convert.source_files import check_archives
from alexnet.tools.decode.build import do_jobs
from alexnet.tools.output_folder import JOB, WORK
from alexnet.tools.progress import Amount


def adopt(plan: AdoptedSet, *, workers: int, on_progress: Callable[[Amount], None]) -> Manifest:
    """Make a data set of the tars, or go on with what an earlier call left there.

    The bytes depend on the tars alone, of which none is changed. The caller holds the folder (`folder.held`). Raises
    InputError for what cannot be adopted, and ConversionError if the run stopped and can be continued.
    """
    root = plan.source.root
    _begin(root, plan.job)
    left = [tar for tar in plan.tars if finished(root, tar.split, tar.number) is None]
    earlier = plan.images - sum(len(tar.labels) for tar in left)
    jobs = (AdoptJob(root=root, tar=tar, stored=plan.stored) for tar in left)
    do_jobs(adopt_tar, jobs, workers, on_progress, earlier=earlier, images=plan.images)
    _finish(plan)
    seal(root)
    return read_manifest(root)


def refuse_foreign(root: Path) -> None:
    """Raise InputError for another job's folder, or one of what would have to be replaced or cannot be listed."""
    for name in entries_below(root):
        if not (name.startswith(WORK) or ((root / name).is_file() and is_listable(name))):
            raise InputError(
                f"{root}: SHA256SUMS cannot list {name!r} there: only files that can be read, in folders that are no "
                "links but train and val, with names of one line without backslashes; move it away"
            )
    if (root / JOB).exists():
        if not _begun(root).settings.get("adopted"):
            raise InputError(f"{root}: holds a conversion that is not finished; finish it by its own command")
        return
    for name in (*FILES, CHECKSUMS_NAME):
        if (root / name).exists():
            raise InputError(f"{root / name}: is there, and a data set has a file of that name; move it away")


def _begun(root: Path) -> Job:
    return files.read_json(root / JOB, Job, mend=f"delete {root / WORK}")


def _begin(root: Path, job: Job) -> None:
    """Claim the folder; forget what was learnt from tars that are others now."""
    if (root / JOB).exists() and _begun(root) != job:
        for file in (root / WORK).glob("*.notes"):
            if (notes := read_notes(file)) and notes.indexed:
                (root / dali_index_file(notes.record.file)).unlink(missing_ok=True)
            file.unlink()
    claim(root, job, folders=())


def _finish(plan: AdoptedSet) -> None:
    """Write everything beside the tars, the manifest last."""
    root, sums = plan.source.root, ColourSums(plan.stored.size_px)
    records, qualities = list[ShardRecord](), list[int]()

    def rows_of_tars() -> Iterator[IndexRows]:
        for tar in plan.tars:
            notes = finished(root, tar.split, tar.number)
            if notes is None:  # somebody changed it
                raise ConversionError(f"{root / tar.file}: was changed meanwhile; give the same command again")
            rows, of_tar = read_arrays(notes_file(root, tar.name))
            records.append(notes.record)
            qualities.append(notes.quality)
            if tar.split == "train":
                sums.merge(of_tar)
            yield rows

    index = root / WORK / f"{INDEX_NAME}.partial"
    write_index(index, rows_of_tars())
    check_archives(root, (tar.file for tar in plan.tars), plan.source.since_ns)
    index.replace(root / INDEX_NAME)
    np.save(root / MEAN_IMAGE_NAME, sums.mean_image())
    (root / REJECTED_NAME).write_bytes(b"")
    images = {split: len(plan.source.members[split]) for split in SPLITS}
    settings = {**asdict(plan.stored), "quality": min(qualities)}
    del settings["encoding"]  # which no manifest of JPEGs has
    complete(
        root,
        replace(plan.job, settings=settings),
        classes=plan.source.classes,
        counts={split: SplitCounts(input=n, written=n, rejected=0) for split, n in images.items()},
        shards=records,
        colour=statistics_of(sums),
    )
