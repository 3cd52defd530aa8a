"""Orders: each sample once, each shard in one window, uniform, and never another order for the same seed and epoch."""

import hashlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from alexnet.pipeline.locality import LocalitySettings, shards_in_order_of_use, windowed_order, windows
from alexnet.pipeline.plan import Planner
from alexnet.shards.errors import InputError
from alexnet.shards.hashing import Purpose, key_of
from alexnet.shards.order import epoch_order

MakePlanner = Callable[..., Planner]

P_MIN = 1e-4
"""About 10 p-values here: a right order fails with probability 0.001, once, as the seeds are fixed."""

many = settings(max_examples=150, derandomize=True, deadline=None, database=None)
shard_sizes = st.lists(st.integers(0, 40), min_size=0, max_size=30)
localities = st.builds(LocalitySettings, order=st.sampled_from(["global", "blocks"]), window_shards=st.integers(1, 35))


def blocks(window_shards: int) -> LocalitySettings:
    return LocalitySettings(order="blocks", window_shards=window_shards)


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
@given(shard_sizes, localities, st.integers(0, 2**63), st.integers(0, 1000))
def test_every_order_holds_every_sample_once(
    sizes: list[int], locality: LocalitySettings, seed: int, epoch: int
) -> None:
    order = windowed_order(locality, sizes, seed, epoch)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(sum(sizes)))


@many
@given(shard_sizes, st.integers(1, 35), st.integers(0, 2**63), st.integers(0, 1000))
def test_blocks_are_what_their_description_says(sizes: list[int], k: int, seed: int, epoch: int) -> None:
    assert windowed_order(blocks(k), sizes, seed, epoch).tolist() == plain_blocks(sizes, k, seed, epoch)


@many
@given(shard_sizes, localities, st.integers(0, 2**63), st.integers(0, 1000))
def test_a_reader_of_windows_reads_each_shard_once(
    sizes: list[int], locality: LocalitySettings, seed: int, epoch: int
) -> None:
    order, belongs = windowed_order(locality, sizes, seed, epoch), shard_of(sizes)
    at, read = 0, []
    cut = windows(locality, sizes, seed, epoch)
    for window in cut:
        assert window.positions.start == at, "windows follow each other without a gap"
        at = window.positions.stop
        read += window.shards.tolist()
        held = set(window.shards.tolist())
        assert {belongs[i] for i in order[window.positions.start : window.positions.stop].tolist()} <= held
    assert at == len(order)
    assert sorted(read) == list(range(len(sizes)))
    if locality.order == "blocks":
        assert all(len(window.shards) == locality.window_shards for window in cut[:-1])
        assert all(1 <= len(window.shards) <= locality.window_shards for window in cut)


@many
@given(shard_sizes, st.integers(0, 2**63), st.integers(0, 1000))
def test_one_window_of_everything_is_the_global_order(sizes: list[int], seed: int, epoch: int) -> None:
    whole = epoch_order(sum(sizes), seed, epoch).tolist()
    assert windowed_order(blocks(max(len(sizes), 1)), sizes, seed, epoch).tolist() == whole
    assert windowed_order(LocalitySettings(), sizes, seed, epoch).tolist() == whole


@many
@given(shard_sizes, localities, st.integers(0, 100), st.data())
def test_the_shards_of_a_stretch_come_in_the_order_of_first_use(
    sizes: list[int], locality: LocalitySettings, epoch: int, data: st.DataObject
) -> None:
    order, belongs = windowed_order(locality, sizes, 3, epoch), shard_of(sizes)
    start = data.draw(st.integers(0, len(order)))
    stop = data.draw(st.integers(start, len(order)))
    needed = shards_in_order_of_use(order[start:stop], sizes)
    assert needed.dtype == np.int64
    assert needed.tolist() == list(dict.fromkeys(belongs[i] for i in order[start:stop].tolist()))


@pytest.mark.parametrize("kind", [{"order": "global"}, {"order": "blocks"}, {"shuffle": False}])
def test_a_planner_says_what_to_read_ahead(
    make_planner: MakePlanner, shard_images: tuple[int, ...], kind: dict[str, object]
) -> None:
    planner, belongs = make_planner(**kind), np.array(shard_of(list(shard_images)))
    for epoch in (0, 1):
        order = planner.order(epoch)
        for positions in (range(0), range(300, 420), range(len(order))):
            used = belongs[order[positions.start : positions.stop]].tolist()
            assert planner.shards_needed(epoch, positions).tolist() == list(dict.fromkeys(used))
        read = [shard for window in planner.windows(epoch) for shard in window.shards.tolist()]
        assert sorted(read) == list(range(len(shard_images)))
        for window in planner.windows(epoch):
            assert set(planner.shards_needed(epoch, window.positions)) <= set(window.shards)


