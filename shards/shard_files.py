"""Where the bytes of a split's samples come from: tars in a folder, or objects (`remote.py`). A reader sees no more."""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from alexnet.shards.files import open_regular
from alexnet.shards.index import IndexRows
from alexnet.shards.manifest import ShardRecord
from alexnet.shards.url import Traffic

_OPEN_FILES = 512  # half of the 1,024 that most systems grant a process; opening one again takes 10 us


class OpenFile:
    """Hold a file open; it is closed when nobody holds this any more, or before, by `close`.

    `descriptor`: the operating system's number, for those who read in C.
    """

    def __init__(self, descriptor: int, close: Callable[[int], None] = os.close) -> None:
        self.descriptor = descriptor
        self.close = weakref.finalize(self, close, self.descriptor)


class Located(NamedTuple):
    """Say where samples lie: int32 (n,) descriptors, -1 for one that cannot be had, and int64 (n,) offsets.

    `held`: what keeps the descriptors open, until the samples have been read.
    """

    descriptors: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    held: list[OpenFile | None]


class ShardFiles:
    """Say in which open files the bytes of a split's tars lie: open those of a folder as they are asked for.

    What fetches them from object storage (`remote.py`) overrides that. From any thread. `place`: the data set's folder
    or URL, for messages. `traffic`: over the network; None of files. `on_disk`: they are files that the system can be
    told to read. `keeps_all`: what is fetched stays, as there is room for the whole split. Raises OSError for a file
    that cannot be opened, StorageError for what object storage does not give.
    """

    traffic: Traffic | None = None
    on_disk = True
    keeps_all = False

    def __init__(self, place: str, shards: Sequence[ShardRecord]) -> None:
        self.place, self.shards = place, shards
        self._open: OrderedDict[int, OpenFile] = OrderedDict()  # the one used last is last
        self._lock = threading.Lock()

    def span(self, shard: int, first: int, length: int) -> tuple[OpenFile, int]:
        """Return a file with bytes `first` to `first + length` of a tar, and where in it they begin."""
        return self.file(shard), first

    def located(self, rows: IndexRows) -> Located:
        """Return where samples lie, by their rows of the index."""
        shards: list[int] = rows["shard"].tolist()
        files = {shard: self._file_or_none(shard) for shard in set(shards)}
        descriptors = {shard: -1 if file is None else file.descriptor for shard, file in files.items()}
        where = np.array([descriptors[shard] for shard in shards], np.int32)
        return Located(where, rows["offset"].astype(np.int64), list(files.values()))

    def plan_shards(self, order: Sequence[int], fetch: Sequence[int], keep: Sequence[int] | None = None) -> None:
        """Say in which order shards will be needed, begin to fetch some, and close all but those to keep: these."""

    def plan_samples(self, rows: IndexRows) -> None:
        """Say which samples will be needed soon."""

    def start(self) -> None:
        """Begin to fetch; what failed before is tried again."""

    def stop(self) -> None:
        """Break off what is being fetched, and fetch no more; who waits for it gets a StorageError."""

    def close(self) -> None:
        """Forget the open files; each is closed when nobody reads it any more."""
        with self._lock:
            self._open.clear()

    def file(self, shard: int) -> OpenFile:
        """Return a tar, open; hold on to it for as long as its descriptor is used."""
        with self._lock:
            found = self._open.get(shard)
        opened = found or self._opened(shard)
        with self._lock:
            self._open[shard] = opened
            self._open.move_to_end(shard)
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
        return opened

    def _opened(self, shard: int) -> OpenFile:
        return OpenFile(open_regular(Path(self.place) / self.shards[shard].file))

    def _file_or_none(self, shard: int) -> OpenFile | None:
        try:
            return self.file(shard)
        except OSError:
            return None  # who reads its samples one by one meets the same error and can name them
