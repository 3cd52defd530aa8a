"""Convert one shard: the unit of work and of resume.

Runs in a worker process and imports no more than Pillow and NumPy. Everything learnt from a shard is on disk, as its
notes, before the tar gets its name: so a tar that is there never needs decoding again.
"""

import hashlib
import io
import json
from collections.abc import MutableSequence, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from alexnet.shards.colour import ColourSums
from alexnet.shards.files import as_typed, put_on_disk
from alexnet.shards.index import IndexRows
from alexnet.shards.manifest import Reject, ShardRecord, Split
from alexnet.shards.writer import Sample, partial_of, publish_shard, write_shard
from alexnet.tools.console import StoppedError
from alexnet.tools.convert.bucket import bucket_of
from alexnet.tools.convert.image import convert_image
from alexnet.tools.convert.listing import Member, Source
from alexnet.tools.convert.opening import CODECS, UndecodableError, lacking
from alexnet.tools.convert.plan import ConvertSettings, ShardPlan
from alexnet.tools.convert.source_files import SourceFiles
from alexnet.tools.output_folder import WORK

OnError = Literal["reject", "fail"]


class ConversionError(StoppedError):
    """End a run that can be continued: the message says why it stopped."""


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """Hold all that a worker needs to convert one shard, wherever it runs.

    `source`: without its members, of which only the shard's own go to the worker. `poisoned`: reasons by position in
    the shard of images that kill the decoder; they are rejected undecoded. `deaths`: of workers on it so far, for which
    no image was to blame.
    """

    root: Path
    source: Source
    settings: ConvertSettings
    on_error: OnError
    plan: ShardPlan
    members: list[Member]
    poisoned: dict[int, str] = field(default_factory=dict)
    deaths: int = 0

    def order(self) -> list[int]:
        """Return the positions of the images in the order of converting: by offset, so that a disk reads forwards."""
        return sorted(range(len(self.members)), key=lambda i: (self.members[i].file, self.members[i].offset))


@dataclass(frozen=True, kw_only=True)
class Notes:
    """Record what one shard became.

    `lengths`: of `lengths_digest`. `codecs`: of `codecs()`, when it was converted. Planes need neither. Of an adopted
    tar, `quality`: the least that one of its JPEGs was written at; `indexed`: its DALI index file was written for it.
    """

    record: ShardRecord
    rejected: tuple[Reject, ...] = ()
    lengths: str = ""
    codecs: tuple[str, ...] = ()
    quality: int = 0
    indexed: bool = False


def convert_shard(job: ShardJob, counts: MutableSequence[int]) -> Notes:
    """Decode, resize and write one shard, with its notes; return them.

    `counts`: images written and rejected, added to after each. Raises ConversionError for a bad image if `on_error` is
    `fail`, SourceChangedError if the source is not what it was, OSError for a full disk or a vanished file.
    """
    sums = ColourSums(job.settings.size_px)
    rejected: list[Reject] = []
    samples: list[Sample] = []
    with SourceFiles(job.source.root, job.source.since_ns, job.source.opener) as files:
        for i in job.order():
            member, place = job.members[i], job.plan.first_place + i
            data = None
            try:
                data = files.read(member)
                if i in job.poisoned:
                    raise UndecodableError(job.poisoned[i])
                image = convert_image(data, job.settings.size_px, job.settings.quality, job.source.encoding)
            except UndecodableError as error:
                files.check_bad(member)
                rejected.append(_reject(job, place, member, data, str(error)))
                counts[1] += 1
            else:
                if job.plan.split == "train":
                    sums.add(image.pixels)
                samples.append(Sample(place=place, stem=member.stem, label=member.label, stored=image.jpeg))
                counts[0] += 1
        files.check_readable(len(job.members))
    samples.sort(key=lambda sample: sample.place)
    rejected.sort(key=lambda reject: reject.place)
    record, rows = write_shard(job.root, job.plan.split, job.plan.number, samples)
    lengths = lengths_digest([member.length for member in job.members])
    notes = Notes(record=record, rejected=tuple(rejected), lengths=lengths, codecs=codecs())
    save_shard(job.root, job.plan.name, notes, rows, sums)
    return notes


def _reject(job: ShardJob, place: int, member: Member, data: bytes | None, reason: str) -> Reject:
    if job.on_error == "fail":
        raise ConversionError(f"--on-error fail: {member.file}: {member.name} at byte {member.offset:,}: {reason}")
    return Reject(
        split=job.plan.split,
        place=place,
        source=member.file,
        member=member.name,
        offset=None if job.source.opener else member.offset,  # it is none in the file that is named
        bytes=member.length,
        sha256=None if data is None else hashlib.sha256(data).hexdigest(),
        reason=reason,
    )


def notes_file(root: Path, name: str) -> Path:
    """Return where the notes of a shard called so, as `train-000012`, lie until the data set is complete."""
    return root / WORK / f"{name}.notes"


def save_shard(root: Path, name: str, notes: Notes, rows: IndexRows, sums: ColourSums) -> None:
    """Give a written shard its name, behind its notes; then put it where the data set comes to lie."""
    save_notes(root, name, notes, rows, sums)
    publish_shard(root, notes.record)
    if bucket := bucket_of(root):
        bucket.put_shard(notes.record, notes_file(root, name).relative_to(root).as_posix())


def save_notes(root: Path, name: str, notes: Notes, rows: IndexRows, sums: ColourSums) -> None:
    """Write what was learnt from a shard, whole or not at all.

    It is a line with the sha256 of what follows, one of JSON, and the arrays as NumPy's npz.
    """
    arrays, file = io.BytesIO(), notes_file(root, name)
    np.savez(arrays, rows=rows, **sums.to_arrays())  # type: ignore[arg-type]
    body = json.dumps(asdict(notes)).encode() + b"\n" + arrays.getbuffer()
    partial = partial_of(file)
    partial.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    put_on_disk(partial)
    partial.replace(file)


def finished(root: Path, split: Split, number: int) -> Notes | None:
    """Return the notes of a shard that is done, None if it is not."""
    notes = read_notes(notes_file(root, f"{split}-{number:06d}"))
    if notes is None:
        return None
    tar = root / notes.record.file
    return notes if tar.is_file() and tar.stat().st_size == notes.record.bytes else None


def read_notes(file: Path) -> Notes | None:
    """Return what is noted of a shard; None if nothing is, or it is damaged: the shard is converted anew then."""
    try:
        digest, _, body = file.read_bytes().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() == digest:
            return as_typed(body.partition(b"\n")[0], Notes, odd_names=True)
    except (OSError, ValueError):
        pass
    return None


def read_arrays(file: Path) -> tuple[IndexRows, ColourSums]:
    """Return the index rows and colour sums of a shard that is done."""
    with file.open("rb") as stream:
        stream.readline(), stream.readline()
        with np.load(stream, allow_pickle=False) as arrays:
            return arrays["rows"], ColourSums.from_arrays(arrays)


def lengths_digest(lengths: Sequence[int] | npt.NDArray[np.uint32]) -> str:
    """Return a sha256 of the lengths of a shard's images in the source, in the order of their places."""
    return hashlib.sha256(np.asarray(lengths, "<u4").tobytes()).hexdigest()


def codecs() -> tuple[str, ...]:
    """Name the decoders that Pillow was built with: what it rejects without one, it may take with it."""
    return tuple(kind for kind in CODECS if lacking(kind) is None)
