"""The cache of whole shards: what it fetches, what it keeps and removes, and who shares it."""

import asyncio
import contextlib
import errno
import hashlib
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import obstore
import pytest

from alexnet.shards import cache as caching
from alexnet.shards.cache import NoRoomError, ShardCache
from alexnet.shards.manifest import ShardRecord
from alexnet.shards.storage import Storage
from alexnet.shards.url import StorageError
from tests.cache_watch import watched
from tests.faulty_proxy import Fault, FaultyProxy
from tests.object_storage import ObjectServer

BYTES = 20_000
CONTENTS = [random.Random(i).randbytes(BYTES) for i in range(8)]
SHARDS = [
    ShardRecord(
        split="train", file=f"train/{i:06}.tar", images=1, bytes=BYTES, sha256=hashlib.sha256(content).hexdigest()
    )
    for i, content in enumerate(CONTENTS)
]
ROOM_FOR_THREE = 3 * BYTES + BYTES // 2


@pytest.fixture
def s3(proxy: FaultyProxy, object_server: ObjectServer) -> Storage:
    """Eight objects."""
    url = object_server.new_url()
    for record, content in zip(SHARDS, CONTENTS, strict=True):
        obstore.put(object_server.store(url), record.file, content)
    return Storage(url)


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache", ROOM_FOR_THREE)


def opened(cache: ShardCache, storage: Storage, shard: int, coming: Sequence[int] = (), *, wait: bool = True) -> int:
    """Open a shard with what is known of those to come; its bytes must be right. Return the descriptor."""
    next_use = {SHARDS[other].sha256: place for place, other in reversed(list(enumerate([shard, *coming])))}
    descriptor, _ = storage.run(cache.opened(storage, SHARDS[shard], next_use, wait=wait))
    assert os.pread(descriptor, BYTES + 1, 0) == CONTENTS[shard]
    return descriptor


def use(cache: ShardCache, storage: Storage, shard: int, coming: Sequence[int] = ()) -> None:
    os.close(opened(cache, storage, shard, coming))


def kept(cache: ShardCache) -> set[int]:
    """Return which shards lie in a cache; nothing else may."""
    names = [record.sha256 + ".tar" for record in SHARDS]
    return {names.index(path.name) for path in (cache.folder / "shards").iterdir()}


def fetched(proxy: FaultyProxy) -> list[int]:
    """Return the shards that were asked for, in order."""
    return [int(re.findall(r"(\d{6})\.tar", asked.path)[0]) for asked in proxy.asked_for(".tar")]


def test_a_shard_is_fetched_once_and_kept(cache: ShardCache, s3: Storage, proxy: FaultyProxy) -> None:
    for _ in range(3):
        use(cache, s3, 5)
    use(ShardCache(cache.folder, cache.limit), Storage(s3.url), 5)
    assert fetched(proxy) == [5]
    assert kept(cache) == {5}


def test_who_asks_while_it_is_fetched_waits(cache: ShardCache, s3: Storage, proxy: FaultyProxy) -> None:
    async def at_once() -> list[tuple[int, bool]]:
        caches = [ShardCache(cache.folder, cache.limit) for _ in range(8)]
        return await asyncio.gather(*(one.opened(s3, SHARDS[5], {}, wait=True) for one in caches))

    proxy.spoil("000005", [Fault(status=503), Fault(cut_at=10_000), Fault(delay_s=0.05)])
    found = s3.run(at_once())
    assert [os.pread(descriptor, BYTES + 1, 0) for descriptor, _ in found] == [CONTENTS[5]] * 8
    assert sorted(was_fetched for _, was_fetched in found) == [False] * 7 + [True]
    assert fetched(proxy) == [5] * 3, "two that failed, and one"
    for descriptor, _ in found:
        os.close(descriptor)


