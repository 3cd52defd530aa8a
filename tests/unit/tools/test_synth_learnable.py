"""Synthetic classes can be learnt from edges and not from colours."""

import pytest

from alexnet.tools.synth.probe import Features, accuracy, colours, edges

CLASSES, TRAIN, VAL = 10, 40, 30
# 300 guesses at one class in ten: 10% right, standard deviation 1.7%.
CHANCE, FOUR_DEVIATIONS = 0.1, 0.07


@pytest.mark.parametrize("seed", [0, 1])
def test_colours_tell_nothing(seed: int) -> None:
    assert accuracy(colours, CLASSES, TRAIN, VAL, seed) < CHANCE + FOUR_DEVIATIONS


def test_edges_tell_much() -> None:
    assert accuracy(edges, CLASSES, TRAIN, VAL) > 0.8


def test_the_probe_finds_colours_where_they_are() -> None:
    """The control: with a class's number in a corner of its colours, the same probe finds it."""
    marked: Features = lambda pixels: colours(pixels // 2 + marks.pop(0))  # noqa: E731
    marks = [12 * label for _ in range(TRAIN + VAL) for label in range(CLASSES)]
    assert accuracy(marked, CLASSES, TRAIN, VAL) > 2 * CHANCE
