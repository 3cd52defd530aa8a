"""Synthetic images: the same everywhere, different where they should be, of photographs' sizes."""

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from alexnet.tools.stored_jpeg import decode_stored
from alexnet.tools.synth.classes import (
    MAX_CLASSES,
    OUTLINES,
    TEXTURES,
    TRAITS,
    Choices,
    label_of,
    traits_of,
    wnid_of,
    words_of,
)
from alexnet.tools.synth.image import IMAGE_PX, RAMP, Pixels, encode_photograph, make_image, make_palette
from alexnet.tools.synth.shapes import POSES, grain, masks, patterns

KNOWN = "8796d2e71bca8e3247826707f0b938f33616e1f5b67795d583e7906bf9984323"  # a new one needs a new VERSION
DIGEST = """
import hashlib
from alexnet.tools.synth.classes import Choices, traits_of
from alexnet.tools.synth.image import make_image
sha256 = hashlib.sha256()
for k in range(12):
    width = 256 if k % 2 else 256 + 20 * k
    sha256.update(make_image(traits_of(331 * k), Choices(f"7 {k}"), width).astype("<u4").tobytes())
print(sha256.hexdigest())
"""


def channels(pixels: Pixels) -> npt.NDArray[np.uint8]:
    return np.stack([(pixels >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)], axis=-1)


def test_images_are_those_of_every_other_machine(on_two_kinds_of_cpu: Callable[[str], tuple[str, str]]) -> None:
    assert on_two_kinds_of_cpu(DIGEST) == (f"{KNOWN}\n", f"{KNOWN}\n")


def test_every_class_has_its_own_traits_name_and_words() -> None:
    labels = range(MAX_CLASSES)
    assert len({traits_of(label) for label in labels}) == len({words_of(label) for label in labels}) == MAX_CLASSES
    names = [wnid_of(label) for label in labels]
    assert names == sorted(set(names))
    assert [label_of(name) for name in names] == list(labels)
    few = [traits_of(label) for label in range(TRAITS)]  # few classes differ in every trait
    assert len({t.ground for t in few}) == len({t.figure for t in few}) == len({t.outline for t in few}) == TRAITS
    assert all(t.ground != t.figure for t in few)


def test_images_of_a_class_differ_in_colours_and_places() -> None:
    images = [channels(make_image(traits_of(3), Choices(f"{i}"))) for i in range(8)]
    means = np.array([image.mean(axis=(0, 1)) for image in images])
    distances = np.abs(means[:, None] - means).max(axis=2)[~np.eye(8, dtype=bool)]
    assert distances.min() > 1
    assert len({image.tobytes() for image in images}) == 8


def test_neither_levels_nor_areas_tell_classes_apart() -> None:
    assert patterns().shape[0] == len(TEXTURES)
    histograms = np.stack([np.bincount(tile.ravel(), minlength=41) / tile.size for tile in patterns()])
    assert np.abs(histograms - histograms.mean(axis=0)).max() < 0.02
    areas = np.array([[mask.sum() for mask in poses] for poses in masks()])
    assert areas.shape == (len(OUTLINES), POSES)
    # A side of 150 px that is neither tilted nor on the edge of a pixel gains or loses half of one at each end.
    assert np.abs(areas / areas.mean(axis=0) - 1).max() < 0.03
    assert all(max(mask.shape) <= IMAGE_PX for poses in masks() for mask in poses)


def test_levels_and_colours_leave_space_for_what_is_added() -> None:
    """A sum that overflows would show as black dots in white and the other way round."""
    assert int(patterns().max()) + int(grain().max()) < RAMP
    for i in range(50):
        colours = channels(make_palette(Choices(f"{i}")))
        assert colours.shape == (2 * RAMP, 3)
        assert (colours.min() >= 16, colours.max() <= 239) == (True, True)


@pytest.mark.parametrize(("width", "height"), [(256, 256), (400, 256), (256, 512)])
def test_the_figure_lies_in_the_square_that_is_cut_out(width: int, height: int) -> None:
    """Images of one ground differ inside the centre square only."""
    same_ground = [label for label in range(MAX_CLASSES) if traits_of(label).ground == traits_of(0).ground][:12]
    images = np.stack([make_image(traits_of(label), Choices("same"), width, height) for label in same_ground])
    assert images.shape == (12, height, width)
    rows, columns = np.nonzero((images != images[0]).any(axis=0))
    assert len(rows) > 1000
    for places, side in ((rows, height), (columns, width)):
        first = (side - IMAGE_PX) // 2
        assert first <= places.min() <= places.max() < first + IMAGE_PX


