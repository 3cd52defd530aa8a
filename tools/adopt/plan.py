"""Decide what tars become as a data set where they lie: which samples each holds, in which order, and their labels.

Which tars there are, their splits, samples, labels and classes are those of the source that `alexnet-prep shard` reads.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.host import available
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import SPLITS, Split, StoredSettings
from alexnet.tools.convert.earlier import Job, Listed, versions
from alexnet.tools.convert.listing import Listing, Source
from alexnet.tools.convert.sources.layout import Layout
from alexnet.tools.stored_jpeg import header_of

KIND = "webdataset"
"""Of the layout whose tars can be taken as they are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AdoptedTar:
    """Say what one tar holds: where its JPEGs lie, int64, and their labels, int32, in the order in which they lie.

    `file`: relative to the data set. `number`: of its split's tars. `first_place`: of its samples in the split.
    """

    split: Split
    number: int
    file: str
    first_place: int
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]

    @property
    def name(self) -> str:
        """Return a short name, such as `train-000012`."""
        return f"{self.split}-{self.number:06d}"


@dataclass(frozen=True, kw_only=True, eq=False)
class AdoptedSet:
    """Say what a folder of tars becomes. `stored`: what its first JPEG is, and all have to be."""

    source: Source
    job: Job
    stored: StoredSettings
    tars: tuple[AdoptedTar, ...]

    @property
    def images(self) -> int:
        """Count the images of all tars."""
        return sum(len(tar.labels) for tar in self.tars)


def plan_adoption(source: Source, layout: Layout) -> AdoptedSet:
    """Plan the adoption of a source's tars. Raises InputError where they hold what only a conversion can take."""
    if why := available():
        raise InputError(f"adopt: decodes every image with the host decoder, and {why}")
    tars = tuple(tar for split in SPLITS for tar in _tars(source.members[split], split))
    listed = Listed(
        classes=[record.wnid for record in source.classes],
        images={split: len(source.members[split]) for split in SPLITS},
        names=layout.key(),  # sizes and times of the tars: what was learnt from others is worth nothing
    )
    made_of = {"kind": "tars that were there", "digest": source.digest()}
    job = Job(settings={"adopted": True}, source=made_of, versions=versions(), listed=listed)
    return AdoptedSet(source=source, job=job, stored=_stored(source, tars), tars=tars)


def _tars(listing: Listing, split: Split) -> Iterator[AdoptedTar]:
    """Yield a split's tars by name, with their samples in the order in which they lie."""
    place = 0
    for number, file in enumerate(sorted(listing.containers)):
        if not file.isprintable():  # such as bytes that are no UTF-8
            raise InputError(f"{file!a}: a manifest cannot name that tar; rename it, in letters and digits")
        rows = np.flatnonzero(listing.container == listing.containers.index(file))
        rows = rows[np.argsort(listing.offsets[rows])]
        yield AdoptedTar(
            split=split,
            number=number,
            file=file,
            first_place=place,
            offsets=listing.offsets[rows],
            lengths=listing.lengths[rows].astype(np.int64),
            labels=listing.labels[rows],
        )
        place += len(rows)


def _stored(source: Source, tars: tuple[AdoptedTar, ...]) -> StoredSettings:
    """Return what the first JPEG says that all are."""
    tar = tars[0]
    with (source.root / tar.file).open("rb") as file:
        file.seek(int(tar.offsets[0]))
        try:
            width, height, channels, quality = header_of(file.read(int(tar.lengths[0])))
            if width != height:
                raise ValueError(f"has {width} x {height} px, and must be square")
        except ValueError as error:
            raise not_adopted(source.root, tar.file, "its first sample", str(error)) from None
    most = max(len(tar.labels) for tar in tars)
    return StoredSettings(size_px=width, quality=quality, shard_images=most, channels=channels, adopted=True)


def not_adopted(root: Path, file: str, sample: str, why: str) -> InputError:
    """Return the refusal that names what cannot be taken as it is, and what can."""
    return InputError(f"{root / file}: {sample}: {why}; `alexnet-prep shard {root}` converts what cannot be adopted")
