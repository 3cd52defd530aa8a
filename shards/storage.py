"""Object storage: read and write what lies below a URL, `s3://`, `gs://`, `az://` or `http(s)://`, by obstore.

All requests of a process run on one thread with an event loop, hundreds at a time, and can be broken off at any moment.
What fails is tried again, a body that was cut from where it ended, until nothing has moved for minutes: connections
break, servers are busy and names cannot be looked up for a while in every training of days. What no trying again mends
(no such object, no permission) is one line at once. A line names the object and the reason, and never a credential.

obstore is loaded with the first URL.
"""

import asyncio
import contextlib
import errno
import functools
import hashlib
import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote

from alexnet.shards.errors import InputError, one_line
from alexnet.shards.event_loop import loop, on_a_thread
from alexnet.shards.files import begin_to_put_on_disk
from alexnet.shards.shard_files import OpenFile
from alexnet.shards.url import MissingError, StorageError, Traffic, options_given

T = TypeVar("T")

_PATIENCE_SECONDS, _FIRST_PATIENCE_SECONDS = 300.0, 20.0
"""How long nothing may arrive before it is an error: once something did, and before, where settings may be wrong."""
_BACKOFF_SECONDS, _MOST_BACKOFF_SECONDS = 0.1, 10.0
_CHUNK_BYTES = 1 << 20  # 4 MiB, mapped anew for each, took 0.5 ms a megabyte more
_STATUS = re.compile(r"status code: (\d{3}[^:\n]*)")
_DETAILS = re.compile(r"<(?:Code|Message)>([^<]+)<|message: \"([^\"]+)\"|(dns error)")
_REQUEST = re.compile(r"Error performing \S+ \S+ in [^-]+ - |\bhttps?://\S+")
_BUSY = frozenset({"408", "429"})  # which pass, as no other 4xx does
_PANIC = "RustPanic"  # of obstore, over a setting that cannot be sent, as a key with a line break
_ENDPOINTS = ("endpoint", "endpoint_url", "endpoint_url_s3")
_SEE = "; see --storage-option and the environment"
_NO_METHOD = "501"  # the only 5xx that does not: plain web servers list nothing
_CLIENT = {"timeout": "1day", "connect_timeout": "5s", "read_timeout": "15s"}  # obstore has 30 s for a whole body
_SENDS = {"read_timeout": "5min"}  # begins with the request: sends four parts of 5 MB at 70 kB/s
_PARTS_SENT, _PART_RETRIES = 4, 8  # of a large object; one part that fails must not cost the others
_CLIENT_OPTION = re.compile(r"allow_\w+|\w*timeout|http[12]_only|pool_\w+|proxy_\w+|root_certificate|user_agent")


class ReplacedError(StorageError):
    """Say that an object is another than it was when it was first read."""