def test_evaluation_reads_shard_after_shard(make_planner: MakePlanner, shard_images: tuple[int, ...]) -> None:
    cut = make_planner(shuffle=False).windows(0)
    assert [window.shards.tolist() for window in cut] == [[shard] for shard in range(len(shard_images))]
    assert [len(window.positions) for window in cut] == list(shard_images)


def test_known_orders_never_change() -> None:
    def digest(order: npt.NDArray[np.int64]) -> str:
        return hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()[:16]

    assert digest(epoch_order(1000, 0, 0)) == "9d52a2ec4cc7b106"
    assert digest(epoch_order(1_281_167, 2012, 89)) == "74123d0cc778cd50"
    assert digest(windowed_order(blocks(16), [1000] * 1281 + [167], 2012, 89)) == "9f03ef20b38386f9"
    assert windowed_order(blocks(2), [3, 1, 4], 2012, 89).tolist() == [5, 4, 0, 6, 1, 2, 7, 3]


def test_shards_and_samples_are_permuted_anew_by_epoch_and_seed() -> None:
    sizes = [5] * 40
    cuts = {
        (seed, epoch): np.concatenate([window.shards for window in windows(blocks(1), sizes, seed, epoch)]).tolist()
        for seed in range(3)
        for epoch in range(3)
    }
    assert len({tuple(order) for order in cuts.values()}) == 9
    inside = {tuple(windowed_order(blocks(1), [40], seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(inside) == 9


@pytest.mark.parametrize("k", [1, 3, 10])
def test_each_sample_comes_anywhere_with_equal_probability(k: int) -> None:
    """2,000 epochs of ten shards of 12 images: one image's place is uniform on 0..119, and a class mixes with all."""
    sizes, epochs = [12] * 10, 2000
    orders = np.stack([windowed_order(blocks(k), sizes, 1, epoch) for epoch in range(epochs)])
    places = np.argsort(orders, axis=1)
    for sample in (0, 61):
        assert stats.chisquare(np.bincount(places[:, sample], minlength=120)).pvalue > P_MIN
    shift = stats.chi2_contingency(np.histogram2d(places[:-1, 7], places[1:, 7], bins=10)[0])
    assert shift.pvalue > P_MIN, "an epoch's order tells something about the next one's"


def test_windows_group_shards_anew_each_epoch() -> None:
    """Two given shards of ten meet in a window of two with probability 1/9."""
    cuts = [windows(blocks(2), [1] * 10, 4, epoch) for epoch in range(3000)]
    meets = sum({2, 7} == set(window.shards.tolist()) for cut in cuts for window in cut)
    assert stats.binomtest(meets, 3000, 1 / 9).pvalue > P_MIN


def test_a_sorted_set_mixes_better_the_wider_the_window(make_planner: MakePlanner) -> None:
    labels: npt.NDArray[np.int64] = np.arange(1003) // 20
    scores = [make_planner(order="blocks", window_shards=k).shuffle_score(labels, 0, 50)[0] for k in (1, 2, 4, 8)]
    assert scores == sorted(scores)
    assert scores[-1] == make_planner(order="global").shuffle_score(labels, 0, 50)[0]


def test_a_shuffled_set_mixes_as_well_in_blocks(make_planner: MakePlanner) -> None:
    labels = np.random.default_rng(0).permutation(1003) % 100
    for k in (1, 3):
        score, ideal = make_planner(order="blocks", window_shards=k).shuffle_score(labels, 0, 50)
        assert score == pytest.approx(ideal, rel=0.05)  # 20 windows of about 39 +- 2.5 classes: 1.4% standard error


def test_narrow_windows_keep_images_together(make_planner: MakePlanner) -> None:
    met = [make_planner(order="blocks", window_shards=k, batch_images=25).pairs_met_again() for k in (1, 2, 4, 8)]
    assert len({chance for _, chance in met}) == 1
    assert [pairs for pairs, _ in met] == sorted((pairs for pairs, _ in met), reverse=True)
    assert met[0][0] > 3 * met[-1][0]
    assert met[-1] == make_planner(batch_images=25).pairs_met_again()
    assert met[-1][0] == pytest.approx(met[-1][1], rel=0.25)  # 40 batches of 7.1 pairs: 6% standard error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "sorted"}, "order='sorted': must be one of global, blocks"),
        ({"order": "blocks", "window_shards": 0}, "window_shards=0: must be at least 1; 16 is the default"),
    ],
)
def test_a_locality_that_cannot_be_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LocalitySettings(**options)  # type: ignore[arg-type]


def test_a_name_says_which_order_it_is() -> None:
    assert LocalitySettings().name == LocalitySettings(window_shards=3).name == "global"
    assert blocks(3).name == "blocks of 3 shards" != blocks(4).name
