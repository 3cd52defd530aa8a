"""Convert one shard: the unit of work and of resume.

Runs in a worker process and imports no more than Pillow and NumPy. Everything learnt from a shard (colour sums, index
rows, rejects) is on disk before the tar gets its name, so a tar that is there never needs decoding again.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.shards.colour import ColourSums
from alexnet.shards.index import IndexRows
from alexnet.shards.manifest import ShardRecord
from alexnet.shards.writer import Sample, publish_shard, shard_file, write_shard
from alexnet.tools.convert.plan import ConvertSettings, ShardPlan
from alexnet.tools.convert.resize import UndecodableError, convert_image

WORK = ".work"


class StoppedError(Exception):
    """Leave a shard half-way because the run was told to stop."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Hold what one shard came to; `sums` is None for validation, whose pixels are not part of the statistics."""

    record: ShardRecord
    rows: IndexRows
    rejected: list[dict[str, Any]]
    sums: ColourSums | None


def convert_shard(
    root: Path, source: Path, plan: ShardPlan, settings: ConvertSettings, on_image: Callable[[bool], None]
) -> None:
    """Decode, resize and write one shard. `on_image(written)` is called for each image and may raise StoppedError."""
    sums = ColourSums(settings.size_px)
    rejected: list[dict[str, Any]] = []
    samples: list[Sample] = []
    order = sorted(range(len(plan.members)), key=lambda i: (plan.members[i].file, plan.members[i].offset))
    files: dict[str, Any] = {}
    try:
        for i in order:  # by offset, so that a disk reads forwards
            member = plan.members[i]
            file = files.setdefault(member.file, None) or (source / member.file).open("rb")
            files[member.file] = file
            file.seek(member.offset)
            try:
                image = convert_image(file.read(member.length), settings.size_px, settings.quality)
            except UndecodableError as error:
                place = {"split": plan.split, "place": plan.first_place + i}
                rejected.append({**place, "source": member.file, "member": member.name, "reason": str(error)})
                on_image(False)
                continue
            if plan.split == "train":
                sums.add(image.pixels)
            stem = Path(member.name).stem
            samples.append(Sample(place=plan.first_place + i, stem=stem, label=member.label, jpeg=image.jpeg))
            on_image(True)
    finally:
        for file in files.values():
            file.close()
    samples.sort(key=lambda sample: sample.place)
    rejected.sort(key=lambda entry: entry["place"])
    record, rows = write_shard(root, plan.split, plan.number, samples)
    _save(root, plan, Outcome(record=record, rows=rows, rejected=rejected, sums=sums))
    publish_shard(root, record)


def load_outcome(root: Path, plan: ShardPlan) -> Outcome | None:
    """Return what an earlier call made of a shard, or None if it must be converted."""
    notes = _notes_file(root, plan)
    if not (root / shard_file(plan.split, plan.number)).exists() or not notes.exists():
        return None
    with np.load(notes, allow_pickle=False) as arrays:
        text = json.loads(arrays["text"].tobytes())
        sums = ColourSums.from_arrays(arrays) if plan.split == "train" else None
        return Outcome(record=ShardRecord(**text["record"]), rows=arrays["rows"], rejected=text["rejected"], sums=sums)


def _save(root: Path, plan: ShardPlan, outcome: Outcome) -> None:
    text = json.dumps({"record": asdict(outcome.record), "rejected": outcome.rejected}).encode()
    arrays = outcome.sums.to_arrays() if outcome.sums and plan.split == "train" else {}
    partial = _notes_file(root, plan).with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, text=np.frombuffer(text, np.uint8), rows=outcome.rows, **arrays)  # type: ignore[arg-type]
    partial.replace(_notes_file(root, plan))


def _notes_file(root: Path, plan: ShardPlan) -> Path:
    return root / WORK / f"{plan.split}-{plan.number:06d}.npz"
