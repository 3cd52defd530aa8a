"""Decode the JPEGs of one shard to planes: the unit of work and of resume, on one thread of a worker process."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.host import JpegPool
from alexnet.pipeline.host.jpeg import Jpeg
from alexnet.pipeline.settings import StreamSettings
from alexnet.shards.colour import ColourSums
from alexnet.shards.errors import InputError
from alexnet.shards.files import sha256_of
from alexnet.shards.manifest import Split, StoredSettings
from alexnet.shards.processes import Counts
from alexnet.shards.reader import SplitReader
from alexnet.shards.url import origin_of
from alexnet.shards.writer import Sample, write_shard
from alexnet.tools.convert.shard import Notes, save_shard
from alexnet.tools.decode.plan import PlanesShard

_BATCH_IMAGES = 32  # whose planes, 3 MB, stay in a core's caches until they are hashed and written

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class DecodeJob:
    """Hold all that a worker needs. `source`: the JPEGs. `colour`: sum up the colours of training images."""

    source: Path
    root: Path
    shard: PlanesShard
    stored: StoredSettings
    colour: bool


def decode_shard(job: DecodeJob, counts: Counts) -> None:
    """Write one shard of planes, with its notes; the first of `counts` grows by each image.

    Raises InputError for JPEGs that are damaged or not what the manifest names, OSError for a full disk.
    """
    shard = job.shard
    reader = reader_of(job.source, shard.split, whole=shard.whole)
    if not shard.whole:
        reader.files.plan_samples(reader.rows(shard.ids))
    elif origin_of(job.source):
        reader.files.plan_shards([shard.number], [shard.number])  # each is checked when it comes
    else:
        record = reader.shards[shard.number]
        if sha256_of(reader.root / record.file) != record.sha256:
            raise InputError(
                f"{reader.root / record.file}: its sha256 is not the one that the manifest gives; "
                f"`alexnet-prep verify {reader.root}` says more"
            )
    sums = ColourSums(job.stored.size_px)
    samples = _samples(job, reader, sums if job.colour and shard.split == "train" else None, counts)
    record, rows = write_shard(job.root, shard.split, shard.number, samples, job.stored.extension)
    reader.close()
    save_shard(job.root, shard.name, Notes(record=record), rows, sums)


@functools.lru_cache(maxsize=2)
def reader_of(source: Path, split: Split, *, whole: bool = True) -> SplitReader:
    """Return a reader, which a worker keeps: of a million images, making one takes 50 ms.

    `whole`: from object storage it fetches whole shards, into the cache that `source` lies in, and not single samples.
    """
    if not whole or origin_of(source) is None:
        return SplitReader(source, split)
    from alexnet.shards.cache import ShardCache

    return SplitReader(source, split, ShardCache(source.parent.parent, round(StreamSettings().cache_gb * 1e9)))


def _samples(job: DecodeJob, reader: SplitReader, sums: ColourSums | None, counts: Counts) -> Iterator[Sample]:
    """Yield a shard's samples; what is stored of one lies in memory that is used again for others."""
    shard = job.shard
    for place, label, (key, planes) in zip(
        shard.places.tolist(), shard.labels.tolist(), decoded(reader, shard.ids, job.stored, sums), strict=True
    ):
        yield Sample(place=place, stem=stem_of(key, job.stored), label=label, stored=planes.data)
        counts[0] += 1


def stem_of(key: str, stored: StoredSettings) -> str:
    """Return a key without the place that it begins with; of adopted tars, whose keys have none, without folders."""
    return key.rpartition("/")[2] if stored.adopted else key.partition("_")[2]


def decoded(
    reader: SplitReader, ids: npt.NDArray[np.int64], stored: StoredSettings, sums: ColourSums | None = None
) -> Iterator[tuple[str, Bytes]]:
    """Yield keys and planes of JPEGs: uint8 (bytes,), good until the next is asked for; add their pixels to `sums`.

    Raises InputError in one line that names the sample whose JPEG cannot be decoded to planes.
    """
    size = (stored.size_px, stored.size_px)
    memory = np.empty((_BATCH_IMAGES, stored.max_sample_bytes), np.uint8)
    with JpegPool(1) as pool:
        for first in range(0, len(ids), _BATCH_IMAGES):
            part = ids[first : first + _BATCH_IMAGES].tolist()
            keys, jpegs = zip(*map(reader.key_and_stored, part), strict=True)
            for row, why in pool.decode_planes(jpegs, size=size, out=memory[: len(part)]).items():
                raise reader.error(part[row], f"{why}; {_mend(reader.place, why)}")
            if sums:
                add_pixels(pool, jpegs, size, sums)
            yield from zip(keys, memory, strict=False)


def add_pixels(pool: JpegPool, jpegs: Sequence[Jpeg], size: tuple[int, int], sums: ColourSums) -> dict[int, str]:
    """Decode JPEGs of one size and add their pixels to `sums`; if any cannot be decoded none is: return why, by row."""
    pixels = np.empty((len(jpegs), *size, 3), np.uint8)
    whole, upright = np.zeros((len(jpegs), 2), np.int32), np.zeros(len(jpegs), np.bool_)
    wrong = pool.decode(jpegs, size=size, crop_yx=whole, mirror=upright, out=pixels)
    for image in () if wrong else pixels:
        sums.add(image)
    return wrong


def _mend(place: str, why: str) -> str:
    if "4:2:0" in why:
        return "use these JPEGs as they are, or write them anew with `alexnet-prep shard`, which stores 4:2:0"
    return f"`alexnet-prep verify --deep {place}` names all that are damaged"
