"""The local cache of object storage: whole shards in a folder, never more of them than it may hold.

A shard is `shards/SHA256.tar`, named by its content: whatever data set it is of, and wherever that lies, a file of that
name is that shard, whole and checked. It gets the name when it is, and is written under another one until then.

Processes share a folder by locks of the kernel, which go with the process that holds them, however it ends. Who writes
a shard holds its file alone, so that all others wait for it and nobody fetches it twice; who reads one holds its file
with all who do. What is held is not removed, so the limit is kept by what lies there, not by what is remembered; what a
process that was killed left is held by nobody, and is the first to go. No other file is ever touched.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from alexnet.shards.errors import InputError
from alexnet.shards.event_loop import on_a_thread
from alexnet.shards.manifest import ShardRecord
from alexnet.shards.storage import ReplacedError, Storage
from alexnet.shards.url import StorageError

_OWN = re.compile(r"([0-9a-f]{64})\.(tar|partial)")
_POLL_SECONDS = 0.02
_ROOM_PATIENCE_SECONDS = 120.0
"""How long a shard that is needed now waits for others to let go of theirs."""
_TRIES = 3  # at a shard whose bytes are not the manifest's: something on the way may have falsified them


class NoRoomError(StorageError):
    """Say that a shard finds no room in the cache."""


class _Cached(NamedTuple):
    path: Path
    sha256: str
    whole: bool
    bytes: int
    used: float


def cache_folder(named: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of a cache: the one that is named, or else the user's. Raises InputError without a home."""
    try:
        if named:
            return Path(named).expanduser().absolute()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "alexnet" / "remote"
    except RuntimeError:
        where = f"cache={named}: there is no such user" if named else "this user has no home folder for a cache"
        raise InputError(f"{where}; name a folder as cache, or in XDG_CACHE_HOME") from None


