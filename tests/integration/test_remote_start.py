"""What a stream of a large data set at a URL fetches before its first batch, and what its cache saves in an epoch."""

from pathlib import Path

import pytest

from alexnet.pipeline import ImageStream, StreamSettings
from alexnet.pipeline.host import available
from tests.cache_curve import epochs_of, hits_lru, hits_measured, hits_planned
from tests.made_up_remote import MadeUpServer

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))


def test_the_first_batch_waits_for_the_shards_of_its_window_however_many_there_are(tmp_path: Path) -> None:
    settings = StreamSettings(order="blocks", window_shards=2, cache=str(tmp_path / "cache"))
    how = {"batch_images": 8, "rank": 0, "world_size": 1, "settings": settings}
    with (
        MadeUpServer(tmp_path, 64_000, 50) as server,
        ImageStream(f"{server.url}/train", **how) as stream,  # type: ignore[arg-type]
    ):
        small = {path for path, _ in server.asked}
        images, _ = next(iter(stream))
        fetched = {path[1:] for path, _ in server.asked[len(small) :]}
        needed = {stream.sample(n).shard for n in stream.plan(0, 0).sample_ids.tolist()}
    assert len(images) == 8
    assert small == {"/manifest.json", "/index.npy", "/mean_image.npy", "/rejected.jsonl"}
    assert needed <= fetched
    assert len(fetched) <= 2 * 2 + 8, "of 1,280: its window's, the next one's, and those that are fetched ahead"


def test_of_a_cache_of_half_the_split_half_is_there(tmp_path: Path) -> None:
    epochs = epochs_of(shards=64, window_shards=8, epochs=3)
    with MadeUpServer(tmp_path, 64 * 5, 5) as server:
        measured = hits_measured(server, 32, window_shards=8, epochs=3)
    assert measured == hits_planned(epochs, 32) == 0.5
    assert hits_lru(epochs, 32) < 0.25