class Storage:
    """Read and write the objects below a URL, named by their paths there; from any thread.

    Every method that waits raises StorageError in one line when an object cannot be had. `traffic`: what went over the
    network so far. `store`: obstore's own. Raises InputError for options that are none.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.traffic = Traffic()
        self.store, self._outbox = _store(url), _store(url, sends=True)
        self._etags: dict[str, str] = {}
        self._worked = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work on the event loop and wait for it; broken off here, as by Ctrl-C, it ends there, too."""
        future = asyncio.run_coroutine_threadsafe(work, loop())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def read(self, name: str, most: int) -> bytes:
        """Read a small object. Raises MissingError if there is none, StorageError if it has more than `most`."""

        async def attempt() -> bytes:
            result = await self._get(name)
            if result.meta["size"] > most:
                raise StorageError(f"{self.url}/{name}: has {result.meta['size']:,} bytes; at most {most:,} are right")
            return bytes(await result.bytes_async())

        return self.run(self._tried(name, attempt))

    async def fetch(self, name: str, descriptor: int, size: int) -> str:
        """Write a whole object of `size` bytes to an open file, from its start; return the sha256 of what was written.

        Raises StorageError if it has another size, ReplacedError if it is replaced meanwhile.
        """
        digest, at, etag = hashlib.sha256(), 0, None
        own = OpenFile(os.dup(descriptor))  # what is broken off may write once more: not to the next file of its number

        def take(chunk: Any) -> None:
            nonlocal at
            digest.update(chunk)
            first, at = at, at + os.pwrite(own.descriptor, chunk, at)
            if at - first < len(chunk):  # what is left over is not blamed on the network
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            begin_to_put_on_disk(own.descriptor, first, at)  # else the network waits for the disk at a shard's end

        async def attempt() -> None:
            nonlocal etag
            result = await self._get(name, {"range": {"offset": at}} if at else {}, etag)
            etag = etag or result.meta["e_tag"]
            if result.meta["size"] != size:
                raise StorageError(f"{self.url}/{name}: has {result.meta['size']:,} bytes where {size:,} are expected")
            async for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
                if at + len(chunk) > size:
                    raise StorageError(f"{self.url}/{name}: sends more than the {size:,} bytes that it has")
                # Hashing takes 1.5 ms a megabyte, and lets other threads run.
                await on_a_thread(take, chunk)
                self.traffic.bytes += len(chunk)
            if at != size:
                raise ConnectionError(f"it ended after {at:,} of {size:,} bytes")

        await self._tried(name, attempt, moved=lambda: at)
        own.close()
        return digest.hexdigest()

    async def part(self, name: str, first: int, end: int, size: int) -> bytes:
        """Return bytes `first` to `end` of an object of `size` bytes, which must stay the one it was at first.

        Raises StorageError if it has another size, ReplacedError if it was replaced.
        """

        async def attempt() -> bytes:
            result = await self._get(name, {"range": (first, end)}, self._etags.get(name))
            if result.meta["size"] != size:
                raise StorageError(f"{self.url}/{name}: has {result.meta['size']:,} bytes where {size:,} are expected")
            self._etags.setdefault(name, result.meta["e_tag"] or "")
            content = bytes(await result.bytes_async())
            if len(content) != end - first:
                raise ConnectionError(f"it sent {len(content):,} of {end - first:,} bytes")
            self.traffic.bytes += len(content)
            return content

        return await self._tried(name, attempt)

    def put(self, name: str, content: Path | bytes, *, new: bool = False) -> None:
        """Write an object whole. `new`: raise FileExistsError if there is one, unless `conditional_put` is disabled."""
        send = functools.partial(_obstore().put_async, self._outbox, name, content, max_concurrency=_PARTS_SENT)

        async def attempt() -> None:
            self.traffic.requests += 1
            try:
                await send(mode="create" if new else "overwrite")
            except NotImplementedError:
                await send()

        self.run(self._tried(name, attempt))
        self.traffic.bytes += len(content) if isinstance(content, bytes) else content.stat().st_size

    def list(self) -> dict[str, int]:
        """Return the sizes of all objects, by path. Raises StorageError where it cannot be listed, as most http."""

        async def attempt() -> dict[str, int]:
            self.traffic.requests += 1
            return {meta["path"]: meta["size"] async for some in _obstore().list(self.store) for meta in some}

        found = self.run(self._tried("", attempt))
        folders = {"", *(str(folder) for name in found for folder in PurePosixPath(name).parents)}  # of consoles: empty
        return {name: size for name, size in found.items() if size or name not in folders}

    async def size(self, name: str) -> int:
        """Return an object's bytes. Raises MissingError if there is none."""

        async def attempt() -> int:
            self.traffic.requests += 1
            return int((await _obstore().head_async(self.store, name))["size"])

        return await self._tried(name, attempt)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects, as far as they are there."""

        async def attempt() -> None:
            self.traffic.requests += 1
            with contextlib.suppress(FileNotFoundError):
                await _obstore().delete_async(self.store, wanted)

        if wanted := list(names):
            self.run(self._tried(wanted[0], attempt))

    async def _get(self, name: str, options: Mapping[str, Any] | None = None, etag: str | None = None) -> Any:
        # Servers match no weak tag, which names what means the same and not the same bytes.
        match = {"if_match": etag} if etag and not etag.startswith("W/") else {}
        self.traffic.requests += 1
        return await _obstore().get_async(self.store, name, options={**(options or {}), **match})

    async def _tried(self, name: str, attempt: Callable[[], Awaitable[T]], moved: Callable[[], int] = lambda: 0) -> T:
        """Try until it works, or nothing has moved for so long; `moved`: how far a try came."""
        errors, since, before, delay = _errors(), time.monotonic(), moved(), _BACKOFF_SECONDS
        while True:
            try:
                result = await attempt()
                self._worked = True
                return result
            except Exception as error:
                if not isinstance(error, errors) and type(error).__name__ != _PANIC:
                    raise
                if moved() != before:
                    self._worked, since, before, delay = True, time.monotonic(), moved(), _BACKOFF_SECONDS
                self._end_or_go_on(name, error, time.monotonic() - since)
            self.traffic.retries += 1
            await asyncio.sleep(delay * random.uniform(0.5, 1))
            delay = min(2 * delay, _MOST_BACKOFF_SECONDS)

    def _end_or_go_on(self, name: str, error: Exception, seconds: float) -> None:
        """Raise what ends it: an error that stays, or patience that is over."""
        where, kind = f"{self.url}/{name}".rstrip("/"), type(error).__name__
        status, reason = _status_and_reason(error)
        if isinstance(error, FileNotFoundError):
            raise MissingError(f"{where}: there is no such object") from None
        if kind == "AlreadyExistsError":
            raise FileExistsError(errno.EEXIST, "there is such an object", where) from None
        if kind == "PreconditionError":
            raise ReplacedError(f"{where}: was replaced by another object while it was read") from None
        stays = kind not in ("GenericError", "JoinError", "ConnectionError") or (
            (status.startswith("4") and status[:3] not in _BUSY) or status[:3] == _NO_METHOD
        )
        see = "" if self._worked else _SEE
        if stays:
            raise StorageError(f"{where}: {reason}{see}") from None
        if seconds >= (_PATIENCE_SECONDS if self._worked else _FIRST_PATIENCE_SECONDS):
            raise StorageError(f"{where}: {reason}; tried for {seconds:.0f} s{see}") from None


def _status_and_reason(error: Exception) -> tuple[str, str]:
    """Return a server's status, nothing if none answered, and why it failed in a short line without URL or query."""
    text = str(error)
    status = match[1].strip() if (match := _STATUS.search(text)) else ""
    details = list(dict.fromkeys(one_line(next(filter(None, found))) for found in _DETAILS.findall(text)))
    first = _REQUEST.sub("", text.split("\n", 1)[0]).strip()
    return status, ": ".join([status, *details] if status else [first, *details])[:300]