def fewest_fetches(order: Sequence[int], room: int) -> int:
    """Return how often shards must be fetched at least, by trying all that may be let go (small cases only)."""
    states = {frozenset[int](): 0}
    for shard in order:
        after: dict[frozenset[int], int] = {}
        for state, count in states.items():
            full = shard not in state and len(state) == room
            for going in state if full else [None]:
                then = state - {going} | {shard}
                after[then] = min(count + (shard not in state), after.get(then, count + 1))
        states = after
    return min(states.values())


def test_it_fetches_as_rarely_as_can_be(cache: ShardCache, s3: Storage, proxy: FaultyProxy) -> None:
    """And never holds more than it may."""
    order = [shard for epoch in range(4) for shard in random.Random(epoch).sample(range(len(SHARDS)), len(SHARDS))]
    with watched(cache.folder / "shards", cache.limit):
        for place, shard in enumerate(order):
            use(cache, s3, shard, order[place + 1 :])
            assert len(kept(cache)) <= 3
    assert len(fetched(proxy)) == fewest_fetches(order, 3)


def test_what_is_read_is_not_removed(cache: ShardCache, s3: Storage, proxy: FaultyProxy) -> None:
    held = [opened(cache, s3, shard) for shard in range(3)]
    assert kept(cache) == {0, 1, 2}
    with pytest.raises(NoRoomError, match=r"finds no room; give a larger stream\.cache_gb"):
        opened(cache, s3, 3, wait=False)
    os.close(held[1])
    use(cache, s3, 3)
    assert kept(cache) == {0, 2, 3}
    assert os.pread(held[0], BYTES, 0) == CONTENTS[0]


def test_reading_ahead_takes_no_room_from_what_is_needed_before(cache: ShardCache, s3: Storage) -> None:
    for shard in (0, 1, 2):
        use(cache, s3, shard)
    next_use = {SHARDS[shard].sha256: place for place, shard in enumerate([0, 1, 2, 3])}
    with pytest.raises(NoRoomError):
        s3.run(cache.opened(s3, SHARDS[3], next_use, wait=False))
    assert kept(cache) == {0, 1, 2}


def test_room_that_does_not_come_is_said(cache: ShardCache, s3: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "_ROOM_PATIENCE_SECONDS", 0.05)
    for shard in range(3):
        opened(cache, s3, shard)
    with pytest.raises(NoRoomError, match="is in use") as caught:
        opened(cache, s3, 3)
    assert "\n" not in str(caught.value)
    assert kept(cache) == {0, 1, 2}, "and no part of the fourth is left"


def test_bytes_that_are_not_the_manifests_are_fetched_again_and_never_kept(
    cache: ShardCache, s3: Storage, proxy: FaultyProxy
) -> None:
    proxy.spoil("000005", [Fault(flip_at=7), Fault(flip_at=BYTES - 1)])
    use(cache, s3, 5)
    assert fetched(proxy) == [5, 5, 5]
    proxy.spoil("000006", itertools.repeat(Fault(flip_at=7)))
    with pytest.raises(StorageError, match=r"000006.tar: its sha256 is not the manifest's.*alexnet-prep verify"):
        opened(cache, s3, 6)
    assert kept(cache) == {5}


def test_a_shard_that_was_replaced_is_said(cache: ShardCache, s3: Storage, object_server: ObjectServer) -> None:
    obstore.put(object_server.store(s3.url), SHARDS[5].file, CONTENTS[6])
    with pytest.raises(StorageError, match="the shard was replaced or is damaged"):
        opened(cache, s3, 5)
    obstore.put(object_server.store(s3.url), SHARDS[5].file, CONTENTS[6] + b"more")
    with pytest.raises(StorageError, match="has 20,004 bytes where 20,000 are expected"):
        opened(cache, s3, 5)
    assert kept(cache) == set()


