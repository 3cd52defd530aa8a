"""The stages of a data set in object storage: what its server gives, and the stream from there, through a cache or not.

Beside them its copy on disk is measured, whose tars are those of a cache that holds the split: links, so that both lie
at the same place.
"""

import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

from alexnet.pipeline import ImageStream
from alexnet.shards.cache import ShardCache
from alexnet.shards.manifest import ShardRecord
from alexnet.shards.reader import SplitReader
from alexnet.shards.remote import SHARDS_AT_ONCE, CachedShards
from alexnet.shards.storage import Storage
from alexnet.shards.url import ORIGIN_NAME
from alexnet.tools.bench import loader_stages
from alexnet.tools.bench.bench_data import LoaderTask
from alexnet.tools.bench.stage import Stage, Work

_MOST_BYTES = 2 << 30  # of a split that is copied: what takes longer to fetch than to measure
_CHUNK_BYTES = 4 << 20
_WINDOWS, _WINDOW_SHARDS = 8, 16  # at least so many in an epoch, of so many shards at most
_ROOM = 2.0  # times the shards, of a cache that holds them, an index and a manifest
_NO_ROOM_GB = 1e-9  # a byte: no shard fits in


@contextmanager
def on_disk(task: LoaderTask, say: Callable[[str], None]) -> Iterator[tuple[LoaderTask, str]]:
    """Copy the split of a task at a URL to this disk, for as long as it is measured; or say why there is no copy."""
    shards = task.reader.shards
    size = sum(shard.bytes for shard in shards)
    with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as folder:
        copied = replace(task, data=f"{folder}/set")
        free = shutil.disk_usage(folder).free
        if size > min(_MOST_BYTES, free):
            yield task, f"is measured on a copy, which would take {size / 1e9:.1f} GB; at most 2.1 are fetched for it"
            return
        say(f"fetching {size / 1e9:.1f} GB, to measure beside a copy on this disk")
        shutil.copytree(task.data, copied.data, ignore=shutil.ignore_patterns(ORIGIN_NAME))
        cache = ShardCache(_cache_of(copied), round(_ROOM * size))
        files = SplitReader(Path(task.data), task.split, cache).files
        assert isinstance(files, CachedShards)
        files.plan_shards(range(len(shards)), range(len(shards)))
        (Path(copied.data) / task.split).mkdir(exist_ok=True)
        for number, shard in enumerate(shards):
            files.file(number)
            os.link(cache.folder / "shards" / f"{shard.sha256}.tar", f"{copied.data}/{shard.file}")
        files.close()
        yield copied, ""


def storage(**task: Any) -> Stage:
    """Fetch shards whole, as many at once as the stream, and let go of the bytes: obstore by itself."""
    import obstore

    given = LoaderTask(**task)
    store = Storage(given.url).store

    def fetched(shard: ShardRecord) -> int:
        for chunk in obstore.get(store, shard.file).stream(min_chunk_size=_CHUNK_BYTES):
            del chunk
        return shard.images

    def work() -> Work:
        shards = cycle(given.reader.shards)
        with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
            going = deque(pool.submit(fetched, next(shards)) for _ in range(SHARDS_AT_ONCE))
            while True:
                yield going.popleft().result()
                going.append(pool.submit(fetched, next(shards)))

    return Stage(work=work, settings=f"{SHARDS_AT_ONCE} shards at once", ready_batches=SHARDS_AT_ONCE, least_batches=1)


def stream(*, source: Literal["disk", "cache", "ranges"], **task: Any) -> Stage:
    """Iterate the stream: from the copy on disk, from a cache that holds all, or by ranges of objects without one."""
    given = LoaderTask(**task)
    if source == "ranges":
        return loader_stages.stream(output="float32", cache=tempfile.mkdtemp(), cache_gb=_NO_ROOM_GB, **task)
    cache = str(_cache_of(given)) if source == "cache" else ""
    return loader_stages.stream(**_blocks(given), cache=cache, **task)


def cold_stream(**task: Any) -> Stage:
    """Begin an epoch with an empty cache in each round, and time it from its first request on."""
    given, going, figures = LoaderTask(**task), list[ImageStream](), dict[str, float]()

    def work() -> Work:
        going.append(loader_stages.open_stream(**_blocks(given), cache=tempfile.mkdtemp(), **task))
        begin = time.perf_counter()
        for _, labels in going[0]:
            figures.setdefault("first_batch_s", time.perf_counter() - begin)
            yield len(labels)

    def end() -> None:
        ended = going.pop()
        ended.close()
        shutil.rmtree(ended.settings.cache)

    def told() -> dict[str, float]:
        said = dict(figures)
        figures.clear()
        return said

    how = _blocks(given)
    return Stage(
        work=work,
        settings=f"an epoch from an empty cache, windows of {how['window_shards']} shards",
        starts_over=True,
        least_batches=len(given.reader) // given.batch_images,
        after_round=end,
        figures=told,
    )


def _blocks(task: LoaderTask) -> dict[str, Any]:
    """Return the options of a stream in order `blocks`, with windows small enough that an epoch has some."""
    shards = task.reader.shards
    window_shards = min(_WINDOW_SHARDS, max(1, len(shards) // _WINDOWS))
    cache_gb = _ROOM * sum(shard.bytes for shard in shards) / 1e9
    return {"output": "float32", "order": "blocks", "window_shards": window_shards, "cache_gb": cache_gb}


def _cache_of(task: LoaderTask) -> Path:
    """Return the cache beside the copy on disk."""
    return Path(task.data).with_name("cache")