def test_photographs_are_baseline_jpegs_of_many_sizes() -> None:
    files = [encode_photograph(traits_of(i), Choices(f"photograph {i}")) for i in range(60)]
    images = [Image.open(io.BytesIO(file)) for file in files]
    assert len({image.size for image in images}) > 8
    assert {image.width > image.height for image in images} == {True, False}
    assert 60_000 < np.mean([len(file) for file in files]) < 180_000
    for file, image in zip(files[:5], images, strict=False):
        assert decode_stored(file)[0].shape == (image.height, image.width, 3)
        assert [layer[1:3] for layer in image.layer] == [(2, 2), (1, 1), (1, 1)]  # type: ignore[attr-defined]


def test_a_photograph_is_the_image_of_its_class_enlarged() -> None:
    """Made small again, it has the ground's direction: the class survives size, grain and encoding."""
    for i in range(6):
        file = encode_photograph(traits_of(9), Choices(f"level {i}"))  # level stripes
        grey = np.asarray(Image.open(io.BytesIO(file)).convert("L").reduce(2), np.float64)
        down, across = np.abs(np.diff(grey, axis=0)).mean(), np.abs(np.diff(grey, axis=1)).mean()
        assert down > across


CLASSES, TRAIN, VAL = 10, 30, 20
CHANCE, FOUR_DEVIATIONS = 0.1, 0.085  # 200 guesses at one class in ten: standard deviation 2.1%

Features = npt.NDArray[np.float64]


def colours(pixels: npt.NDArray[np.uint8]) -> Features:
    """Return mean, covariance and a histogram of each channel, and of lightness."""
    rows = pixels[::2, ::2].reshape(-1, 3).astype(np.float64)
    histograms = [np.bincount(channel.astype(int) // 16, minlength=16) for channel in (*rows.T, rows.mean(axis=1))]
    return np.concatenate([rows.mean(axis=0), np.cov(rows.T).ravel(), *histograms])


def edges(pixels: npt.NDArray[np.uint8]) -> Features:
    """Return how much of the lightness's slope goes in which direction, at distances of 2, 4 and 8 px."""
    grey, found = pixels[..., 1].astype(np.float64), []
    for step in (2, 4, 8):
        here = grey[:-step:2, :-step:2]
        across, down = grey[:-step:2, step::2] - here, grey[step::2, :-step:2] - here
        turns = (np.arctan2(down, across) % np.pi * 12 / np.pi).astype(int).ravel()
        counts = np.bincount(turns % 12, np.hypot(across, down).ravel(), 12)
        found.append(counts + counts[(-np.arange(12) - 1) % 12])  # a mirrored image is the same
    return np.asarray(np.concatenate(found) / np.sum(found))


def accuracy(values: Features, labels: npt.NDArray[np.int64]) -> float:
    """Return the better of two classifiers' shares of right answers: least squares with a ridge, nearest neighbour."""
    cut = CLASSES * TRAIN
    values = (values - values[:cut].mean(axis=0)) / (values[:cut].std(axis=0) + 1e-9)
    train, val, wanted = values[:cut], values[cut:], np.eye(CLASSES)[labels[:cut]] - 1 / CLASSES
    weights = np.linalg.solve(train.T @ train + cut * np.eye(train.shape[1]), train.T @ wanted)
    nearest = ((train**2).sum(axis=1) - 2 * val @ train.T).argmin(axis=1)
    return max(float((answer == labels[cut:]).mean()) for answer in ((val @ weights).argmax(axis=1), labels[nearest]))


def test_classes_are_learnt_from_edges_and_not_from_colours() -> None:
    """The control has a class's number in its colours: the probe must find what is there."""
    labels = np.tile(np.arange(CLASSES), TRAIN + VAL)
    images = [channels(make_image(traits_of(int(label)), Choices(f"0 {i}"))) for i, label in enumerate(labels)]
    marked = [image // 2 + np.uint8(12 * label) for image, label in zip(images, labels, strict=True)]
    assert accuracy(np.stack([*map(colours, images)]), labels) < CHANCE + FOUR_DEVIATIONS
    assert accuracy(np.stack([*map(colours, marked)]), labels) > 2 * CHANCE
    assert accuracy(np.stack([*map(edges, images)]), labels) > 0.8
