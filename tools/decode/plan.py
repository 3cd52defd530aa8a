"""Decide what a data set of JPEGs becomes as planes: which sample goes where, and what the manifest will say.

It follows from the JPEGs' manifest and index and from what was asked for, so the bytes do not depend on workers or
interruptions.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.host import available
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import SPLITS, ClassRecord, Manifest, Split, SplitCounts, StoredSettings
from alexnet.shards.reader import SplitReader
from alexnet.tools.convert.earlier import Job, Listed

KIND = "planes of a data set"
_NONE = SplitCounts(input=0, written=0, rejected=0)


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanesShard:
    """Say what one shard of planes holds: samples of a split of JPEGs by their ids, with their places and labels.

    `ids`: int64. `places`, `labels`: int32. `whole`: they are all samples of the JPEGs' shard of this number.
    """

    split: Split
    number: int
    ids: npt.NDArray[np.int64]
    places: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    whole: bool

    @property
    def name(self) -> str:
        """Return a short name, such as `train-000012`."""
        return f"{self.split}-{self.number:06d}"


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanesSet:
    """Say what a data set of JPEGs becomes. `jpegs`: its manifest. `chosen`: not all, but some of its classes."""

    source: Path
    jpegs: Manifest
    job: Job
    classes: tuple[ClassRecord, ...]
    counts: dict[str, SplitCounts]
    shards: tuple[PlanesShard, ...]
    chosen: bool

    @property
    def stored(self) -> StoredSettings:
        """Return what readers will go by."""
        return replace(self.jpegs.stored, encoding="planes-420")

    @property
    def images(self) -> int:
        """Count the images of all shards."""
        return sum(len(shard.ids) for shard in self.shards)


def plan_planes(source: Path, split: Split | None = None, labels: Sequence[int] | None = None) -> PlanesSet:
    """Plan the planes of a data set of JPEGs, or of one split, or of the classes of some labels, in that order.

    Raises InputError for what is no sound data set of JPEGs, holds nothing of what was asked for, or where there is no
    host decoder.
    """
    if why := available():
        raise InputError(f"decoding to planes: needs the host decoder, and {why}")
    readers = {name: SplitReader(source, name) for name in SPLITS if split in (None, name)}
    jpegs, place = next((reader.manifest, reader.place) for reader in readers.values())
    if jpegs.stored.encoding != "jpeg":
        raise InputError(f"{place}: holds planes already; give the data set of JPEGs that they were decoded from")
    if split and not jpegs.counts[split].input:
        raise InputError(f"--split {split}: {place} has no such images; leave it out, or give the other")
    settings, made_of = {**jpegs.settings, "encoding": "planes-420"}, {"kind": KIND, "digest": jpegs.digest()}
    counts: dict[str, SplitCounts] = {name: jpegs.counts[name] if name in readers else _NONE for name in SPLITS}
    records = jpegs.classes
    if labels is None:
        shards = [shard for reader in readers.values() for shard in _whole_shards(reader)]
    else:
        records = tuple(records[label] for label in labels)
        settings["class_order"] = "as listed"
        made_of["classes"] = hashlib.sha256("\n".join(record.wnid for record in records).encode()).hexdigest()
        shards = [shard for reader in readers.values() for shard in _chosen_shards(reader, labels)]
        images = {name: sum(len(shard.ids) for shard in shards if shard.split == name) for name in SPLITS}
        counts = {name: SplitCounts(input=images[name], written=images[name], rejected=0) for name in SPLITS}
        if not images["train"]:
            raise InputError("--classes: colour statistics need training images of them, and there are none")
    listed = Listed(classes=[record.wnid for record in records], images={name: counts[name].input for name in SPLITS})
    return PlanesSet(
        source=source,
        jpegs=jpegs,
        job=Job(settings=settings, source=made_of, versions=jpegs.versions, listed=listed),
        classes=records,
        counts=counts,
        shards=tuple(shards),
        chosen=labels is not None,
    )


def _whole_shards(reader: SplitReader) -> Iterator[PlanesShard]:
    """Yield the shards as they are: places and labels stay, and rejected images leave gaps."""
    ids, first = np.arange(len(reader)), 0
    rows = reader.rows(ids)
    for number, record in enumerate(reader.shards):
        part = slice(first, first := first + record.images)
        yield PlanesShard(
            split=reader.split,
            number=number,
            ids=ids[part],
            places=rows["place"][part],
            labels=rows["label"][part],
            whole=True,
        )


def _chosen_shards(reader: SplitReader, chosen: Sequence[int]) -> Iterator[PlanesShard]:
    """Yield shards of the samples whose class was chosen, in the order they are in, with new places and labels."""
    new_label = np.full(len(reader.manifest.classes), -1, np.int32)
    new_label[list(chosen)] = np.arange(len(chosen))
    labels = new_label[reader.labels]
    ids = np.flatnonzero(labels >= 0)
    per_shard = reader.manifest.stored.shard_images
    for number, first in enumerate(range(0, len(ids), per_shard)):
        part = ids[first : first + per_shard]
        places = np.arange(first, first + len(part), dtype=np.int32)
        yield PlanesShard(split=reader.split, number=number, ids=part, places=places, labels=labels[part], whole=False)
