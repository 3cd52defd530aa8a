"""Read ahead in the known order of the epoch, so that storage is never waited for one image at a time.

The order of an epoch is known before it begins, so the bytes of coming batches can be asked for while others are
decoded. Two ways, by how the order lies on storage:

- Samples from anywhere (`global`): the system is told of each sample's bytes some batches ahead (`posix_fadvise`), and
  fetches hundreds of them at a time, which is what an NVMe disk or a network wants.
- Whole shards (`blocks`, and evaluation): the shards of the next window are read from front to back while the present
  window is used, which is what a spinning disk wants. That they are read is all: the system keeps them in memory.

This runs on a thread of its own, for both ways can block. It changes nothing about what a stream yields.
"""

import functools
import os
import threading

import numpy as np

from alexnet.pipeline.own_thread import own_thread
from alexnet.pipeline.plan import Planner
from alexnet.shards.reader import SplitReader

_BLOCK_BYTES = 4 << 20


class ReadAhead:
    """Have the system fetch what the batches up to `batches` after the one last begun will need.

    `first`: the first batch that will be begun, counted over all epochs. The thread ends with `close()`, and when this
    is garbage collected.
    """

    def __init__(self, reader: SplitReader, planner: Planner, first: int, batches: int) -> None:
        self._progress = _Progress(first)
        fetch = _fetch_windows if _wants_windows(planner) else _fetch_samples
        work = functools.partial(fetch, reader, planner, self._progress, batches)
        self.close = own_thread(self, "read-ahead", work, self._progress.stop)

    def begun(self, step_index: int) -> None:
        """Say that a batch is about to be decoded."""
        self._progress.move_to(step_index)


class _Progress:
    """Where the stream is; lets the thread wait until it has got somewhere."""

    def __init__(self, first: int) -> None:
        self.first = first
        self._at = first
        self._stopped = False
        self._changed = threading.Condition()

    def move_to(self, step_index: int) -> None:
        with self._changed:
            self._at = step_index
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    @property
    def stopped(self) -> bool:
        return self._stopped

    def wait_for(self, step_index: int) -> int | None:
        """Wait until the stream is at a batch or beyond; return where it is, None if it was stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._at >= step_index)
            return None if self._stopped else self._at


def _wants_windows(planner: Planner) -> bool:
    return not planner.settings.shuffle or planner.settings.locality.order == "blocks"


def _fetch_samples(reader: SplitReader, planner: Planner, progress: _Progress, batches: int) -> None:
    """Tell the system of each sample's bytes, so many batches ahead."""
    coming = progress.first
    while (at := progress.wait_for(coming - batches)) is not None:
        coming = max(coming, at)  # what is begun already needs no telling
        rows = np.sort(reader.rows(planner.sample_ids(*divmod(coming, planner.steps))), order=["shard", "offset"])
        for shard, offset, length in zip(*(rows[name].tolist() for name in ("shard", "offset", "length")), strict=True):
            try:
                os.posix_fadvise(reader.file(shard).descriptor, offset, length, os.POSIX_FADV_WILLNEED)
            except OSError:
                continue  # who decodes it will meet the same error and can name the sample
        coming += 1


def _fetch_windows(reader: SplitReader, planner: Planner, progress: _Progress, _: int) -> None:
    """Read the shards of a window from front to back while the window before it is used."""
    epoch, step = divmod(progress.first, planner.steps)
    position = step * planner.settings.batch_images
    scratch = memoryview(bytearray(_BLOCK_BYTES))
    begin = progress.first
    while True:
        for window in planner.windows(epoch):
            if window.positions.stop <= position:
                continue  # the stream began after it
            if progress.wait_for(begin) is None:
                return
            for shard in window.shards.tolist():
                if not _read_through(reader, shard, scratch, progress):
                    return
            # The next window is read when the stream begins this one.
            first_step = max(window.positions.start, position) // planner.settings.batch_images
            begin = epoch * planner.steps + min(first_step, planner.steps - 1)
        epoch, position = epoch + 1, 0


def _read_through(reader: SplitReader, shard: int, scratch: memoryview, progress: _Progress) -> bool:
    """Read a shard from front to back and forget it: it is in the system's cache then. False if stopped."""
    offset = 0
    try:
        file = reader.file(shard)
        while not progress.stopped:
            count = os.preadv(file.descriptor, [scratch], offset)
            if count == 0:
                return True
            offset += count
    except OSError:
        return not progress.stopped  # as above
    return False
