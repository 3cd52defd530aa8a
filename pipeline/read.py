"""Read the samples of a batch, JPEGs or planes: one call in C, the interpreter free, into memory that is used again.

What that call does not get is read once more by itself, as everything is where the C extension was not built: that
names the sample and says what is wrong.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.host.jpeg import available
from alexnet.pipeline.host.pool import LINE_BYTES, Bytes, Found, JpegPool, Ring, StoredPlanes
from alexnet.shards.errors import InputError, SampleError
from alexnet.shards.index import IndexRows
from alexnet.shards.reader import SplitReader
from alexnet.shards.shard_files import OpenFile

FILES_AT_ONCE = 256
"""Images of one call, each perhaps of another shard: no more than the reader keeps open anyhow."""


class SamplesRead(NamedTuple):
    """Hold a batch's samples as stored, those that could be read, and why the others could not.

    `samples`: uint8 (bytes,), views of one memory, which is not used again while one of them is held. `unknown`: places
    in that list of those that do not begin with the head that was given; all of them if it is empty.
    """

    samples: list[Bytes]
    unknown: list[int]
    failures: list[SampleError]


class SampleReader:
    """Read with so many threads, of which the caller is one; `keep`: batches whose memory is kept for later ones.

    A byte is copied once, out of the system's cache. The memory is not pinned: out of pinned memory a device may still
    copy when the decoder's call has returned, and when the batch is no longer held.
    """

    def __init__(self, threads: int, *, keep: int) -> None:
        self._pool = None if available() else JpegPool(threads)
        self._keep = keep
        self._ring = Ring(LINE_BYTES, keep=keep)

    def read(self, reader: SplitReader, sample_ids: npt.NDArray[np.int64], head: bytes = b"") -> SamplesRead:
        """Read samples, and tell those that do not begin with `head`. Raises InputError for too many threads."""
        rows = reader.rows(sample_ids)
        lines = -(-rows["length"].astype(np.int64) // LINE_BYTES)
        places = (np.cumsum(lines) - lines) * LINE_BYTES
        memory = self._memory(int(lines.sum()) * LINE_BYTES)
        found = np.full(len(rows), Found.NOT, np.uint8)
        for first in range(0, len(rows) if self._pool else 0, FILES_AT_ONCE):
            part = slice(first, first + FILES_AT_ONCE)
            found[part] = self._found(reader, rows[part], head, places[part], memory)
        read = SamplesRead([], [], [])
        samples = (sample_ids, places, rows["length"], found)
        for sample_id, place, length, how in zip(*(of.tolist() for of in samples), strict=True):
            try:
                sample = memory[place : place + length] if how else reader.stored(sample_id)
            except SampleError as error:
                read.failures.append(error.with_traceback(None))  # which would keep the arrays of this frame
                continue
            if how != Found.WITH_HEAD:
                read.unknown.append(len(read.samples))
            read.samples.append(sample)
        return read

    def close(self) -> None:
        """Join the threads."""
        if self._pool:
            self._pool.close()

    def _found(
        self, reader: SplitReader, rows: IndexRows, head: bytes, places: npt.NDArray[np.int64], memory: Bytes
    ) -> Bytes:
        """Read samples to their places in memory; return for each what was found, of `Found`."""
        assert self._pool is not None
        stored, held = located(reader, rows)
        descriptors, offsets, keys = stored
        try:
            return self._pool.read(
                descriptors,
                offsets,
                rows["length"].astype(np.int64),
                head=head,
                places=places,
                out=memory,
                keys=None if reader.manifest.stored.encoding == "jpeg" else keys,
            )
        except OSError as error:  # too many threads
            raise InputError(str(error)) from None
        finally:
            del held  # open until here

    def _memory(self, bytes_: int) -> Bytes:
        """Return memory for a batch; for one larger than all before, more of it, so that few are."""
        if bytes_ > self._ring.buffer_bytes:
            self._ring = Ring(bytes_ + bytes_ // 8, keep=self._keep)
        return self._ring.take((bytes_,), np.uint8).view(np.uint8)


def located(reader: SplitReader, rows: IndexRows) -> tuple[StoredPlanes, list[OpenFile | None]]:
    """Return where samples lie, and the open files, to be held until they have been read; -1 for one that cannot be."""
    descriptors, offsets, held = reader.files.located(rows)
    return StoredPlanes(descriptors, offsets, rows["place"].copy()), held
