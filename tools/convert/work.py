"""Convert one shard: the unit of work and of resume.

Runs in a worker process and imports no more than Pillow and NumPy. Everything learnt from a shard (colour sums, index
rows, rejects) is on disk before the tar gets its name, so a tar that is there never needs decoding again.
"""

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from alexnet.shards.colour import ColourSums
from alexnet.shards.errors import InputError
from alexnet.shards.index import IndexRows
from alexnet.shards.manifest import ShardRecord
from alexnet.shards.writer import Sample, publish_shard, shard_file, write_shard
from alexnet.tools.convert.listing import Encoding, Member
from alexnet.tools.convert.plan import ConvertSettings, ShardPlan
from alexnet.tools.convert.resize import MAX_BYTES, MAX_PIXELS, Converted, UndecodableError, convert_image

WORK = ".work"
OnError = Literal["reject", "fail"]
Step = Literal["begun", "written", "rejected"]


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """Hold all that a worker needs to convert one shard, wherever it runs.

    `poisoned`: reasons by position in the shard of images that kill the decoder; they are rejected undecoded.
    """

    root: Path
    source: Path
    encoding: Encoding
    settings: ConvertSettings
    on_error: OnError
    plan: ShardPlan
    members: list[Member]
    poisoned: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Hold what one shard came to; `sums` is None for validation, whose pixels are not part of the statistics."""

    record: ShardRecord
    rows: IndexRows
    rejected: list[dict[str, Any]]
    sums: ColourSums | None


class Report(NamedTuple):
    """Say how a shard ended: done, an image that may not be rejected, a source that changed, or an OS error.

    `written`, `rejected`: images of a shard that is done.
    """

    status: Literal["done", "rejected", "input", "os"]
    message: str = ""
    written: int = 0
    rejected: int = 0


class RejectedError(Exception):
    """Name an image that cannot be used, in a run that is to fail on the first."""


def convert_shard(job: ShardJob, on_image: Callable[[int, Step], None]) -> Outcome:
    """Decode, resize and write one shard; return what came of it.

    `on_image(position, step)` is called before each image and after it, with what became of it; it may raise to stop.
    Raises RejectedError for a bad image if `on_error` is `fail`, and InputError if the source is shorter than it was.
    """
    sums = ColourSums(job.settings.size_px)
    rejected: list[dict[str, Any]] = []
    samples: list[Sample] = []
    order = sorted(range(len(job.members)), key=lambda i: (job.members[i].file, job.members[i].offset))
    with _SourceFiles(job.source) as files:
        for i in order:  # by offset, so that a disk reads forwards
            member, place = job.members[i], job.plan.first_place + i
            on_image(i, "begun")
            try:
                image = _convert(job, i, files.read(member))
            except UndecodableError as error:
                rejected.append(_rejection(job, place, member, str(error)))
                on_image(i, "rejected")
            else:
                if job.plan.split == "train":
                    sums.add(image.pixels)
                stem = os.path.splitext(os.path.basename(member.name))[0]  # noqa: PTH119, PTH122 (20 us of pathlib)
                samples.append(Sample(place=place, stem=stem, label=member.label, jpeg=image.jpeg))
                on_image(i, "written")
    samples.sort(key=lambda sample: sample.place)
    rejected.sort(key=lambda entry: entry["place"])
    record, rows = write_shard(job.root, job.plan.split, job.plan.number, samples)
    outcome = Outcome(record=record, rows=rows, rejected=rejected, sums=sums)
    _save(job, outcome)
    publish_shard(job.root, record)
    return outcome


def attempt_shard(job: ShardJob, on_image: Callable[[int, Step], None] = lambda *_: None) -> Report:
    """Convert one shard and report, rather than raise, what a user has to know."""
    try:
        outcome = convert_shard(job, on_image)
    except RejectedError as error:
        return Report("rejected", str(error))
    except InputError as error:
        return Report("input", str(error))
    except OSError as error:  # a full disk, a vanished file
        return Report("os", f"{error.strerror}: {error.filename or job.root}")
    return Report("done", written=outcome.record.images, rejected=len(outcome.rejected))


def is_done(root: Path, plan: ShardPlan) -> bool:
    """Say whether a shard is complete: its tar and its notes are there and agree on the tar's size."""
    try:
        size = (root / shard_file(plan.split, plan.number)).stat().st_size
        with np.load(_notes_file(root, plan), allow_pickle=False) as arrays:
            return bool(json.loads(arrays["text"].tobytes())["record"]["bytes"] == size)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # missing, or torn by a power cut
        return False


def load_outcome(root: Path, plan: ShardPlan) -> Outcome:
    """Return what was made of a shard that `is_done`."""
    with np.load(_notes_file(root, plan), allow_pickle=False) as arrays:
        text = json.loads(arrays["text"].tobytes())
        return Outcome(
            record=ShardRecord(**text["record"]),
            rows=arrays["rows"],
            rejected=text["rejected"],
            sums=ColourSums.from_arrays(arrays) if plan.split == "train" else None,
        )


class _SourceFiles:
    """Read a shard's images in their order, with one file of the source open at a time.

    A shard of ImageNet-21k comes from some thousand class tars, and most systems grant a process 1,024 open files.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._name: str | None = None
        self._file: BinaryIO | None = None

    def __enter__(self) -> "_SourceFiles":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, member: Member) -> bytes:
        if member.length > MAX_BYTES:
            raise UndecodableError(f"more than {MAX_BYTES:,} bytes, which no picture of {MAX_PIXELS:,} pixels has")
        file = self._opened(member.file)
        file.seek(member.offset)
        data = file.read(member.length)
        if len(data) != member.length:
            raise InputError(
                f"{self._root / member.file}: {member.name} has {len(data):,} of its {member.length:,} bytes: the "
                "source changed after it was indexed; restore it and give the same command again"
            )
        return data

    def _opened(self, name: str) -> BinaryIO:
        if self._file is None or name != self._name:
            self.__exit__()
            self._file = (self._root / name).open("rb")
            self._name = name
        return self._file


def _convert(job: ShardJob, position: int, data: bytes) -> Converted:
    if position in job.poisoned:
        raise UndecodableError(job.poisoned[position])
    return convert_image(data, job.settings.size_px, job.settings.quality, job.encoding)


def _rejection(job: ShardJob, place: int, member: Member, reason: str) -> dict[str, Any]:
    if job.on_error == "fail":
        raise RejectedError(f"{member.file}: {member.name} at byte {member.offset:,}: {reason}")
    where = {"source": member.file, "member": member.name, "offset": member.offset}
    return {"split": job.plan.split, "place": place, **where, "reason": reason}


def _save(job: ShardJob, outcome: Outcome) -> None:
    text = json.dumps({"record": asdict(outcome.record), "rejected": outcome.rejected}).encode()
    arrays = outcome.sums.to_arrays() if outcome.sums and job.plan.split == "train" else {}
    notes = _notes_file(job.root, job.plan)
    partial = notes.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, text=np.frombuffer(text, np.uint8), rows=outcome.rows, **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    partial.replace(notes)


def _notes_file(root: Path, plan: ShardPlan) -> Path:
    return root / WORK / f"{plan.name}.npz"
