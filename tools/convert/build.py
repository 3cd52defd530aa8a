"""Make a data set: begin it in its folder, convert its shards, write index, statistics and, last, the manifest."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from alexnet.shards.colour import ColourSums, statistics_of
from alexnet.shards.errors import InputError
from alexnet.shards.index import IndexRows, write_index
from alexnet.shards.manifest import (
    INDEX_NAME,
    MEAN_IMAGE_NAME,
    REJECTED_NAME,
    SPLITS,
    Manifest,
    Reject,
    ShardRecord,
    SplitCounts,
    read_manifest,
)
from alexnet.tools.convert.bucket import at_once, bucket_of, disk_option
from alexnet.tools.convert.earlier import Job, changed_rejects, in_words, job_of
from alexnet.tools.convert.engines import convert_here, convert_on_ray
from alexnet.tools.convert.folder import begin, complete, given_back, is_begun, seal
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.plan import ConvertSettings, ShardPlan, plan_shards
from alexnet.tools.convert.shard import (
    ConversionError,
    OnError,
    ShardJob,
    notes_file,
    read_arrays,
    read_notes,
)
from alexnet.tools.convert.source_files import check_archives
from alexnet.tools.convert.sources import materialise, packed_bytes
from alexnet.tools.output_folder import WORK, needed_and_free
from alexnet.tools.progress import Amount

_BYTES_PER_PIXEL = 0.4  # of a stored JPEG at quality 90: ImageNet has 0.34
_NOTES_BYTES_PER_PIXEL = 24  # of a shard's colour sums in .work: three int64


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Settle how a data set is made, without effect on its bytes.

    `workers`: processes; 0: none but this one, which an image that crashes its decoder then ends. `on_error`: what an
    undecodable image does. `max_rejected`: more than so many and no manifest is written; None allows 5 or 0.1%,
    whichever is more. `overwrite`: delete the data set that is there. `engine`: processes of this machine, or tasks of
    the Ray cluster at `address` (None: start one here), which must all see the folders.
    """

    workers: int = 1
    on_error: OnError = "reject"
    max_rejected: int | None = None
    overwrite: bool = False
    engine: Literal["local", "ray"] = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        if self.address is not None and self.engine != "ray":
            raise InputError(f"--address {self.address}: is of a Ray cluster; add --engine ray, or leave it out")


def build(
    source: Source,
    root: Path,
    settings: ConvertSettings,
    options: BuildOptions | None = None,
    on_progress: Callable[[Amount], None] = lambda _: None,
) -> Manifest:
    """Convert a source into a data set at `root`; continue what an earlier call with equal settings left there.

    The bytes do not depend on `options`. The caller holds the folder (`folder.held`, which reports an OSError). Raises
    InputError if `root` holds anything else or has no disk space, and ConversionError if the run stopped and can be
    continued.
    """
    options = options or BuildOptions()
    job, plans = job_of(source, settings), plan_shards(source, settings)
    root.mkdir(parents=True, exist_ok=True)
    if options.overwrite or not is_begun(root):  # with nothing written or deleted yet
        back = given_back(root) if options.overwrite else 0
        _check_disk_space(root, settings, plans, options.workers, packed=packed_bytes(source), back=back)
    left = begin(root, job, source, plans, overwrite=options.overwrite)
    if left is not None:
        stored = materialise(source, root / WORK, on_progress)
        _convert(stored, root, settings, left, options, on_progress)
        _check_source(stored)
        _finish(stored, root, job, plans, options.max_rejected)
    seal(root)
    return read_manifest(root)


def _convert(
    source: Source,
    root: Path,
    settings: ConvertSettings,
    left: list[ShardPlan],
    options: BuildOptions,
    on_progress: Callable[[Amount], None],
) -> None:
    """Convert the shards that are left; tell of progress, which begins with the images of earlier calls."""
    _check_disk_space(root, settings, left, options.workers)
    total = sum(map(len, source.members.values()))
    earlier = total - sum(len(plan.member_ids) for plan in left)
    jobs = (
        ShardJob(
            root=root.absolute(),  # also on another machine, in whichever folder that works
            source=replace(source, classes=(), members={}),
            settings=settings,
            on_error=options.on_error,
            plan=plan,
            members=plan.members(source),  # made when a worker is free: all at once would not fit for 14 million
        )
        for plan in left
    )

    def on_counts(counts: Sequence[int]) -> None:
        done, rejected = earlier + sum(counts), {"rejected": counts[1]}
        on_progress(Amount(event="progress", done=done, total=total, unit="images", counts=rejected))

    on_counts((0, 0))
    if options.engine == "ray":
        convert_on_ray(jobs, options.workers, options.address, on_counts)
    else:
        convert_here(jobs, options.workers, on_counts)


