"""Where the bytes of samples come from that lie in object storage.

They come with whole shards through a cache (`CachedShards`), or sample by sample (`PartsOfShards`).
"""

import asyncio
import contextlib
import itertools
import os
import tarfile
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from tarfile import BLOCKSIZE
from typing import NamedTuple

import numpy as np

from alexnet.shards.cache import NoRoomError, ShardCache, let_go
from alexnet.shards.event_loop import loop, side_by_side
from alexnet.shards.index import IndexRows
from alexnet.shards.manifest import MEND, ShardRecord
from alexnet.shards.shard_files import Located, OpenFile, ShardFiles
from alexnet.shards.storage import Storage
from alexnet.shards.url import StorageError

SHARDS_AT_ONCE = 8
_PARTS_AT_ONCE = 64
_GAP_BYTES = 1 << 16  # between two samples that one request fetches: as long as 1 ms at 65 MB/s


def shards_of_url(url: str, shards: Sequence[ShardRecord], cache: ShardCache | None) -> ShardFiles:
    """Return where the bytes of a split come from that lies at a URL: a cache of whole shards, or else its parts."""
    storage = Storage(url)
    return PartsOfShards(storage, shards) if cache is None else CachedShards(storage, shards, cache)


class CachedShards(ShardFiles):
    """Fetch whole shards through a cache, several at a time, in the order in which they will be needed."""

    def __init__(self, storage: Storage, shards: Sequence[ShardRecord], cache: ShardCache) -> None:
        super().__init__(storage.url, shards)
        self.traffic, self._storage, self._cache = storage.traffic, storage, cache
        self.keeps_all = cache.limit > sum(shard.bytes for shard in shards)
        self._ahead: dict[int, Future[bool]] = {}  # whether shards that are fetched ahead found room
        self._needed: set[Future[OpenFile]] = set()  # of those that are waited for
        self._next_use: dict[str, int] = {}
        self._slots = asyncio.Semaphore(SHARDS_AT_ONCE)
        self._stopped = False

    def plan_shards(self, order: Sequence[int], fetch: Sequence[int], keep: Sequence[int] | None = None) -> None:
        """Begin to fetch some, and close all but those to keep, so that the cache may let go of them."""
        self._next_use = {self.shards[shard].sha256: place for place, shard in reversed(list(enumerate(order)))}
        with self._lock:
            for shard in set(self._open).difference(fetch if keep is None else keep):
                del self._open[shard]
            for shard, future in list(self._ahead.items()):
                if future.done() and (shard not in fetch or _found_no_room(future)):
                    del self._ahead[shard]
            for shard in fetch:
                if shard not in self._open and shard not in self._ahead and not self._stopped:
                    self._ahead[shard] = asyncio.run_coroutine_threadsafe(self._fetch_ahead(shard), loop())

    def start(self) -> None:
        """Begin to fetch; what failed before is tried again."""
        with self._lock:
            self._stopped = False
            self._ahead.clear()

    def stop(self) -> None:
        """Break off what is being fetched."""
        with self._lock:
            self._stopped = True
            for ahead in self._ahead.values():
                ahead.cancel()
            for needed in list(self._needed):
                needed.cancel()

    def _opened(self, shard: int) -> OpenFile:
        """Wait for a shard that is fetched ahead, and open it; fetch it if it is not there then."""
        with self._lock:
            ahead = self._ahead.get(shard)
        try:
            if ahead and not ahead.done():  # what failed before it was needed is tried again
                ahead.result()
            with self._lock:
                if self._stopped:
                    raise CancelledError
                needed = asyncio.run_coroutine_threadsafe(self._fetch_needed(shard), loop())
                self._needed.add(needed)
            try:
                return needed.result()
            finally:
                self._needed.discard(needed)
        except CancelledError:
            raise StorageError(f"{self.place}/{self.shards[shard].file}: the stream was closed") from None

    async def _fetch_ahead(self, shard: int) -> bool:
        """Fetch a shard and let go of it, so that it is no hindrance to one that is needed before; say if it had room.

        An error that is kept would keep the frames of all who saw it, and with them open files.
        """
        with contextlib.suppress(NoRoomError):
            async with self._slots:
                await self._fetched(shard, self._next_use, wait=False, counted=False)
            return True
        return False

    async def _fetch_needed(self, shard: int) -> OpenFile:
        """Open a shard that is needed now: before all others, and where there is no room, room is made."""
        next_use, counted = self._next_use | {self.shards[shard].sha256: -1}, shard in self._ahead
        with contextlib.suppress(NoRoomError):
            return await self._fetched(shard, next_use, wait=False, counted=counted)
        with self._lock:
            self._open.clear()  # who uses one holds it; all others stay open for speed alone
        return await self._fetched(shard, next_use, wait=True, counted=counted)

    async def _fetched(self, shard: int, next_use: Mapping[str, int], *, wait: bool, counted: bool) -> OpenFile:
        """Open a shard; `counted`: as fetched or found, when it was fetched ahead."""
        descriptor, fetched = await self._cache.opened(self._storage, self.shards[shard], next_use, wait=wait)
        self._storage.traffic.misses += fetched
        self._storage.traffic.hits += not (fetched or counted)
        return OpenFile(descriptor, let_go)


def _found_no_room(future: Future[bool]) -> bool:
    return not future.cancelled() and future.exception() is None and not future.result()


