"""Hashes, which may never change, on any machine, with any NumPy; and what they make of an order of images."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest

from alexnet.shards.hashing import Purpose, hashes, key_of, mix64, permutation
from alexnet.shards.order import pairs_met_again, shuffle_score

PINNED_KEY = 5004708254588323589
PINNED_ORDER = [5, 9, 0, 2, 6, 3, 4, 7, 1, 8]
PINNED = """
import numpy as np
from alexnet.shards.hashing import Purpose, hashes, key_of, permutation
key = key_of(Purpose.EPOCH_ORDER, 2012, 3)
print(key, hashes(key, np.arange(3)).tolist(), permutation(10, key).tolist())
"""


def test_known_values_never_change() -> None:
    # SplitMix64 with state 0 yields these (Steele, Lea and Flood 2014; the reference C program prints them).
    golden = np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert mix64(golden).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    key = key_of(Purpose.EPOCH_ORDER, 2012, 3)
    assert key == PINNED_KEY
    assert permutation(10, key).tolist() == PINNED_ORDER


def test_the_same_on_a_cpu_without_vector_units(on_two_kinds_of_cpu: Callable[[str], tuple[str, str]]) -> None:
    usual, plain = on_two_kinds_of_cpu(PINNED)
    assert usual == plain
    assert usual.startswith(str(PINNED_KEY))


def test_permutation_holds_everything_once() -> None:
    for n in (0, 1, 2, 1000, 65537):
        assert sorted(permutation(n, key_of(Purpose.PREP_ORDER, n)).tolist()) == list(range(n))


def test_a_long_permutation_is_the_order_of_its_hashes() -> None:
    n, key = 600_001, key_of(Purpose.PREP_ORDER, 1)
    assert np.array_equal(permutation(n, key), np.argsort(hashes(key, np.arange(n)), kind="stable"))


def test_seeds_epochs_and_purposes_do_not_share_keys() -> None:
    keys = {key_of(p, seed, epoch) for p in Purpose for seed in range(20) for epoch in range(20)}
    assert len(keys) == len(Purpose) * 400
    assert key_of(Purpose.EPOCH_ORDER, 1, 2) != key_of(Purpose.EPOCH_ORDER, 2, 1)


def test_hashes_do_not_collide() -> None:
    assert len(set(hashes(5, np.arange(100_000)).tolist())) == 100_000


def test_counts_the_classes_of_consecutive_windows() -> None:
    labels = np.array([0, 0, 1, 1, 2, 3, 4, 4, 9, 9, 7])  # the last three fill no window of four
    assert shuffle_score(labels, 4)[0] == (2 + 3) / 2
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 50, 1000)
    counts = [len(set(labels[first : first + 64].tolist())) for first in range(0, 1000 - 63, 64)]
    assert shuffle_score(labels, 64)[0] == sum(counts) / len(counts)


def test_the_ideal_is_what_independent_draws_give() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(40), rng.integers(1, 60, 40))
    ideal = shuffle_score(labels, 32)[1]
    drawn = [len(np.unique(rng.choice(labels, 32))) for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(ideal, abs=5 * np.std(drawn) / 4000**0.5)


def test_small_sets_are_one_window() -> None:
    assert shuffle_score(np.array([3, 3, 5]))[0] == 2.0
    assert shuffle_score(np.array([3]))[0] == 1.0
    assert shuffle_score(np.array([], np.int32)) == (0.0, 0.0)


def test_pairs_that_meet_again_are_counted() -> None:
    rng = np.random.default_rng(2)
    for n, batch in [(20, 5), (23, 5), (7, 7), (4, 9)]:
        order, following = rng.permutation(n), rng.permutation(n)
        size = min(batch, n)
        first = [order[k : k + size].tolist() for k in range(0, n - size + 1, size)]
        place = {int(i): p // size for p, i in enumerate(following)}
        met = [sum(place[a] == place[b] for a, b in combinations(row, 2)) for row in first]
        assert pairs_met_again(order, following, batch)[0] == sum(met) / len(met)
    kept = np.arange(100)
    assert pairs_met_again(kept, kept, 10)[0] == 45.0, "every pair of ten"
    assert pairs_met_again(kept, kept, 1) == pairs_met_again(kept[:0], kept[:0], 8) == (0.0, 0.0)


def test_chance_lets_as_many_pairs_meet_as_it_says() -> None:
    rng = np.random.default_rng(3)
    met = [pairs_met_again(rng.permutation(107), rng.permutation(107), 10) for _ in range(2000)]
    measured = np.array([m for m, _ in met])
    assert measured.mean() == pytest.approx(met[0][1], abs=5 * measured.std() / 2000**0.5)
