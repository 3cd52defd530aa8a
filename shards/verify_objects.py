"""Verify a data set in object storage by copies: the small files stay until the end, each tar while it is looked at.

So the disk holds as many tars as there are workers.
"""

import functools
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.shards.event_loop import side_by_side
from alexnet.shards.files import CHECKSUMS_NAME
from alexnet.shards.info import INFO_NAME
from alexnet.shards.manifest import FILES, MANIFEST_NAME
from alexnet.shards.storage import Storage
from alexnet.shards.url import MissingError
from alexnet.shards.verify_files import FolderFiles


@dataclass(frozen=True)
class StoredFiles(FolderFiles):
    """Reach objects below a URL by copies of them below `root`; it pickles, for workers."""

    url: str

    @property
    def name(self) -> str:
        """Return the URL."""
        return self.url

    @property
    def lists(self) -> bool:
        """Say that http has no lists."""
        return not self.url.startswith("http")

    def sizes(self, wanted: Iterable[str]) -> dict[str, int | None]:
        """Return the bytes of all objects or, where they cannot be listed, of what is wanted as far as it is there."""
        found = _storage(self.url).list() if self.lists else self.sizes_of(wanted)
        return {name: found[name] for name in sorted(found, key=os.fsencode)}

    def bring(self, names: Iterable[str]) -> None:
        """Fetch objects that are not here yet. Raises InputError if they cannot be had or kept."""
        absent = [name for name in names if not (self.root / name).exists()]
        _storage(self.url).run(side_by_side(self._fetch, absent))

    @contextmanager
    def at_hand(self, name: str) -> Iterator[None]:
        """Fetch an object, if it is not here, and delete the copy afterwards."""
        if (self.root / name).exists():
            yield
            return
        self.bring([name])
        try:
            yield
        finally:
            (self.root / name).unlink(missing_ok=True)

    def sizes_of(self, names: Iterable[str]) -> dict[str, int]:
        """Return the bytes of those objects that are there; a name that leads elsewhere is none of an object's."""
        named = [n for n in names if n.isprintable() and not {"", ".", ".."}.intersection(n.split("/"))]
        found = _storage(self.url).run(side_by_side(self._size, named))
        return {name: size for name, size in zip(named, found, strict=True) if size is not None}

    async def _size(self, name: str) -> int | None:
        try:
            return await _storage(self.url).size(name)
        except MissingError:
            return None

    async def _fetch(self, name: str) -> None:
        path, storage = self.root / name, _storage(self.url)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                await storage.fetch(name, file.fileno(), await storage.size(name))
        except OSError as error:
            reason = f"{self.url}/{name}: cannot be kept in {self.root} ({error.strerror})"
            raise InputError(f"{reason}; set TMPDIR to a folder with room for a shard a worker") from None


@contextmanager
def objects_below(url: str) -> Iterator[StoredFiles]:
    """Reach the objects of a data set while a block runs. Raises InputError if there is none."""
    with tempfile.TemporaryDirectory(prefix="alexnet-verify-") as folder:
        files = StoredFiles(Path(folder), url)
        files.bring(files.sizes_of((MANIFEST_NAME, CHECKSUMS_NAME, *FILES, INFO_NAME)))
        if not any((files.root / name).exists() for name in (MANIFEST_NAME, CHECKSUMS_NAME)):
            raise InputError(f"{url}: holds no {MANIFEST_NAME}; give the URL of what `alexnet-prep` wrote to the end")
        yield files


@functools.cache
def _storage(url: str) -> Storage:
    return Storage(url)
