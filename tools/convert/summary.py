"""What a conversion has to say, before it starts and when it is done: in lines for people, as events for machines."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.shards.manifest import Manifest
from alexnet.shards.order import shuffle_score
from alexnet.shards.reader import SplitReader
from alexnet.tools.convert.build import Progress
from alexnet.tools.convert.known import naming
from alexnet.tools.convert.listing import Source

_SHUFFLE_WINDOW = 256


def source_lines(found: Source) -> list[str]:
    """Tell people what a source is, which labels it gives, and what is odd about it."""
    lines = [f"found: {found.description}", f"labels: {found.label_order}"]
    lines += [f"note: {note}" for note in found.notes]
    if found.ignored:
        lines.append(f"ignored: {found.ignored:,} entries that are no regular files, or junk")
    return lines


def source_event(found: Source) -> dict[str, Any]:
    """Tell machines the same."""
    return {
        "event": "source",
        "kind": found.kind,
        "classes": len(found.classes),
        "entries": {split: len(members) for split, members in found.members.items()},
        "label_order": found.label_order,
        "notes": found.notes,
        "ignored": found.ignored,
    }


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Hold what came of a call: the data set, whether it was there already, and what this call did."""

    root: Path
    manifest: Manifest
    seconds: float
    progress: Progress
    already: bool

    def as_event(self) -> dict[str, Any]:
        """Return what machines are told at the end."""
        score, ideal, _ = self._shuffle()
        return {
            "event": "complete",
            "root": str(self.root),
            "counts": {split: dataclasses.asdict(c) for split, c in self.manifest.counts.items()},
            "shuffle": {"score": round(score, 1), "ideal": round(ideal, 1)},
            "seconds": None if self.already else round(self.seconds, 3),
        }

    def lines(self) -> Iterator[str]:
        """Yield what people are told at the end."""
        counts, colour = self.manifest.counts, self.manifest.colour
        for split, c in counts.items():
            yield f"{split}: {c.input:,} in = {c.written:,} written + {c.rejected:,} rejected"
        yield f"mean RGB {_row(colour.mean)}; standard deviations along the axes {_row(colour.standard_deviations)}"
        score, ideal, window = self._shuffle()
        yield f"shuffle: {score:.1f} classes in {window} consecutive images; a perfect shuffle has {ideal:.1f}"
        if any(c.rejected for c in counts.values()):
            yield f"rejected images and why: {self.root / 'rejected.jsonl'}"
        if note := self._empty_classes():
            yield f"note: {note}"
        yield f"{self.root} was already complete; nothing to do" if self.already else self._speed()

    def _empty_classes(self) -> str:
        """Name the classes of which no training image was written: they may be no classes."""
        labels = SplitReader(self.root, "train").labels
        images = np.bincount(labels, minlength=len(self.manifest.classes))
        names = [record.wnid for record, n in zip(self.manifest.classes, images, strict=True) if n == 0]
        return naming("class has", "classes have", " no training image in the data set", names)

    def _shuffle(self) -> tuple[float, float, int]:
        labels = SplitReader(self.root, "train").labels
        window = min(_SHUFFLE_WINDOW, len(labels))
        return *shuffle_score(labels, window), window

    def _speed(self) -> str:
        """Count the images of this call only: those of an earlier one took their time then."""
        images, resumed = self.progress.written + self.progress.rejected, self.progress.resumed
        shards = len(self.manifest.shards)
        done = f"{self.root} is complete: {shards:,} shard{'s' if shards > 1 else ''}; "
        if not images:
            return f"{done}all images were converted by an earlier call"
        earlier = f" ({resumed:,} more by an earlier call)" if resumed else ""
        return f"{done}{images:,} images{earlier} in {self.seconds:,.1f} s, {images / self.seconds:,.0f} images/s"


def _row(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:.2f}" for v in values)
