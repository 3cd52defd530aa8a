"""Orders: each sample once, each shard in one window, uniform, never another for the same seed; and what is read ahead.

Storage is told what is wanted in the order in which it will be wanted, and not further ahead than agreed.
"""

import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from alexnet.pipeline.augment import AugmentSettings
from alexnet.pipeline.plan import Planner, PlanSettings, Window, windowed_order, windows
from alexnet.pipeline.read_ahead import ReadAhead
from alexnet.shards.hashing import Purpose, key_of
from alexnet.shards.order import epoch_order, pairs_met_again, shuffle_score
from alexnet.shards.reader import SplitReader

MakePlanner = Callable[..., Planner]

P_MIN = 1e-4
"""About 10 p-values here: a right order fails with probability 0.001, once, as the seeds are fixed."""

many = settings(max_examples=150, derandomize=True, deadline=None, database=None)
shard_sizes = st.lists(st.integers(0, 40), min_size=0, max_size=30)
widths = st.integers(1, 35)


def shard_of(sizes: list[int]) -> list[int]:
    return [shard for shard, size in enumerate(sizes) for _ in range(size)]


def plain_blocks(sizes: list[int], k: int, seed: int, epoch: int) -> list[int]:
    """Spell the rule of `blocks` out in Python integers."""

    def hashed(key: int, counter: int) -> int:
        x = (counter * 0x9E3779B97F4A7C15 + key) % 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    by_shard = key_of(Purpose.SHARD_ORDER, seed, epoch)
    by_sample = key_of(Purpose.EPOCH_ORDER, seed, epoch)
    shards = sorted(range(len(sizes)), key=lambda s: hashed(by_shard, s))
    result = []
    for first in range(0, len(shards), k):
        window = shards[first : first + k]
        ids = [i for s in window for i in range(sum(sizes[:s]), sum(sizes[: s + 1]))]
        result += sorted(ids, key=lambda i: hashed(by_sample, i))
    return result


@many
@given(shard_sizes, widths, st.integers(0, 2**63), st.integers(0, 1000))
def test_blocks_are_what_their_description_says(sizes: list[int], k: int, seed: int, epoch: int) -> None:
    order = windowed_order(sizes, k, seed, epoch)
    assert order.dtype == np.int64
    assert order.tolist() == plain_blocks(sizes, k, seed, epoch)
    assert sorted(order.tolist()) == list(range(sum(sizes)))


@many
@given(shard_sizes, widths, st.integers(0, 2**63), st.integers(0, 1000))
def test_a_reader_of_windows_reads_each_shard_once(sizes: list[int], k: int, seed: int, epoch: int) -> None:
    order, belongs = windowed_order(sizes, k, seed, epoch), shard_of(sizes)
    at, read = 0, []
    cut = windows(sizes, k, seed, epoch)
    for window in cut:
        assert window.positions.start == at, "windows follow each other without a gap"
        at = window.positions.stop
        read += window.shards.tolist()
        held = set(window.shards.tolist())
        assert {belongs[i] for i in order[window.positions.start : window.positions.stop].tolist()} <= held
    assert at == len(order)
    assert sorted(read) == list(range(len(sizes)))
    assert all(len(window.shards) == k for window in cut[:-1])
    assert all(1 <= len(window.shards) <= k for window in cut)


@many
@given(shard_sizes, st.integers(0, 2**63), st.integers(0, 1000))
def test_one_window_of_everything_is_the_global_order(sizes: list[int], seed: int, epoch: int) -> None:
    whole = epoch_order(sum(sizes), seed, epoch).tolist()
    assert sorted(whole) == list(range(sum(sizes)))
    assert windowed_order(sizes, max(len(sizes), 1), seed, epoch).tolist() == whole


