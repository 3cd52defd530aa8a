"""Storage is told what is wanted, in the order in which it will be wanted, and not further ahead than agreed."""

import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alexnet.pipeline.augment import AugmentSettings
from alexnet.pipeline.plan import Planner, PlanSettings
from alexnet.pipeline.read_ahead import ReadAhead
from alexnet.shards.reader import SplitReader

PATIENCE_SECONDS = 20.0  # how long a thread may take to do what it has to; never waited for when all is well


class Told:
    """Record what the system is told or asked to read: (file name, first byte), in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._seen: queue.Queue[tuple[str, int]] = queue.Queue()
        monkeypatch.setattr("alexnet.pipeline.read_ahead.os.posix_fadvise", self._advise)
        self._preadv = os.preadv
        monkeypatch.setattr("alexnet.pipeline.read_ahead.os.preadv", self._read)

    def next(self, count: int) -> list[tuple[str, int]]:
        return [self._seen.get(timeout=PATIENCE_SECONDS) for _ in range(count)]

    def nothing_more(self) -> bool:
        return self._seen.empty()

    def _advise(self, descriptor: int, offset: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        assert length > 0
        self._note(descriptor, offset)

    def _read(self, descriptor: int, buffers: Any, offset: int) -> int:
        if offset == 0:
            self._note(descriptor, offset)
        return self._preadv(descriptor, buffers, offset)

    def _note(self, descriptor: int, offset: int) -> None:
        self._seen.put((Path(f"/proc/self/fd/{descriptor}").readlink().name, offset))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(monkeypatch)


@pytest.fixture
def reader(data_set: Path) -> Iterator[SplitReader]:
    reader = SplitReader(data_set, "train")
    yield reader
    reader.close()


def planner_of(reader: SplitReader, **options: Any) -> Planner:
    manifest = reader.manifest
    settings = PlanSettings(**{"batch_images": 5, "seed": 2, "drop_last": False, **options})
    sizes = [shard.images for shard in reader.shards]
    return Planner(settings, AugmentSettings(crop_px=32), manifest.colour, manifest.size_px, sizes)


@contextmanager
def running(ahead: ReadAhead) -> Iterator[ReadAhead]:
    thread = threading.Thread(target=ahead.run)
    thread.start()
    try:
        yield ahead
    finally:
        ahead.stop()
        thread.join()


def places(reader: SplitReader, planner: Planner, step_index: int) -> list[tuple[str, int]]:
    rows = reader.rows(planner.sample_ids(*divmod(step_index, planner.steps)))
    found = [(Path(reader.shards[int(r["shard"])].file).name, int(r["offset"])) for r in rows]
    return sorted(found)


@pytest.mark.parametrize("rank", [0, 1])
def test_samples_are_asked_for_some_batches_ahead(reader: SplitReader, told: Told, rank: int) -> None:
    planner = planner_of(reader, rank=rank, ranks=2)
    with running(ReadAhead(reader, planner, first=3, batches=2)) as ahead:
        for step_index in range(3, 12):  # over the epoch's end
            ahead.begun(step_index)
            coming = [step_index, step_index + 1, step_index + 2] if step_index == 3 else [step_index + 2]
            for step in coming:
                expected = places(reader, planner, step)
                assert told.next(len(expected)) == expected
            assert told.nothing_more()


@pytest.mark.parametrize("options", [{"order": "blocks", "window_shards": 2}, {"shuffle": False, "augment": False}])
def test_shards_of_the_next_window_are_read_from_front_to_back(
    reader: SplitReader, told: Told, options: dict[str, Any]
) -> None:
    planner = planner_of(reader, **options)
    windows = [(epoch, window) for epoch in range(2) for window in planner.windows(epoch)]
    with running(ReadAhead(reader, planner, first=0, batches=2)) as ahead:
        for i, (epoch, window) in enumerate(windows[:-1]):
            ahead.begun(epoch * planner.steps + window.positions.start // planner.settings.batch_images)
            coming = windows[:2] if i == 0 else [windows[i + 1]]
            names = [f"{shard:06d}.tar" for _, w in coming for shard in w.shards.tolist()]
            assert told.next(len(names)) == [(name, 0) for name in names]


def test_a_shard_that_is_gone_is_left_to_the_decoder_to_report(reader: SplitReader, told: Told) -> None:
    planner = planner_of(reader)
    reader.shards = (reader.shards[0], replace(reader.shards[1], file="train/gone.tar"), reader.shards[2])
    with running(ReadAhead(reader, planner, first=0, batches=1)) as ahead:
        ahead.begun(0)
        expected = [place for step in (0, 1) for place in places(reader, planner, step) if place[0] != "gone.tar"]
        assert told.next(len(expected)) == expected