def test_no_file_of_others_is_touched(cache: ShardCache, s3: Storage, tmp_path: Path) -> None:
    folder = cache.folder / "shards"
    (folder / f"{'a' * 64}.tar").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.write_bytes(bytes(BYTES))
    for link in (folder / f"{'b' * 64}.tar", folder / f"{SHARDS[7].sha256}.tar"):
        link.symlink_to(outside)
    others = [folder / name for name in ("notes.txt", f"{'c' * 64}.tar.bak", f"{'C' * 64}.tar", "000000.tar")]
    others += [cache.folder / "notes.txt", cache.folder / f"{'d' * 64}.tar", outside]
    for path in others:
        path.write_bytes(bytes(BYTES))
    before = set(folder.iterdir())
    for shard in range(6):
        use(cache, s3, shard)
    with pytest.raises(StorageError, match="give another folder"):
        opened(cache, s3, 7)
    assert before < set(folder.iterdir())
    assert all(path.read_bytes() == bytes(BYTES) for path in others)


def test_a_shard_that_was_cut_short_is_fetched_again(cache: ShardCache, s3: Storage, proxy: FaultyProxy) -> None:
    use(cache, s3, 5)
    with (cache.folder / "shards" / f"{SHARDS[5].sha256}.tar").open("r+b") as file:
        file.truncate(100)
    use(cache, s3, 5)
    assert fetched(proxy) == [5, 5]


FETCHES = """
import sys
from pathlib import Path
from alexnet.shards.cache import ShardCache
from alexnet.shards.storage import Storage
from tests.unit.shards.test_cache import ROOM_FOR_THREE, opened
storage = Storage(sys.argv[1])
for shard in map(int, sys.argv[3:]):
    opened(ShardCache(Path(sys.argv[2]), ROOM_FOR_THREE), storage, shard)
"""


def test_what_a_killed_process_left_goes_first(cache: ShardCache, s3: Storage, proxy: FaultyProxy) -> None:
    proxy.spoil("000006", [Fault(cut_at=10_000), Fault(delay_s=60)])
    arguments = [sys.executable, "-c", FETCHES, s3.url, str(cache.folder), "5", "6"]
    with subprocess.Popen(arguments, cwd=Path(__file__).parents[3]) as process:
        while fetched(proxy).count(6) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    left = cache.folder / "shards" / f"{SHARDS[6].sha256}.partial"
    assert left.exists()
    use(cache, s3, 5)
    for shard in (0, 1):
        use(cache, s3, shard, [5])
    assert not left.exists()
    assert kept(cache) == {0, 1, 5}
    use(cache, s3, 6)
    assert fetched(proxy).count(5) == 1


def test_a_full_disk_is_made_room_on_and_said_when_there_is_none(
    cache: ShardCache, s3: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cache.folder / "shards"

    def fallocate(descriptor: int, offset: int, length: int) -> None:
        """Stand for a disk that takes two shards."""
        if sum(path.stat().st_size for path in folder.iterdir()) + length > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.truncate(descriptor, length)

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    monkeypatch.setattr(caching, "_ROOM_PATIENCE_SECONDS", 0.05)
    room = 2 * BYTES
    for shard in range(4):
        use(cache, s3, shard)
        assert len(kept(cache)) <= 2
    room = 0
    with pytest.raises(StorageError, match=re.escape(str(cache.folder))):
        opened(cache, s3, 4)
    assert kept(cache) == set()


def test_a_folder_that_cannot_be_written_is_said(cache: ShardCache, s3: Storage) -> None:
    cache.folder.write_text("a file")
    with pytest.raises(StorageError, match=r"cache.*give another folder as stream\.cache"):
        opened(cache, s3, 4)


def test_what_is_broken_off_leaves_nothing(cache: ShardCache, s3: Storage, proxy: FaultyProxy) -> None:
    async def broken_off() -> None:
        task = asyncio.ensure_future(cache.opened(s3, SHARDS[5], {}, wait=True))
        while not fetched(proxy):
            await asyncio.sleep(0.005)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    proxy.spoil("000005", [Fault(delay_s=60)])
    s3.run(broken_off())
    assert kept(cache) == set()
    use(cache, s3, 5)