@pytest.mark.parametrize("kind", [{"window_shards": None}, {"window_shards": 3}, {"shuffle": False}])
def test_a_planner_says_what_to_read_ahead(
    make_planner: MakePlanner, shard_images: tuple[int, ...], kind: dict[str, object]
) -> None:
    planner, belongs = make_planner(**kind), np.array(shard_of(list(shard_images)))
    for epoch in (0, 1):
        order = planner.order(epoch)
        read = [shard for window in planner.windows(epoch) for shard in window.shards.tolist()]
        assert sorted(read) == list(range(len(shard_images)))
        for window in planner.windows(epoch):
            used = belongs[order[window.positions.start : window.positions.stop]]
            assert set(used.tolist()) <= set(window.shards.tolist())
    if "shuffle" in kind:
        assert [w.shards.tolist() for w in planner.windows(0)] == [[shard] for shard in range(len(shard_images))]
        assert [len(w.positions) for w in planner.windows(0)] == list(shard_images)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_each_sample_comes_anywhere_with_equal_probability(k: int) -> None:
    """2,000 epochs of ten shards of 12 images: one image's place is uniform on 0..119, and a class mixes with all."""
    sizes, epochs = [12] * 10, 2000
    orders = np.stack([windowed_order(sizes, k, 1, epoch) for epoch in range(epochs)])
    places = np.argsort(orders, axis=1)
    for sample in (0, 61):
        assert stats.chisquare(np.bincount(places[:, sample], minlength=120)).pvalue > P_MIN
    shift = stats.chi2_contingency(np.histogram2d(places[:-1, 7], places[1:, 7], bins=10)[0])
    assert shift.pvalue > P_MIN, "an epoch's order tells something about the next one's"


def test_windows_group_shards_anew_each_epoch() -> None:
    """Two given shards of ten meet in a window of two with probability 1/9."""
    cuts = [windows([1] * 10, 2, 4, epoch) for epoch in range(3000)]
    meets = sum({2, 7} == set(window.shards.tolist()) for cut in cuts for window in cut)
    assert stats.binomtest(meets, 3000, 1 / 9).pvalue > P_MIN


def test_the_mixing_of_orders(make_planner: MakePlanner) -> None:
    def scores(labels: npt.NDArray[np.int64], **kind: object) -> tuple[float, float]:
        return shuffle_score(labels[make_planner(**kind).order(0)], 50)

    in_classes: npt.NDArray[np.int64] = np.arange(1003) // 20
    by_width = [scores(in_classes, window_shards=k)[0] for k in (1, 2, 4, 8)]
    assert by_width == sorted(by_width), "a set in the order of its classes mixes better the wider the window"
    assert by_width[-1] == scores(in_classes)[0]
    assert scores(in_classes, shuffle=False)[0] == pytest.approx(3.5, abs=0.5)
    shuffled = np.random.default_rng(0).permutation(1003) % 100
    for k in (1, 3):
        score, ideal = scores(shuffled, window_shards=k)
        assert score == pytest.approx(ideal, rel=0.05)  # 20 windows of about 39 +- 2.5 classes: 1.4% standard error


def test_narrow_windows_keep_images_together(make_planner: MakePlanner) -> None:
    planners = [make_planner(window_shards=k) for k in (1, 2, 4, 8)]
    met = [pairs_met_again(planner.order(0), planner.order(1), 25) for planner in [*planners, make_planner()]]
    assert len({chance for _, chance in met}) == 1
    assert [pairs for pairs, _ in met] == sorted((pairs for pairs, _ in met), reverse=True)
    assert met[0][0] > 3 * met[-1][0]
    assert met[-1] == met[-2]
    assert met[-1][0] == pytest.approx(met[-1][1], rel=0.25)  # 40 batches of 7.1 pairs: 6% standard error


def test_a_name_says_which_order_it_is() -> None:
    names = [PlanSettings(batch_images=1, window_shards=k).order_name for k in (3, 4)]
    assert names == ["blocks of 3 shards", "blocks of 4 shards"]
    assert PlanSettings(batch_images=1).order_name == "global"
    assert PlanSettings(batch_images=1, window_shards=3, shuffle=False).order_name == "ids"


