"""Convert one shard: the unit of work and of resume.

Runs in a worker process and imports no more than Pillow and NumPy. Everything learnt from a shard (colour sums, index
rows, rejects) is on disk before the tar gets its name, so a tar that is there never needs decoding again.
"""

import hashlib
import json
import os
import struct
import time
import zlib
from collections.abc import MutableSequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from alexnet.shards.colour import ColourSums
from alexnet.shards.index import IndexRows
from alexnet.shards.manifest import ShardRecord, shard_file
from alexnet.shards.writer import Sample, partial_of, publish_shard, write_shard
from alexnet.tools.console import StoppedError
from alexnet.tools.convert.image import Converted, convert_image
from alexnet.tools.convert.listing import Encoding, Member
from alexnet.tools.convert.opening import CODECS, UndecodableError, lacking
from alexnet.tools.convert.plan import ConvertSettings, ShardPlan
from alexnet.tools.convert.source_files import SourceFiles

WORK = ".work"
_ZIP_END_BYTES = 22  # of the record that ends a zip file without comment
OnError = Literal["reject", "fail"]


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """Hold all that a worker needs to convert one shard, wherever it runs.

    `poisoned`: reasons by position in the shard of images that kill the decoder; they are rejected undecoded.
    `deaths`: of workers on it so far, for which no image was to blame.
    `since_ns`: when the source began to be listed, as `time.time_ns` tells it.
    """

    root: Path
    source: Path
    encoding: Encoding
    settings: ConvertSettings
    on_error: OnError
    plan: ShardPlan
    members: list[Member]
    poisoned: dict[int, str] = field(default_factory=dict)
    deaths: int = 0
    since_ns: int = field(default_factory=time.time_ns)

    def order(self) -> list[int]:
        """Return the positions of the images in the order of converting: by offset, so that a disk reads forwards."""
        return sorted(range(len(self.members)), key=lambda i: (self.members[i].file, self.members[i].offset))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Hold what one shard came to; `sums` is None for validation, whose pixels are not part of the statistics."""

    record: ShardRecord
    rows: IndexRows
    rejected: list[dict[str, Any]]
    sums: ColourSums | None


class ConversionError(StoppedError):
    """End a run that can be continued: the message says why it stopped."""


def convert_shard(job: ShardJob, counts: MutableSequence[int]) -> Outcome:
    """Decode, resize and write one shard; return what came of it.

    `counts`: images written and rejected, added to after each. Raises ConversionError for a bad image if `on_error` is
    `fail`, SourceChangedError if the source is not what it was, OSError for a full disk or a vanished file.
    """
    sums = ColourSums(job.settings.size_px)
    rejected: list[dict[str, Any]] = []
    samples: list[Sample] = []
    with SourceFiles(job.source, job.since_ns) as files:
        for i in job.order():
            member, place = job.members[i], job.plan.first_place + i
            data = None
            try:
                data = files.read(member)
                image = _convert(job, i, data)
            except UndecodableError as error:
                files.check_bad(member)
                rejected.append(_rejection(job, place, member, data, str(error)))
                counts[1] += 1
            else:
                if job.plan.split == "train":
                    sums.add(image.pixels)
                samples.append(Sample(place=place, stem=member.stem, label=member.label, jpeg=image.jpeg))
                counts[0] += 1
        files.check_readable(len(job.members))
    samples.sort(key=lambda sample: sample.place)
    rejected.sort(key=lambda entry: entry["place"])
    record, rows = write_shard(job.root, job.plan.split, job.plan.number, samples)
    outcome = Outcome(record=record, rows=rows, rejected=rejected, sums=sums)
    _save(job, outcome)
    publish_shard(job.root, record)
    return outcome


def is_done(root: Path, plan: ShardPlan) -> bool:
    """Say whether a shard is complete: its tar and its notes are there and agree on the tar's size."""
    notes = read_notes(notes_file(root, plan))
    try:
        return bool(notes["record"]["bytes"] == (root / shard_file(plan.split, plan.number)).stat().st_size)
    except (OSError, KeyError):
        return False


