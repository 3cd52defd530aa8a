"""Look into one tar that is to be adopted, on one thread of a worker process: the unit of work and of resume.

Every JPEG is decoded once: what comes through here is what the stream will decode, and to the same pixels.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tarfile import BLOCKSIZE

import numpy as np

from alexnet.pipeline.host import JpegPool
from alexnet.shards import files
from alexnet.shards.adopted import Component, check_header, image_of, label_of, sample_key
from alexnet.shards.colour import ColourSums
from alexnet.shards.errors import InputError
from alexnet.shards.index import INDEX_DTYPE, IndexRows
from alexnet.shards.manifest import ShardRecord, StoredSettings, dali_index_file
from alexnet.shards.processes import Counts
from alexnet.tools.adopt.plan import AdoptedTar, not_adopted
from alexnet.tools.convert.shard import Notes, save_notes
from alexnet.tools.convert.sources.layout import Walk
from alexnet.tools.convert.sources.tars import Tar, list_tar
from alexnet.tools.decode.shard import add_pixels
from alexnet.tools.stored_jpeg import header_of

_BATCH_IMAGES = 32

Sample = tuple[Component, ...]
"""The files of one key, in the order in which they lie."""


@dataclass(frozen=True, kw_only=True)
class AdoptJob:
    """Hold all that a worker needs. `stored`: what every JPEG must be."""

    root: Path
    tar: AdoptedTar
    stored: StoredSettings

    def refusal(self, sample: Sample, why: str) -> InputError:
        """Return the error that names a sample which cannot be taken as it is."""
        return not_adopted(self.root, self.tar.file, f"sample {sample_key(sample[0].name)}", why)


def adopt_tar(job: AdoptJob, counts: Counts) -> None:
    """Write a tar's DALI index file, and its notes; the first of `counts` grows by each image.

    Raises InputError that names the sample that cannot be taken as it is, and where another index file lies already.
    """
    path, size_px = job.root / job.tar.file, job.stored.size_px
    samples, sums, qualities = _samples(job), ColourSums(size_px), [100]
    with JpegPool(1) as pool, os.fdopen(files.open_regular(path), "rb") as tar:
        for first in range(0, len(samples), _BATCH_IMAGES):
            part = samples[first : first + _BATCH_IMAGES]
            jpegs = [_checked(job, tar.fileno(), sample, qualities) for sample in part]
            for row, why in add_pixels(pool, jpegs, (size_px, size_px), sums).items():
                raise job.refusal(part[row], why)
            counts[0] += len(part)
    indexed = _write_dali_index(job, samples)
    record = ShardRecord(
        split=job.tar.split,
        file=job.tar.file,
        images=len(samples),
        bytes=path.stat().st_size,
        sha256=files.sha256_of(path),
    )
    notes = Notes(record=record, quality=min(qualities), indexed=indexed)
    save_notes(job.root, job.tar.name, notes, _rows(job.tar), sums)


def _samples(job: AdoptJob) -> list[Sample]:
    """Return a tar's samples, as DALI's `wds2idx` groups files: the images must be those that were listed."""
    walk = Walk()
    entries = [
        (os.fsdecode(name), offset, length) for name, offset, length in list_tar(Tar.of(job.root / job.tar.file), walk)
    ]
    samples = []
    for key, of_key in groupby(entries, lambda entry: sample_key(entry[0])):
        sample = tuple(Component(name[len(key) + 1 :], offset, length, name) for name, offset, length in of_key)
        try:
            image_of(sample), label_of(sample)
        except ValueError as error:
            raise job.refusal(sample, str(error)) from None
        samples.append(sample)
    if walk.replaced or [image_of(sample).offset for sample in samples] != job.tar.offsets.tolist():
        raise not_adopted(job.root, job.tar.file, "its samples", "files of one name, or of one key, lie apart in it")
    return samples


def _checked(job: AdoptJob, tar: int, sample: Sample, qualities: list[int]) -> bytes:
    """Read a sample's JPEG, which must be what all are, behind plain headers; note its quality."""
    image, stored = image_of(sample), job.stored
    try:
        for file in sample:
            if not file.name.isascii() or not file.name.isprintable() or " " in file.name:
                raise ValueError(f"{file.name!a} has blanks or letters in its name that DALI's index file cannot hold")
            check_header(os.pread(tar, BLOCKSIZE, file.offset - BLOCKSIZE), file)
        if image.length > stored.max_sample_bytes:
            raise ValueError(f"has {image.length:,} bytes, and must have at most {stored.max_sample_bytes:,}")
        jpeg = os.pread(tar, image.length, image.offset)
        *kind, quality = header_of(jpeg)
    except ValueError as error:
        raise job.refusal(sample, str(error)) from None
    if kind != (wanted := [stored.size_px, stored.size_px, stored.channels]):
        found, first = ("{} x {} px in {} channels".format(*of) for of in (kind, wanted))
        raise job.refusal(sample, f"has {found}, where the first has {first}")
    qualities.append(quality)
    return jpeg


def _write_dali_index(job: AdoptJob, samples: Sequence[Sample]) -> bool:
    """Write a tar's DALI index file; return False if it is there already. Raises InputError if another one is."""
    path = job.root / dali_index_file(job.tar.file)
    lines = (" ".join(f"{one.extension} {one.offset} {one.length} {one.name}" for one in sample) for sample in samples)
    content = "".join(f"{line}\n" for line in (f"v1.2 {len(samples)}", *lines)).encode()
    if not path.exists():
        files.replace(path, content)
        return True
    if path.stat().st_size != len(content) or path.read_bytes() != content:
        raise InputError(f"{path}: is there, and is not the index of the tar beside it; move it away")
    return False


def _rows(tar: AdoptedTar) -> IndexRows:
    rows = np.empty(len(tar.labels), INDEX_DTYPE)
    rows["offset"], rows["length"], rows["label"], rows["shard"] = tar.offsets, tar.lengths, tar.labels, tar.number
    rows["place"] = np.arange(tar.first_place, tar.first_place + len(rows))
    return rows
