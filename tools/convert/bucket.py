"""Object storage that a data set is written to: `--out s3://...`.

The conversion runs as in any folder, in a *staging folder* whose name says where all goes. A shard is put into the
bucket as soon as it is whole, its tar last, and its place on the disk is given back: a file of its size without bytes
stays. So a tar in the bucket is done; and the bucket alone says what is, so that any machine can go on (`staging`).

Whose the bucket's prefix is, `.work/job.json` says there, too. It is written once, by whoever comes first, and looked
at before a shard is put and before the manifest is.
"""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import MANIFEST_NAME, SPLITS, ShardRecord, dali_index_file
from alexnet.shards.url import MissingError, StorageError, as_url
from alexnet.tools.console import StoppedError
from alexnet.tools.output_folder import JOB, WORK

Shard = TypeVar("Shard")

_NAME_BYTES = 255  # of a folder
_MOST_BYTES = 1 << 28  # of a shard's notes, whose images may have 3,000 px


def folder_for(out: Path, cache: Path | None) -> Path:
    """Return the folder that a data set is written in: `out` or, of a URL, one in `cache`.

    Raises InputError for a URL that cannot be written.
    """
    url = as_url(out)
    if url is None:
        return out
    from alexnet.shards.cache import cache_folder

    name = quote(url, safe="")
    if url.startswith("http"):
        raise InputError(f"--out {url}: can only be read; s3://, gs:// and az:// can be written, with an endpoint too")
    if len(name) > _NAME_BYTES:
        raise InputError(f"--out {url}: is too long by {len(name) - _NAME_BYTES:,} characters")
    return cache_folder(cache) / "staging" / name


@functools.cache
def bucket_of(root: Path) -> "Bucket | None":
    """Return where the files of a staging folder go; None for any other folder."""
    url = as_url(unquote(root.name))
    return Bucket(url, root) if url else None


def destination_of(root: Path) -> str:
    """Return the name of the place where the data set comes to lie: a folder or a URL."""
    bucket = bucket_of(root)
    return bucket.url if bucket else str(root)


def disk_option(root: Path) -> str:
    """Return the option, with its value, that says which disk a data set is written on."""
    return f"--cache {root.parent.parent}" if bucket_of(root) else f"--out {root}"


def at_once(root: Path, shards: Sequence[Shard], workers: int) -> Sequence[Shard]:
    """Return the shards that take disk space at one time: all, or as many as are at work."""
    return shards[: max(1, workers)] if bucket_of(root) else shards


@contextmanager
def _to_go_on() -> Iterator[None]:
    """Turn a StorageError into a StoppedError: what is there stays, and the same command goes on."""
    try:
        yield
    except StorageError as error:
        raise StoppedError(f"{error}; mend it and give the same command again") from None


class Bucket:
    """Put the files of a staging folder below a URL. `there`: the sizes of the objects there that are the program's.

    What cannot be read at the start is a StorageError, and what cannot be put a StoppedError.
    """

    def __init__(self, url: str, root: Path) -> None:
        self.url, self._root = url, root
        from alexnet.shards.storage import Storage  # what needs a network is loaded for a URL

        self._storage = Storage(url)
        self._job = b""
        self.there: dict[str, int] = {}

    def list(self) -> dict[str, int]:
        """Return the sizes of all objects."""
        return self._storage.list()

    def fetch(self, names: Iterable[str]) -> None:
        """Bring objects that are there into the folder."""
        from alexnet.shards.event_loop import side_by_side

        async def fetch(name: str) -> None:
            with (self._root / name).open("wb") as file:
                await self._storage.fetch(name, file.fileno(), self.there[name])

        self._storage.run(side_by_side(fetch, names))

    @_to_go_on()
    def claim(self, job: bytes) -> None:
        """Have the prefix say whose it is. Raises StoppedError if another run took it since it was listed."""
        local = self._root / JOB
        found = local.read_bytes() if local.exists() else None
        try:
            if found is None:
                self._storage.put(JOB, job, new=True)
        except FileExistsError:
            found = job  # perhaps of this call, whose answer was lost
        if found is not None:
            self._check_whose(found)
            if found != job:
                self._storage.put(JOB, job)
        self._job = job

    @_to_go_on()
    def put_shard(self, record: ShardRecord, notes: str) -> None:
        """Put a whole shard, its tar last, and give its place on the disk back."""
        self._check_whose((self._root / JOB).read_bytes())
        if not self._has(record, notes):
            for name in (notes, dali_index_file(record.file), record.file):
                self.put(name)
        stand_in(self._root / record.file, record.bytes)

    @_to_go_on()
    def put(self, name: str) -> None:
        """Put a file."""
        self._storage.put(name, self._root / name)

    @_to_go_on()
    def tidy(self, shards: Sequence[ShardRecord], known: Callable[[str], bool]) -> None:
        """Have below the URL the shards that were put, and no other: a run that was replaced may have put some since.

        `known`: says of a name that it is the program's. Raises StoppedError if one must be put again.
        """
        if MANIFEST_NAME in self.there:  # it was finished before: what else came there is not ours
            return
        self._check_whose(self._job)
        listed = self.list()
        index_of = {record.file: dali_index_file(record.file) for record in shards}
        if other := [r.file for r in shards if listed.get(r.file) != r.bytes or index_of[r.file] not in listed]:
            self._storage.delete(other)
            raise StoppedError(f"{self.url}/{other[0]}: was replaced or deleted meanwhile; give the same command again")
        ours = {*index_of, *index_of.values()}
        strays = [name for name in listed if name.startswith(SPLITS) and known(name) and name not in ours]
        self._storage.delete(strays)
        for name in strays:
            (self._root / name).unlink(missing_ok=True)

    @_to_go_on()
    def finish(self, names: Iterable[str]) -> None:
        """Put what is beside the shards, the manifest last; then leave nothing but the data set."""
        complete = MANIFEST_NAME in self.there
        if not complete:
            self._check_whose(self._job)
        for name in sorted(names, key=lambda name: name == MANIFEST_NAME):
            if not (complete and name in self.there):
                self.put(name)
        self._storage.delete(name for name in (self.there if complete else self.list()) if name.startswith(f"{WORK}/"))

    @_to_go_on()
    def clear(self, mark: str) -> None:
        """Delete the program's objects; a `mark` shows that until the last is gone."""
        if self.there:
            self._storage.put(mark, b"")
            self._storage.delete([MANIFEST_NAME, JOB])
            self._storage.delete(set(self.there) - {mark})
            self._storage.delete([mark])
            self.there = {}

    def _has(self, record: ShardRecord, notes: str) -> bool:
        """Say whether a shard is there, put by another run of the same job; a tar of other notes is deleted."""
        try:
            size = self._storage.run(self._storage.size(record.file))
        except MissingError:
            return False
        if size == record.bytes and self._read(notes) == (self._root / notes).read_bytes():
            return True
        self._storage.delete([record.file])
        return False

    def _read(self, name: str) -> bytes:
        try:
            return self._storage.read(name, _MOST_BYTES)
        except MissingError:
            return b""

    def _check_whose(self, job: bytes) -> None:
        if self._read(JOB) != job:
            raise StoppedError(
                f"{self.url}: another alexnet-prep finished it, or began anew, since this one began; give the same "
                "command again when it is done"
            )


def stand_in(path: Path, size: int) -> None:
    """Make a file of a size that takes no disk space."""
    with path.open("wb") as file:
        os.truncate(file.fileno(), size)
