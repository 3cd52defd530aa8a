"""The shuffle score counts classes, and knows what chance would give."""

from itertools import combinations

import numpy as np
import pytest

from alexnet.shards.order import pairs_met_again, shuffle_score


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
