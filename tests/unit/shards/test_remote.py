"""Where bytes come from that lie in object storage: broken off, closed, forked, and in a cache that others use."""

import asyncio
import contextlib
import os
import threading
from pathlib import Path

import obstore
import pytest

from alexnet.shards import cache as caching
from alexnet.shards.cache import ShardCache
from alexnet.shards.event_loop import loop
from alexnet.shards.remote import CachedShards, PartsOfShards
from alexnet.shards.storage import Storage
from alexnet.shards.url import StorageError
from tests.faulty_proxy import Fault, FaultyProxy
from tests.object_storage import ObjectServer
from tests.unit.shards.test_cache import BYTES, CONTENTS, ROOM_FOR_THREE, SHARDS, kept, use


@pytest.fixture
def s3(proxy: FaultyProxy, object_server: ObjectServer) -> Storage:
    """The first six of the cache's objects."""
    url = object_server.new_url()
    for record, content in zip(SHARDS[:6], CONTENTS, strict=False):
        obstore.put(object_server.store(url), record.file, content)
    return Storage(url)


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache", ROOM_FOR_THREE)


def test_what_is_broken_off_writes_to_no_other_file(
    cache: ShardCache, s3: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that writes goes on for a moment, when the number of its file may be another's."""
    writes, goes_on, wrote = threading.Event(), threading.Event(), threading.Event()
    pwrite = os.pwrite

    def slow_pwrite(descriptor: int, chunk: bytes, at: int) -> int:
        writes.set()
        goes_on.wait()
        try:
            return pwrite(descriptor, chunk, at)
        finally:
            wrote.set()

    monkeypatch.setattr(os, "pwrite", slow_pwrite)
    fetching = asyncio.run_coroutine_threadsafe(cache.opened(s3, SHARDS[5], {}, wait=True), loop())
    writes.wait()
    fetching.cancel()
    while list((cache.folder / "shards").iterdir()):
        s3.run(asyncio.sleep(0))
    s3.run(asyncio.sleep(0))
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context((tmp_path / str(n)).open("wb")) for n in range(16)]
        goes_on.set()
        wrote.wait()
        assert [os.fstat(other.fileno()).st_size for other in others] == [0] * 16


def test_what_a_forked_process_has_open_is_not_held(cache: ShardCache, s3: Storage) -> None:
    files = CachedShards(s3, SHARDS, cache)
    inherited = os.dup(files.file(0).descriptor)
    files.close()
    for shard in (1, 2, 3):
        use(cache, s3, shard)
    os.close(inherited)
    assert kept(cache) == {1, 2, 3}


def test_small_files_may_come_and_go_while_they_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sets" / "a").mkdir(parents=True)
    for name in ("index.npy", "gone.npy"):
        (tmp_path / "sets" / "a" / name).write_bytes(bytes(100))
    lstat = Path.lstat

    def lstat_after_another_process(path: Path) -> os.stat_result:
        if path.name == "gone.npy":
            raise FileNotFoundError(path)
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", lstat_after_another_process)
    assert caching.bytes_beside(tmp_path) == 100


def test_what_failed_ahead_is_tried_again_when_it_is_needed(cache: ShardCache, s3: Storage, proxy: FaultyProxy) -> None:
    files = CachedShards(s3, SHARDS, cache)
    proxy.spoil("000000", [Fault(status=403)])
    files.plan_shards([0], fetch=[0])
    while not all(future.done() for future in files._ahead.values()):
        s3.run(asyncio.sleep(0.005))
    assert os.pread(files.file(0).descriptor, BYTES, 0) == CONTENTS[0]


@pytest.mark.parametrize("whole", [True, False])
def test_closed_files_fetch_nothing_until_they_are_started(cache: ShardCache, s3: Storage, *, whole: bool) -> None:
    """Two threads may close a stream at once: what the first has stopped must not go on for the second."""
    files = CachedShards(s3, SHARDS, cache) if whole else PartsOfShards(s3, SHARDS)
    files.stop()
    files.close()
    with pytest.raises(StorageError, match="the stream was closed"):
        files.span(0, 0, 100)
    files.start()
    file, place = files.span(0, 0, 100)
    assert os.pread(file.descriptor, 100, place) == CONTENTS[0][:100]
