"""How many of the shards that order `blocks` asks for lie in the cache already, over how much of the split it holds.

    python -m tests.cache_curve [EPOCHS]

computes it for ImageNet's 1,281 shards in windows of 16, by the plans and by `shards.cache`'s own choice of what goes,
beside a cache that lets the shard go that was not used for longest (LRU); then computes and measures streams of 128
small shards in windows of 8.
"""

import sys
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from alexnet.pipeline import ImageStream, StreamSettings
from alexnet.pipeline.plan import windows
from alexnet.shards.cache import _Cached, _leaving
from alexnet.shards.manifest import ShardRecord, read_manifest
from tests.made_up_remote import MadeUpServer

IMAGENET_SHARDS, WINDOW_SHARDS = 1_281, 16
SMALL_SHARDS, SMALL_WINDOW, SMALL_SHARD_IMAGES = 128, 8, 10
SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
"""Of the split, that the cache holds: from two small windows on, which it must."""


def epochs_of(shards: int, window_shards: int, epochs: int) -> list[list[list[int]]]:
    """Return which shards each window of each epoch needs."""
    return [[w.shards.tolist() for w in windows([1] * shards, window_shards, 0, epoch)] for epoch in range(epochs + 1)]


def hits_planned(epochs: Sequence[Sequence[list[int]]], capacity: int) -> float:
    """Return the share of shards that were there, after the first epoch, as the stream fetches and removes.

    While a window is used the next one is fetched, so the shards of both stay; the last epoch is only looked ahead to.
    """
    held: dict[int, _Cached] = {}
    asked = hits = 0
    for epoch, coming in enumerate(epochs[:-1]):
        present: list[int] = []
        for number, window in enumerate(coming):
            order = [*present, *chain(*coming[number:], *epochs[epoch + 1])]
            next_use = {str(shard): place for place, shard in reversed(list(enumerate(order)))}
            for shard in window:
                there = shard in held
                asked, hits = asked + (epoch > 0), hits + (there and epoch > 0)
                if not there:
                    record = ShardRecord(split="train", file="", images=1, bytes=1, sha256=str(shard))
                    if len(held) >= capacity:
                        del held[int(next(_leaving(list(held.values()), record, next_use)).sha256)]
                    held[shard] = _Cached(Path(), str(shard), True, 1, 0.0)
            present = window
    return hits / asked


def hits_lru(epochs: Sequence[Sequence[list[int]]], capacity: int) -> float:
    """Return the same for a cache that lets go of what was not used for longest."""
    held: OrderedDict[int, None] = OrderedDict()
    asked = hits = 0
    for epoch, coming in enumerate(epochs[:-1]):
        for shard in chain(*coming):
            asked, hits = asked + (epoch > 0), hits + (shard in held and epoch > 0)
            held[shard] = None
            held.move_to_end(shard)
            if len(held) > capacity:
                held.popitem(last=False)
    return hits / asked


def hits_measured(server: MadeUpServer, capacity: int, window_shards: int, epochs: int) -> float:
    """Return the share of shards that a real stream had not to fetch, after its first epoch."""
    manifest = read_manifest(server.folder)
    room = capacity * manifest.shards[0].bytes + sum(file.bytes for file in manifest.files) + 100_000
    misses = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:  # what is broken off may still end
        settings = StreamSettings(order="blocks", window_shards=window_shards, cache=cache, cache_gb=room / 1e9)
        how = {"batch_images": manifest.shards[0].images, "rank": 0, "world_size": 1, "settings": settings}
        with ImageStream(f"{server.url}/train", **how) as stream:  # type: ignore[arg-type]
            for _ in range(epochs):
                for _ in stream:
                    pass
                assert stream.meter.traffic is not None
                misses.append(stream.meter.traffic.misses)
    return 1 - (misses[-1] - misses[0]) / ((epochs - 1) * len(manifest.shards))


def main(epochs: int) -> None:
    """Print a row for each share of the split that a cache holds."""
    large, small = epochs_of(IMAGENET_SHARDS, WINDOW_SHARDS, epochs), epochs_of(SMALL_SHARDS, SMALL_WINDOW, epochs)
    print("| cache / split | needed last goes | LRU | 128 shards, computed | measured |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, _small_set(Path(folder)) as server:
        for share in SHARES:
            capacity, small_capacity = round(share * IMAGENET_SHARDS), round(share * SMALL_SHARDS)
            found = (
                hits_planned(large, capacity),
                hits_lru(large, capacity),
                hits_planned(small, small_capacity),
                hits_measured(server, small_capacity, SMALL_WINDOW, epochs),
            )
            print(f"| {share:.1%} | {' | '.join(f'{hits:.1%}' for hits in found)} |", flush=True)


def _small_set(folder: Path) -> MadeUpServer:
    return MadeUpServer(folder, SMALL_SHARDS * SMALL_SHARD_IMAGES, SMALL_SHARD_IMAGES)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