@dataclass(frozen=True)
class ShardCache:
    """Keep shards in a folder that takes at most `limit` bytes, with what else of data sets lies in it."""

    folder: Path
    limit: int

    async def opened(
        self, storage: Storage, record: ShardRecord, next_use: Mapping[str, int], *, wait: bool
    ) -> tuple[int, bool]:
        """Return a shard's descriptor, held as long as it is open, and whether it had to be fetched.

        `next_use`: by sha256, when the shards that are known will be needed, in order; the one needed last goes first,
        after those that are not known. `wait`: it is needed now, and others will let go of theirs; if not, NoRoomError
        is raised where only shards that are needed before it could go. Raises StorageError.
        """
        path = self.folder / "shards" / f"{record.sha256}.tar"
        partial = path.with_suffix(".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while (held := _read_held(path, record.bytes)) is None:
                written = _write_held(partial)
                if written is None:  # another fetches it
                    await asyncio.sleep(_POLL_SECONDS)
                    continue
                with contextlib.ExitStack() as unfinished:
                    unfinished.callback(_drop, partial, written)
                    if path.exists():  # another did, and holds it for a moment yet
                        await asyncio.sleep(_POLL_SECONDS)
                        continue
                    await self._reserve(written, record, next_use, wait=wait)
                    await _fetch(storage, record, written)
                    await on_a_thread(os.fsync, written)
                    partial.rename(path)
                    unfinished.pop_all()
                fcntl.flock(written, fcntl.LOCK_SH)
                return written, True
            return held, False
        except OSError as error:
            where = error.filename or self.folder
            raise StorageError(f"{where}: {error.strerror or error}; give another folder as stream.cache") from None

    async def _reserve(self, descriptor: int, record: ShardRecord, next_use: Mapping[str, int], *, wait: bool) -> None:
        """Make room and take it, for a file that is being written."""
        since = time.monotonic()
        while True:
            async with alone(self.folder / "lock"):
                if self._reserved(descriptor, record, next_use):
                    return
            if not wait or time.monotonic() - since > _ROOM_PATIENCE_SECONDS:
                raise NoRoomError(self._no_room(record))
            await asyncio.sleep(_POLL_SECONDS)

    def _reserved(self, descriptor: int, record: ShardRecord, next_use: Mapping[str, int]) -> bool:
        """Remove what may go until a shard has room on the disk; say whether it has now."""
        cached = self._cached()
        taken = sum(file.bytes for file in cached) + bytes_beside(self.folder)
        going = iter(_leaving(cached, record, next_use))
        while True:
            if taken + record.bytes <= self.limit:
                try:
                    os.posix_fallocate(descriptor, 0, record.bytes)
                    return True
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    os.ftruncate(descriptor, 0)
            file = next(going, None)
            if file is None:
                return False
            taken -= file.bytes if _removed(file.path) else 0

    def _cached(self) -> list[_Cached]:
        """Return the files that are ours: those named so, and no link."""
        found = []
        for entry in os.scandir(self.folder / "shards"):
            match = _OWN.fullmatch(entry.name)
            with contextlib.suppress(FileNotFoundError):
                if match and stat.S_ISREG((status := entry.stat(follow_symlinks=False)).st_mode):
                    used, size = status.st_mtime, status.st_size
                    found.append(_Cached(Path(entry.path), match[1], match[2] == "tar", size, used))
        return found

    def _no_room(self, record: ShardRecord) -> str:
        free = shutil.disk_usage(self.folder).free
        if free < record.bytes:
            return (
                f"{self.folder}: its disk has {free / 1e9:,.2f} GB free and {record.file} takes "
                f"{record.bytes / 1e9:,.2f} GB; make room, or give another folder as stream.cache"
            )
        return (
            f"{self.folder}: all that lies in its {self.limit / 1e9:,.2f} GB is in use, so that {record.file} finds no "
            "room; give a larger stream.cache_gb, or a folder of its own to each training as stream.cache"
        )


@asynccontextmanager
async def alone(lock: Path) -> AsyncIterator[None]:
    """Be the only one, of all processes, that holds a file, which is made if it is not there."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        while not _locked(descriptor, fcntl.LOCK_EX):
            await asyncio.sleep(_POLL_SECONDS)
        yield
    finally:
        let_go(descriptor)


async def _fetch(storage: Storage, record: ShardRecord, descriptor: int) -> None:
    """Write a shard to an open file, until its bytes are the manifest's."""
    for _ in range(_TRIES):
        with contextlib.suppress(ReplacedError):
            if await storage.fetch(record.file, descriptor, record.bytes) == record.sha256:
                return
    raise ReplacedError(
        f"{storage.url}/{record.file}: its sha256 is not the manifest's, {_TRIES} times: the shard was replaced or is "
        f"damaged; `alexnet-prep verify {storage.url}` says more"
    )


def _leaving(cached: list[_Cached], record: ShardRecord, next_use: Mapping[str, int]) -> Iterator[_Cached]:
    """Yield what may go for a shard, in this order.

    Parts of shards that nobody fetches any more; shards that are not known here, those not used for longest first; then
    those needed later than this one, the last first. That is the fewest fetches there can be (Belady 1966).
    """
    now = next_use.get(record.sha256, -1)
    strange = [file for file in cached if file.whole and file.sha256 not in next_use]
    later = [file for file in cached if file.whole and next_use.get(file.sha256, -1) > now]
    yield from (file for file in cached if not file.whole and file.sha256 != record.sha256)
    yield from sorted(strange, key=lambda file: file.used)
    yield from sorted(later, key=lambda file: -next_use[file.sha256])


def bytes_beside(folder: Path) -> int:
    """Return the bytes of what lies in a cache beside its shards: the small files of all data sets.

    They come and go with other processes.
    """
    count = 0
    for place, _, names in os.walk(folder / "sets"):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                count += Path(place, name).lstat().st_size
    return count


def let_go(descriptor: int) -> None:
    """Close a file that is held; a process that was forked meanwhile has it open, too, and must not hold it on."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _held_open(path: Path, flags: int, how: int) -> int | None:
    """Open a file and hold it; None if there is none, another holds it, or it is not the one of its name any more."""
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except FileNotFoundError:
        return None
    with contextlib.suppress(FileNotFoundError):
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise OSError(0, "is no regular file", str(path))
        if _locked(descriptor, how) and os.path.samestat(status, path.lstat()):
            return descriptor
    os.close(descriptor)
    return None


def _read_held(path: Path, size: int) -> int | None:
    """Open a whole shard, for all who read it, and note that it was used."""
    descriptor = _held_open(path, os.O_RDONLY, fcntl.LOCK_SH)
    if descriptor is None:
        return None
    if os.fstat(descriptor).st_size == size:
        with contextlib.suppress(OSError):  # of another user's file
            os.utime(descriptor)
        return descriptor
    path.unlink()  # somebody cut it short
    os.close(descriptor)
    return None


def _write_held(partial: Path) -> int | None:
    return _held_open(partial, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX)


def _removed(path: Path) -> bool:
    """Remove a file that nobody holds; say whether it is gone."""
    descriptor = _held_open(path, os.O_RDONLY, fcntl.LOCK_EX)
    if descriptor is None:
        return not path.exists()
    path.unlink()
    os.close(descriptor)
    return True


def _drop(partial: Path, descriptor: int) -> None:
    """Remove what becomes no shard, while it is still held."""
    partial.unlink(missing_ok=True)
    os.close(descriptor)