class PartsOfShards(ShardFiles):
    """Fetch samples by ranges of objects, a request for each or for some that lie together, into memory.

    Such a part cannot be checked by a shard's sha256: the object must have the manifest's length, and stay as it was.
    """

    on_disk = False

    def __init__(self, storage: Storage, shards: Sequence[ShardRecord]) -> None:
        super().__init__(storage.url, shards)
        self.traffic, self._storage = storage.traffic, storage
        self._coming: dict[tuple[int, int], tuple[Future[OpenFile], int]] = {}  # by shard and offset: the place there
        self._in_flight: set[Future[OpenFile]] = set()
        self._slots = asyncio.Semaphore(_PARTS_AT_ONCE)
        self._stopped = False

    def plan_samples(self, rows: IndexRows) -> None:
        """Begin to fetch samples, each to be used once."""
        with self._lock:
            if len(rows) and not self._stopped:
                self._begin(requests_for(rows))

    def span(self, shard: int, first: int, length: int) -> tuple[OpenFile, int]:
        """Return memory with these bytes, which are kept if they were planned."""
        with self._lock:
            if (shard, first) not in self._coming:
                self._begin([_Request(shard, [first], [length])])
                future, place = self._coming.pop((shard, first))
            else:
                future, place = self._coming[shard, first]
        return self._result(future, shard), place

    def located(self, rows: IndexRows) -> Located:
        """Return memory with these samples, which are forgotten here."""
        keys = list(zip(rows["shard"].tolist(), (rows["offset"] - BLOCKSIZE).tolist(), strict=True))
        with self._lock:
            missing = rows[[key not in self._coming for key in keys]]
            if len(missing):
                self._begin(requests_for(missing))
            found = [self._coming[key] for key in keys]
            for key in keys:
                self._coming.pop(key, None)
        held = [self._result(future, shard) for (future, _), (shard, _) in zip(found, keys, strict=True)]
        offsets = np.array([place + BLOCKSIZE for _, place in found], np.int64)
        return Located(np.array([file.descriptor for file in held], np.int32), offsets, list(held))

    def start(self) -> None:
        """Begin to fetch; what failed before is tried again."""
        with self._lock:
            self._stopped = False
            self._coming.clear()

    def stop(self) -> None:
        """Break off what is being fetched."""
        with self._lock:
            self._stopped = True
            for future in list(self._in_flight):
                future.cancel()

    def close(self) -> None:
        """Forget what was fetched."""
        with self._lock:
            self._coming.clear()

    def _result(self, future: Future[OpenFile], shard: int) -> OpenFile:
        try:
            return future.result()
        except CancelledError:
            raise StorageError(f"{self.place}/{self.shards[shard].file}: the stream was closed") from None

    def _begin(self, requests: "list[_Request]") -> None:
        """Begin to fetch parts of tars; the lock is held."""
        if self._stopped:
            raise StorageError(f"{self.place}: the stream was closed")
        placed = list(zip(requests, itertools.accumulate((one.bytes for one in requests), initial=0), strict=False))
        future = asyncio.run_coroutine_threadsafe(self._fetched(placed), loop())
        self._in_flight.add(future)
        future.add_done_callback(self._in_flight.discard)
        for request, place in placed:
            for first in request.firsts:
                self._coming[request.shard, first] = future, place + first - request.firsts[0]

    async def _fetched(self, placed: "Sequence[tuple[_Request, int]]") -> OpenFile:
        """Fetch all that is asked for into a file in memory, each part to its place there."""
        file = OpenFile(os.memfd_create("samples", os.MFD_CLOEXEC))

        async def fetch(one: tuple[_Request, int]) -> None:
            request, place = one
            record = self.shards[request.shard]
            async with self._slots:
                part = await self._storage.part(record.file, request.firsts[0], request.end, record.bytes)
            for first, length in zip(request.firsts, request.lengths, strict=True):
                header = part[first - request.firsts[0] :][:BLOCKSIZE]
                if length > BLOCKSIZE and not _is_header(header, length - BLOCKSIZE):
                    raise StorageError(f"{self.place}/{record.file}: holds no sample at byte {first:,}; {MEND}")
            os.pwrite(file.descriptor, part, place)

        await side_by_side(fetch, placed, _PARTS_AT_ONCE)
        return file


class _Request(NamedTuple):
    """Ask for parts of a shard that lie together, in order."""

    shard: int
    firsts: list[int]
    lengths: list[int]

    @property
    def end(self) -> int:
        return self.firsts[-1] + self.lengths[-1]

    @property
    def bytes(self) -> int:
        return self.end - self.firsts[0]


def requests_for(rows: IndexRows) -> list[_Request]:
    """Return what is asked for to get samples with their headers: one request for those that lie together."""
    requests: list[_Request] = []
    rows = rows[np.lexsort((rows["offset"], rows["shard"]))]
    parts = rows["shard"], rows["offset"] - BLOCKSIZE, rows["length"] + BLOCKSIZE
    for shard, first, length in zip(*(part.tolist() for part in parts), strict=True):
        if requests and requests[-1].shard == shard and first - requests[-1].end <= _GAP_BYTES:
            requests[-1].firsts.append(first)
            requests[-1].lengths.append(length)
        else:
            requests.append(_Request(shard, [first], [length]))
    return requests


def _is_header(block: bytes, length: int) -> bool:
    """Say whether a block is the header of a file of so many bytes."""
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return header.isreg() and header.size == length
