"""Read ahead in the known order of the epoch, so that storage is never waited for one image at a time.

The order of an epoch is known before it begins, so the bytes of coming batches can be asked for while others are
decoded. Two ways, by how the order lies on storage:

- Samples from anywhere (`global`): the system is told of each sample's bytes some batches ahead (`posix_fadvise`), and
  fetches hundreds of them at a time, which is what an NVMe disk or a network wants.
- Whole shards (`blocks`, and evaluation): the shards of the next window are read from front to back while the present
  window is used, which is what a spinning disk wants. That they are read is all: the system keeps them in memory.

Object storage is asked in the same two ways: for samples some batches ahead (`PartsOfShards`), or for the shards of the
next window, through a cache that is told when each shard will be needed again (`CachedShards`).

This changes nothing about what a stream yields.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.host.jpeg import available, extension
from alexnet.pipeline.plan import Planner, Window
from alexnet.pipeline.read import FILES_AT_ONCE, located
from alexnet.shards.index import IndexRows
from alexnet.shards.reader import SplitReader
from alexnet.shards.url import StorageError

SHARDS_AHEAD = 8
"""Shards that come at once, and that are fetched ahead at least; where the cache keeps all, beyond the next window."""

_BLOCK_BYTES = 4 << 20

IsHeld = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]


class ReadAhead:
    """Have the system fetch what the batches up to `batches` after the one last begun will need.

    `first`: the first batch that will be begun, counted over all epochs. `run` is for a thread of its own, as both ways
    can block; it returns after `stop`. `is_held`: tells of samples, int64 (n,), which need no reading: bool (n,).
    """

    def __init__(self, reader: SplitReader, planner: Planner, first: int, batches: int) -> None:
        self._reader, self._planner, self._first, self._batches = reader, planner, first, batches
        self._at = first
        self._stopped = False
        self._changed = threading.Condition()
        self.is_held: IsHeld | None = None

    def begun(self, step_index: int) -> None:
        """Say that a batch is about to be decoded."""
        with self._changed:
            self._at = step_index
            self._changed.notify_all()

    def stop(self) -> None:
        """Have `run` return."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def run(self) -> None:
        """Fetch until stopped."""
        s = self._planner.settings
        if s.shuffle and not s.window_shards:
            self._fetch_samples()
        else:
            self._fetch_windows()

    def _wait_for(self, step_index: int) -> int | None:
        """Wait until the stream is at a batch or beyond; return where it is, None if stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._at >= step_index)
            return None if self._stopped else self._at

    def _fetch_samples(self) -> None:
        """Tell the system of each sample's bytes, so many batches ahead."""
        reader, planner, coming = self._reader, self._planner, self._first
        if reader.files.traffic:
            shards = self._shards_by_first_use()
            reader.files.plan_shards(shards, fetch=shards)
        while (at := self._wait_for(coming - self._batches)) is not None:
            coming = max(coming, at)  # what is begun already needs no telling
            rows = reader.rows(self._wanted(planner.sample_ids(*divmod(coming, planner.steps))))
            rows = rows[np.lexsort((rows["offset"], rows["shard"]))]
            reader.files.plan_samples(rows)
            for first in range(0, len(rows) if reader.files.on_disk else 0, FILES_AT_ONCE):
                with contextlib.suppress(StorageError):  # the decoder meets it, too
                    _will_need(reader, rows[first : first + FILES_AT_ONCE])
            coming += 1

    def _fetch_windows(self) -> None:
        """Read the shards of a window from front to back while the window before it is used."""
        planner, batch_images = self._planner, self._planner.settings.batch_images
        (epoch, step), begin = divmod(self._first, planner.steps), self._first
        position, used = step * batch_images, list[tuple[int, list[int]]]()  # windows, by the step that has left them
        scratch = memoryview(bytearray(_BLOCK_BYTES))
        while True:
            windows = planner.windows(epoch)
            for number, window in enumerate(windows):
                if window.positions.stop <= position:
                    continue  # the stream began after it
                if (at := self._wait_for(begin)) is None:
                    return
                used = [(left, shards) for left, shards in used if left > at]
                first, left = (
                    epoch * planner.steps + min(-(-place // batch_images), planner.steps)
                    for place in (max(window.positions.start, position), window.positions.stop)
                )
                # The next window is read when the stream has left the one before this.
                begin = first
                if left <= at:
                    continue  # the stream was faster
                if self._reader.files.traffic:
                    self._plan_shards(used, [*windows[number:], *planner.windows(epoch + 1)])
                used.append((left, window.shards.tolist()))
                for shard in filter(self._is_wanted, window.shards.tolist()):
                    self._read_through(shard, scratch)
            epoch, position = epoch + 1, 0

    def _plan_shards(self, used: list[tuple[int, list[int]]], windows: Sequence[Window]) -> None:
        """Tell object storage of the windows that are used, the next one, and all that come until each shard came."""
        present = [shard for _, shards in used for shard in shards]
        coming = np.concatenate([window.shards for window in windows]).tolist()
        keep = [*present, *windows[0].shards.tolist()]
        files, window = self._reader.files, len(windows[0].shards)
        # What is fetched early takes the room of what is needed later, if not of all; the first window is waited for.
        ahead = window + SHARDS_AHEAD if files.keeps_all else max(window, SHARDS_AHEAD)
        fetch = list(filter(self._is_wanted, dict.fromkeys([*keep, *coming[: ahead if used else window]])))
        files.plan_shards([*present, *coming], fetch, keep)

    def _shards_by_first_use(self) -> list[int]:
        """Return all shards in the order in which an epoch of single samples, from where it begins, asks for them."""
        epoch, step = divmod(self._first, self._planner.steps)
        order = np.roll(self._planner.order(epoch), -step * self._planner.settings.batch_images)
        shards, firsts = np.unique(self._reader.rows(order)["shard"], return_index=True)
        return list(shards[np.argsort(firsts)].tolist())

    def _is_wanted(self, shard: int) -> bool:
        """Say whether anything in a shard has to be read."""
        first = sum(record.images for record in self._reader.shards[:shard])
        return bool(len(self._wanted(first + np.arange(self._reader.shards[shard].images))))

    def _wanted(self, sample_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return those that have to be read."""
        return sample_ids if self.is_held is None else sample_ids[~self.is_held(sample_ids)]

    def _read_through(self, shard: int, scratch: memoryview) -> None:
        """Read a shard from front to back and forget it: it is in the system's cache then."""
        offset = 0
        try:
            file, _ = self._reader.files.span(shard, 0, 0)
            while not self._stopped and (count := os.preadv(file.descriptor, [scratch], offset)):
                offset += count
        except (OSError, StorageError):
            return  # the decoder meets it, too


def _will_need(reader: SplitReader, rows: IndexRows) -> None:
    """Tell the system of samples in one call, the interpreter free.

    A call a sample, each of which takes the interpreter again, cost the stream of planes a fifth of its speed. What
    cannot be told is left out: who decodes it meets the same error and can name the sample.
    """
    (descriptors, offsets, _), held = located(reader, rows)
    lengths = rows["length"].astype(np.int64)
    if available() is None:
        extension().will_need(descriptors, offsets, lengths)
    else:
        with contextlib.suppress(OSError):
            for sample in zip(descriptors.tolist(), offsets.tolist(), lengths.tolist(), strict=True):
                os.posix_fadvise(*sample, os.POSIX_FADV_WILLNEED)
    del held  # open until here
