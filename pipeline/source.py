"""Where a stream's images come from: a folder, or object storage, whole shards through a cache or sample by sample."""

from pathlib import Path

from alexnet.pipeline.plan import Planner, PlanSettings
from alexnet.pipeline.settings import StreamSettings
from alexnet.shards.cache import ShardCache, bytes_beside, cache_folder
from alexnet.shards.errors import InputError
from alexnet.shards.local_root import local_root
from alexnet.shards.manifest import SPLITS, Split
from alexnet.shards.reader import SplitReader
from alexnet.shards.remote import requests_for
from alexnet.shards.url import origin_of


def open_split(where: str, split: Split, settings: StreamSettings, plan: PlanSettings) -> SplitReader:
    """Open a split for a stream; `where`: a folder or a URL. Raises InputError for a cache that is too small."""
    root = local_root(where, settings.cache)
    if origin_of(root) is None:
        return SplitReader(root, split)
    cache = ShardCache(cache_folder(settings.cache), round(settings.cache_gb * 1e9))
    reader = SplitReader(root, split, cache)
    if plan.shuffle and not plan.window_shards and cache.limit < _room(reader, plan, cache.folder, _bytes(reader)):
        return SplitReader(root, split)
    _check_room(reader, cache, plan)
    return reader


def describe_source(reader: SplitReader, planner: Planner, settings: StreamSettings) -> list[str]:
    """Say in one line how object storage is read, and what that costs; nothing of a folder."""
    s, total = planner.settings, _bytes(reader)
    if reader.files.traffic is None:
        return []
    if reader.files.on_disk:
        folder, of_all = cache_folder(settings.cache), min(1.0, settings.cache_gb * 1e9 / max(total, 1))
        return [
            f"from {reader.place}: whole shards, {total / 1e9:,.3g} GB, by way of {folder}, which takes at most "
            f"{settings.cache_gb:g} GB ({of_all:.0%} of them)"
        ]
    rows = reader.rows(planner.order(0)[: s.batch_images // s.ranks or 1])
    room = _room(reader, s, cache_folder(settings.cache), total)
    requests = len(requests_for(rows)) / max(1, len(rows)) * len(reader)
    return [
        f"from {reader.place}: order global, sample by sample: about {requests:,.0f} requests an epoch for "
        f"{reader.stored_bytes() / 1e9:,.3g} GB; order=blocks, or cache_gb={_in_gb(room)}, fetches whole shards, "
        f"{len(reader.shards):,} requests"
    ]


def _in_gb(count: int) -> str:
    """Return bytes as the least number of GB, of three digits at most, that holds them."""
    digits = 10 ** max(0, len(str(count)) - 3)
    return f"{-(-count // digits) * digits / 1e9:g}"


def _bytes(reader: SplitReader) -> int:
    return sum(shard.bytes for shard in reader.shards)


def _room(reader: SplitReader, plan: PlanSettings, folder: Path, shards: int) -> int:
    """Return what a cache must take that holds so many bytes of shards, and what there must be beside them.

    Those are the files that are no shards and, as it is read while this split's shards stay open, a batch of the other.
    """
    beside = bytes_beside(folder)
    for split in set(SPLITS) - {reader.split}:
        others = sorted((shard.bytes for shard in reader.manifest.shards_of(split)), reverse=True)
        beside += sum(others[: _shards_of_batch(plan, len(others), reader.manifest.counts[split].written)])
    return shards + beside


def _shards_of_batch(plan: PlanSettings, shards: int, images: int) -> int:
    """Return in how many of so many shards the images of a batch can lie that follow each other."""
    return -(-plan.batch_images * shards // max(1, images)) + 1


def _check_room(reader: SplitReader, cache: ShardCache, plan: PlanSettings) -> None:
    """Refuse a cache that cannot hold what is in use at once: two windows, or the shards of two batches."""
    largest = max((shard.bytes for shard in reader.shards), default=0)
    of_batch = _shards_of_batch(plan, len(reader.shards), len(reader))
    window = max(of_batch, plan.window_shards if plan.shuffle and plan.window_shards else 0)
    needed = _room(reader, plan, cache.folder, min(_bytes(reader), 2 * window * largest))
    if cache.limit < needed:
        raise InputError(
            f"cache_gb={cache.limit / 1e9:g}: 2 windows of {window} shards, which are in use at once, and what lies "
            f"beside them have {needed / 1e9:,.3g} GB; give at least cache_gb={_in_gb(needed)}, or fewer window_shards"
        )