def _store(url: str, *, sends: bool = False) -> Any:
    """Make what speaks to a URL's server, with the options that the environment and the user gave; `sends`: objects."""
    options = options_given()
    given = {key: value for key, value in options.items() if _CLIENT_OPTION.fullmatch(key)}
    client = _CLIENT | (_SENDS if sends else {}) | given
    config = {key: value for key, value in options.items() if key not in given}
    scheme, _, place = url.partition("://")
    prefix = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}.get(scheme, "")
    if not prefix and config:
        raise InputError(f"--storage-option {min(config)}=...: is no option of {scheme}, which has those of clients")
    if url.startswith("http://") or any(endpoint.startswith("http://") for endpoint in _endpoints(config, prefix)):
        client.setdefault("allow_http", "true")
    how = {"client_options": client, "retry_config": {"max_retries": _PART_RETRIES if sends else 0}}
    stores = _obstore().store
    none_such: tuple[type[Exception], ...] = (*_errors(), ValueError)
    try:
        if not prefix:  # `from_url` takes those of the providers' own servers for their buckets
            return stores.HTTPStore.from_url(url, **how)
        bucket, slash, path = place.partition("/")  # keys mean what they say: a % is a %
        return stores.from_url(f"{scheme}://{bucket}{slash}{quote(path)}", config=config, **how)
    except none_such as error:
        raise InputError(f"{url}: {_status_and_reason(error)[1]}{_SEE}") from None


def _endpoints(config: Mapping[str, str], prefix: str) -> list[str]:
    """Return the endpoints that the user or the environment gave. Raises InputError for one that is no URL."""
    names = [f"{prefix}{name}" for name in ("ENDPOINT", "ENDPOINT_URL", "ENDPOINT_URL_S3") if prefix]
    given = {name: os.environ[name] for name in names if name in os.environ}
    given |= {f"--storage-option {key}": value for key, value in config.items() if key.endswith(_ENDPOINTS)}
    for name, endpoint in given.items():
        if not re.match("https?://[^/]", endpoint):
            shown = endpoint.rpartition("@")[2]
            raise InputError(f"{name}={shown}: must begin with http:// or https://, as http://host:9000")
    return list(given.values())


@functools.cache
def _errors() -> tuple[type[Exception], ...]:
    """Return what obstore raises, and this module when less came than was announced."""
    from obstore.exceptions import BaseError

    return (BaseError, FileNotFoundError, ConnectionError, PermissionError, TimeoutError)


@functools.cache
def _obstore() -> Any:
    try:
        import obstore.store
    except ModuleNotFoundError:
        raise InputError("obstore, which reads URLs, is not installed: pip install 'alexnet[remote]'") from None
    return obstore
