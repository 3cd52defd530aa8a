"""What storage and memory can do by themselves: shards read from front to back, blocks of memory copied."""

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.measuring.page_cache import cached_share
from alexnet.tools.bench.measuring.stages_seam import CannotRunError, Stage, StageSettings, Work

_BLOCK_BYTES = 4 << 20
_MOST_BYTES = 2 << 30  # of shards that are read: more would push the other rows' data out of the system's cache
_MOST_COLD_BYTES = 512 << 20  # they are read twice a round, and a slow disk must have answered in time
_COPY_BYTES = 256 << 20
_STILL_CACHED = 0.05


def storage(settings: StageSettings, *, cold: bool) -> Stage:
    """Read shards from front to back with one thread; before each cold pass, have the system forget them.

    After a cold round they are read in again, for the other rows: so the next one must not go on where it ended.
    """
    reader = SplitReader(settings.data, settings.split)
    most = _MOST_COLD_BYTES if cold else _MOST_BYTES
    files = _some(settings.data, [(shard.file, shard.bytes) for shard in reader.shards], most)
    image_bytes = reader.jpeg_bytes() / len(reader)
    whole_bytes = sum(path.stat().st_size for path in files)

    def once() -> Work:
        scratch = memoryview(bytearray(_BLOCK_BYTES))
        for path in files:
            with path.open("rb", buffering=0) as file:
                while count := file.readinto(scratch):
                    yield round(count / image_bytes), count

    def restore() -> None:
        for _ in once():
            pass

    words = f"1 thread, blocks of 4 MiB, {len(files)} of {len(reader.shards)} shards, {whole_bytes / 1e6:,.0f} MB"
    if not cold:
        restore()
        return Stage(work=once, settings=words)
    words += "; the host of a virtual machine may still have cached them"
    forget = partial(_forget, files)
    return Stage(work=once, settings=words, before_pass=forget, after_round=restore, starts_over=True)


def memory_copy(threads: int) -> Stage:
    """Copy blocks of memory to others, with a thread each."""
    source, target = (np.ones((threads, _COPY_BYTES // threads), np.uint8) for _ in range(2))
    pool = ThreadPoolExecutor(threads)

    def work() -> Work:
        while True:
            list(pool.map(np.copyto, target, source))
            yield 0, source.nbytes

    return Stage(work=work, settings=f"{threads} threads, {_COPY_BYTES >> 20} MiB; bytes are counted once")


def _some(root: Path, shards: Sequence[tuple[str, int]], most_bytes: int) -> list[Path]:
    """Take shards until there is enough to read."""
    chosen, held = [], 0
    for file, size in shards:
        chosen.append(root / file)
        held += size
        if held >= most_bytes:
            break
    return chosen


def _forget(files: Sequence[Path]) -> None:
    """Have the system drop files from its cache. Raises CannotRunError if it does not, or does not say."""
    for path in files:
        with path.open("rb") as file:
            with contextlib.suppress(OSError):  # a file system that is read-only has nothing to write
                os.fsync(file.fileno())  # what is not yet written cannot be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    still = cached_share(files)
    if still is None:
        raise CannotRunError("this system does not say what is cached, or only to who may write the shards")
    if still > _STILL_CACHED:
        raise CannotRunError(f"the system keeps {still:.0%} of the shards in its cache when told to forget them")