def _check_disk_space(
    root: Path, settings: ConvertSettings, missing: list[ShardPlan], workers: int, *, packed: int = 0, back: int = 0
) -> None:
    """Refuse to start what the disk cannot hold, `back` bytes given back; generous by a sixth for ImageNet.

    `packed`: bytes of images that are to be unpacked first.
    """
    pixels = settings.size_px**2
    images = sum(len(plan.member_ids) for plan in at_once(root, missing, workers))
    needed = packed + images * (pixels * _BYTES_PER_PIXEL + 2048) + len(missing) * pixels * _NOTES_BYTES_PER_PIXEL
    free = shutil.disk_usage(root).free + back
    if needed > free:
        option = disk_option(root)
        raise InputError(f"{option}: {needed_and_free(needed, free)}; make room, or give another {option.split()[0]}")


def _check_source(source: Source) -> None:
    """Refuse to finish where an archive changed; a file that is one image was looked at when it was read.

    What was unpacked before is as it was then.
    """
    for listing in source.members.values():
        if not listing.in_folders and source.opener is None:
            check_archives(source.root, listing.containers, source.since_ns)


def _finish(source: Source, root: Path, job: Job, plans: list[ShardPlan], max_rejected: int | None) -> None:
    """Write everything beside the shards, the manifest last."""
    sums, records, rejected = ColourSums(job.settings["size_px"]), list[ShardRecord](), list[Reject]()

    def rows_of_shards() -> Iterator[IndexRows]:  # one at a time: of ImageNet-21k's 2,800, the sums take 4 GB
        for plan in plans:
            file = notes_file(root, plan.name)
            notes, (rows, shard_sums) = read_notes(file), read_arrays(file)
            assert notes is not None  # it is done
            records.append(notes.record)
            rejected.extend(notes.rejected)
            sums.merge(shard_sums)
            yield rows

    index = root / WORK / f"{INDEX_NAME}.partial"
    write_index(index, rows_of_shards())
    (root / REJECTED_NAME).write_text("".join(json.dumps(asdict(reject)) + "\n" for reject in rejected))
    if bucket := bucket_of(root):  # it is what the user is to look at if these are too many
        bucket.put(REJECTED_NAME)
    if other := changed_rejects(rejected, source.root):
        raise ConversionError(f"{source.root}: changed meanwhile: {in_words(other)}; give the same command again")
    counts = _counts(source, records, rejected)
    _check_rejected(root, counts, max_rejected)
    if not sums.images:
        raise InputError(f"{source.root}: none of its training images can be decoded; see {root / REJECTED_NAME}")
    index.replace(root / INDEX_NAME)
    np.save(root / MEAN_IMAGE_NAME, sums.mean_image())
    complete(root, job, classes=source.classes, counts=counts, shards=records, colour=statistics_of(sums))


def _counts(source: Source, records: list[ShardRecord], rejected: list[Reject]) -> dict[str, SplitCounts]:
    return {
        split: SplitCounts(
            input=len(source.members[split]),
            written=sum(record.images for record in records if record.split == split),
            rejected=sum(1 for reject in rejected if reject.split == split),
        )
        for split in SPLITS
    }


def _check_rejected(root: Path, counts: dict[str, SplitCounts], max_rejected: int | None) -> None:
    rejected = sum(c.rejected for c in counts.values())
    allowed = max(5, sum(c.input for c in counts.values()) // 1000) if max_rejected is None else max_rejected
    if rejected > allowed:
        raise ConversionError(
            f"{rejected:,} images were rejected and {allowed:,} are allowed; all shards are kept, only the manifest is "
            f"missing. Look at {root / REJECTED_NAME}; if the rejects are right, give the same command with "
            f"--max-rejected {rejected}"
        )