def read_notes(file: Path) -> dict[str, Any]:
    """Return what a shard's notes say of it; nothing if they are missing, or torn by a power cut.

    `record`: the tar. `rejected`: as in rejected.jsonl. `lengths`: see `lengths_digest`. `codecs`: see there.
    """
    try:
        with file.open("rb") as notes:
            return dict(json.loads(_first_array(notes)))
    except (OSError, ValueError, struct.error):
        return {}


def _first_array(npz: BinaryIO) -> bytes:
    """Return the bytes of the first array of an npz file. Raises ValueError, OSError or struct.error if it is damaged.

    `np.load` takes eight times as long, and 1% of Ctrl-C meanwhile are lost in the finaliser of `zipfile`.
    """
    crc, name, extra = struct.unpack("<14xI8xHH", npz.read(30))  # the file's local header
    npz.seek(name, os.SEEK_CUR)
    (length,) = struct.unpack_from("<4xQ", npz.read(extra))  # NumPy writes it as zip64
    array = npz.read(min(length, os.fstat(npz.fileno()).st_size))
    npz.seek(-_ZIP_END_BYTES, os.SEEK_END)
    if zlib.crc32(array) != crc or npz.read(4) != b"PK\5\6":
        raise ValueError("damaged or cut short")
    return array[array.index(b"\n") + 1 :]  # which ends NumPy's own header


def lengths_digest(lengths: npt.ArrayLike) -> str:
    """Return a sha256 of the lengths of a shard's images in the source, in the order of their places."""
    return hashlib.sha256(np.asarray(lengths, "<u4").tobytes()).hexdigest()


def codecs() -> list[str]:
    """Name the decoders that Pillow was built with: what it rejects without one, it may take with it."""
    return [kind for kind in CODECS if lacking(kind) is None]


def load_outcome(root: Path, plan: ShardPlan) -> Outcome:
    """Return what was made of a shard that `is_done`."""
    with np.load(notes_file(root, plan), allow_pickle=False) as arrays:
        text = json.loads(arrays["text"].tobytes())
        return Outcome(
            record=ShardRecord(**text["record"]),
            rows=arrays["rows"],
            rejected=text["rejected"],
            sums=ColourSums.from_arrays(arrays) if plan.split == "train" else None,
        )


def _convert(job: ShardJob, position: int, data: bytes) -> Converted:
    if position in job.poisoned:
        raise UndecodableError(job.poisoned[position])
    return convert_image(data, job.settings.size_px, job.settings.quality, job.encoding)


def _rejection(job: ShardJob, place: int, member: Member, data: bytes | None, reason: str) -> dict[str, Any]:
    if job.on_error == "fail":
        raise ConversionError(f"--on-error fail: {member.file}: {member.name} at byte {member.offset:,}: {reason}")
    sha256 = None if data is None else hashlib.sha256(data).hexdigest()
    return {"split": job.plan.split, "place": place, **where(member), "sha256": sha256, "reason": reason}


def where(member: Member) -> dict[str, Any]:
    """Return what rejected.jsonl says of where an image lies."""
    return {"source": member.file, "member": member.name, "offset": member.offset, "bytes": member.length}


def _save(job: ShardJob, outcome: Outcome) -> None:
    made_of = {"lengths": lengths_digest([member.length for member in job.members]), "codecs": codecs()}
    text = json.dumps({"record": asdict(outcome.record), "rejected": outcome.rejected, **made_of}).encode()
    arrays = outcome.sums.to_arrays() if outcome.sums and job.plan.split == "train" else {}
    notes = notes_file(job.root, job.plan)
    partial = partial_of(notes)
    with partial.open("wb") as file:
        np.savez(file, text=np.frombuffer(text, np.uint8), rows=outcome.rows, **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    partial.replace(notes)


def notes_file(root: Path, plan: ShardPlan) -> Path:
    """Return where a shard's notes lie until the data set is complete."""
    return root / WORK / f"{plan.name}.npz"