PATIENCE_SECONDS = 20.0  # how long a thread may take to do what it has to; never waited for when all is well


Ints = npt.NDArray[np.int64]


class Told:
    """Record what the system is told or asked to read: (file name, first byte), in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._seen: queue.Queue[tuple[str, int]] = queue.Queue()
        monkeypatch.setattr("alexnet.pipeline.read_ahead.extension", lambda: self)
        self._preadv = os.preadv
        monkeypatch.setattr("alexnet.pipeline.read_ahead.os.preadv", self._read)

    def next(self, count: int) -> list[tuple[str, int]]:
        return [self._seen.get(timeout=PATIENCE_SECONDS) for _ in range(count)]

    def nothing_more(self) -> bool:
        return self._seen.empty()

    def will_need(self, descriptors: Ints, offsets: Ints, lengths: Ints) -> None:
        """Stand for the function of the C extension."""
        assert (lengths > 0).all()
        for descriptor, offset in zip(descriptors.tolist(), offsets.tolist(), strict=True):
            if descriptor >= 0:
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


def left_before(planner: Planner, epoch: int, window: Window) -> int:
    """Return the step at which the stream has left all before a window, so that the next one is read."""
    return epoch * planner.steps + -(-window.positions.start // planner.settings.batch_images)


@pytest.mark.parametrize("options", [{"window_shards": 2}, {"shuffle": False, "augment": False}])
def test_shards_of_the_next_window_are_read_from_front_to_back(
    reader: SplitReader, told: Told, options: dict[str, Any]
) -> None:
    planner = planner_of(reader, **options)
    windows = [(epoch, window) for epoch in range(2) for window in planner.windows(epoch)]
    with running(ReadAhead(reader, planner, first=0, batches=2)) as ahead:
        for i, (epoch, window) in enumerate(windows[:-1]):
            ahead.begun(left_before(planner, epoch, window))
            coming = windows[:2] if i == 0 else [windows[i + 1]]
            names = [f"{shard:06d}.tar" for _, w in coming for shard in w.shards.tolist()]
            assert told.next(len(names)) == [(name, 0) for name in names]


def test_a_shard_that_is_gone_is_left_to_the_decoder_to_report(reader: SplitReader, told: Told) -> None:
    planner = planner_of(reader)
    reader.shards = (reader.shards[0], replace(reader.shards[1], file="train/gone.tar"), reader.shards[2])
    reader.files.shards = reader.shards
    with running(ReadAhead(reader, planner, first=0, batches=1)) as ahead:
        ahead.begun(0)
        expected = [place for step in (0, 1) for place in places(reader, planner, step) if place[0] != "gone.tar"]
        assert told.next(len(expected)) == expected


def test_what_is_held_already_need_not_be_read(reader: SplitReader, told: Told) -> None:
    samples = ReadAhead(reader, planner_of(reader), first=0, batches=4)  # an epoch has five
    end = reader.shards[0].images
    rows = reader.rows(np.arange(4, end))  # the only ones that are not held
    samples.is_held = lambda ids: (ids < 4) | (ids >= end)
    with running(samples):
        expected = {(Path(reader.shards[int(row["shard"])].file).name, int(row["offset"])) for row in rows}
        assert set(told.next(len(rows))) == expected
    planner = planner_of(reader, window_shards=1)
    windows = ReadAhead(reader, planner, first=0, batches=1)
    windows.is_held = samples.is_held
    with running(windows) as ahead:
        for epoch in (0, 1):
            (number,) = [n for n, window in enumerate(planner.windows(epoch)) if 0 in window.shards]
            ahead.begun(left_before(planner, epoch, planner.windows(epoch)[max(0, number - 1)]))
            assert told.next(1) == [("000000.tar", 0)]
        assert told.nothing_more()
