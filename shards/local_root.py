"""A folder that stands in for a data set at a URL.

It has all of the data set but the shards: manifest, index, mean image and rejects, fetched once and checked by the
manifest's sha256. Whatever reads a data set reads that folder; only a `SplitReader` asks where shards come from.
"""

import functools
import hashlib
import json
import os
import shutil
from pathlib import Path

from alexnet.shards.cache import alone, cache_folder
from alexnet.shards.errors import InputError
from alexnet.shards.event_loop import side_by_side
from alexnet.shards.files import MAX_JSON_BYTES
from alexnet.shards.manifest import MANIFEST_NAME, MEND, SPLITS, FileRecord, read_manifest
from alexnet.shards.storage import Storage
from alexnet.shards.url import ORIGIN_NAME, MissingError, StorageError, as_url


def local_root(where: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder to read a data set from: a path itself, of a URL the folder that stands in for it.

    `cache`: where that lies, if not in the user's. Raises InputError without a data set, StorageError if it cannot be
    had.
    """
    url = as_url(where)
    if url is None:
        return Path(where)
    storage, sets = Storage(url), cache_folder(cache) / "sets"
    try:
        text = storage.read(MANIFEST_NAME, MAX_JSON_BYTES)
    except MissingError:
        of_split = url.rpartition("/")[0] if url.endswith(SPLITS) else ""
        hint = f"this may be one split: give {of_split}" if of_split else "give the URL of a finished data set"
        raise InputError(f"{url}: holds no {MANIFEST_NAME}, which `alexnet-prep` puts there last; {hint}") from None
    root = sets / hashlib.sha256(url.encode() + b"\0" + text).hexdigest()[:32]
    try:
        sets.mkdir(parents=True, exist_ok=True)
        return storage.run(_stand_in(storage, text, root))
    except OSError as error:
        raise InputError(f"{error.filename or sets}: {error.strerror}; give another folder as stream.cache") from None


async def _stand_in(storage: Storage, manifest: bytes, root: Path) -> Path:
    """Fetch a data set's small files into a folder that appears when they are all there; processes take turns."""
    async with alone(root.parent / "lock"):
        if root.exists():
            return root
        partial = root.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        partial.mkdir()
        (partial / MANIFEST_NAME).write_bytes(manifest)
        (partial / ORIGIN_NAME).write_text(json.dumps({"url": storage.url}))
        try:
            records = read_manifest(partial).files
            await side_by_side(functools.partial(_fetch_file, storage, partial), records)
        except InputError as error:
            raise type(error)(str(error).replace(str(partial), storage.url)) from None
        partial.rename(root)
    return root


async def _fetch_file(storage: Storage, root: Path, record: FileRecord) -> None:
    with (root / record.file).open("wb") as file:
        sha256 = await storage.fetch(record.file, file.fileno(), record.bytes)
    if sha256 != record.sha256:
        raise StorageError(f"{storage.url}/{record.file}: is not the one that the manifest names; {MEND}")
