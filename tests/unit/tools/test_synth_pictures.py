"""Synthetic pictures: the same everywhere, different where they should be, of photographs' sizes."""

import hashlib
import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from alexnet.tools.stored_jpeg import decode_stored
from alexnet.tools.synth.classes import MAX_CLASSES, OUTLINES, TEXTURES, TRAITS, label_of, traits_of, wnid_of, words_of
from alexnet.tools.synth.outlines import POSES, masks
from alexnet.tools.synth.palette import RAMP, draw_palette
from alexnet.tools.synth.photograph import encode_photograph
from alexnet.tools.synth.picture import PICTURE_PX, Pixels, draw_picture
from alexnet.tools.synth.randomness import Draws
from alexnet.tools.synth.textures import grain, patterns

KNOWN = (
    "8796d2e71bca8e3247826707f0b938f33616e1f5b67795d583e7906bf9984323"  # a new one needs a new VERSION in randomness.py
)


def digest_of_pictures() -> str:
    sha256 = hashlib.sha256()
    for k in range(12):
        width = PICTURE_PX if k % 2 else PICTURE_PX + 20 * k
        sha256.update(draw_picture(traits_of(331 * k), Draws(f"7 {k}"), width).astype("<u4").tobytes())
    return sha256.hexdigest()


def channels(pixels: Pixels) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.stack([(pixels >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)], axis=-1)


def test_pictures_are_those_of_every_other_machine() -> None:
    assert digest_of_pictures() == KNOWN


def test_the_cpu_does_not_matter() -> None:
    """NumPy without its AVX code gives the same bytes."""
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    code = "from tests.unit.tools.test_synth_pictures import digest_of_pictures; print(digest_of_pictures())"
    plain = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(found)}
    run = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == KNOWN


def test_every_class_has_its_own_traits_name_and_words() -> None:
    labels = range(MAX_CLASSES)
    assert len({traits_of(label) for label in labels}) == MAX_CLASSES
    assert len({words_of(label) for label in labels}) == MAX_CLASSES
    names = [wnid_of(label) for label in labels]
    assert names == sorted(set(names))
    assert [label_of(name) for name in names] == list(labels)


def test_few_classes_differ_in_every_trait() -> None:
    few = [traits_of(label) for label in range(TRAITS)]
    assert len({t.ground for t in few}) == len({t.figure for t in few}) == len({t.outline for t in few}) == TRAITS
    assert all(t.ground != t.figure for t in few)


def test_pictures_of_a_class_differ_in_colours_and_places() -> None:
    pictures = [channels(draw_picture(traits_of(3), Draws(f"{i}"))) for i in range(8)]
    means = np.array([picture.mean(axis=(0, 1)) for picture in pictures])
    distances = np.abs(means[:, None] - means).max(axis=2)[~np.eye(8, dtype=bool)]
    assert distances.min() > 1
    assert len({picture.tobytes() for picture in pictures}) == 8


def test_patterns_cannot_be_told_apart_by_their_levels() -> None:
    assert patterns().shape[0] == len(TEXTURES)
    histograms = np.stack([np.bincount(tile.ravel(), minlength=41) / tile.size for tile in patterns()])
    assert np.abs(histograms - histograms.mean(axis=0)).max() < 0.02


def test_outlines_cannot_be_told_apart_by_their_area() -> None:
    assert len(masks()) == len(OUTLINES)
    areas = np.array([[mask.sum() for mask in poses] for poses in masks()])
    assert areas.shape == (len(OUTLINES), POSES)
    # A side of 150 px that is neither tilted nor on the edge of a pixel gains or loses half of one at each end.
    assert np.abs(areas / areas.mean(axis=0) - 1).max() < 0.03
    assert all(max(mask.shape) <= PICTURE_PX for poses in masks() for mask in poses)


def test_levels_and_colours_leave_room_for_what_is_added() -> None:
    """A sum that overflows would show as black dots in white and the other way round."""
    assert int(patterns().max()) + int(grain().max()) < RAMP
    for i in range(50):
        colours = channels(draw_palette(Draws(f"{i}")))
        assert colours.shape == (2 * RAMP, 3)
        assert colours.min() >= 16
        assert colours.max() <= 239


@pytest.mark.parametrize(("width", "height"), [(256, 256), (400, 256), (256, 512)])
def test_the_figure_lies_in_the_square_that_is_cut_out(width: int, height: int) -> None:
    """A ground alone and the same with a figure differ inside the centre square only."""
    one, other = (draw_picture(traits_of(label), Draws("same"), width, height) for label in (0, 1))
    assert one.shape == other.shape == (height, width)
    traits = traits_of(0)
    same_ground = [label for label in range(MAX_CLASSES) if traits_of(label).ground == traits.ground]
    pictures = np.stack([draw_picture(traits_of(label), Draws("same"), width, height) for label in same_ground[:12]])
    rows, columns = np.nonzero((pictures != pictures[0]).any(axis=0))
    assert len(rows) > 1000
    for places, side in ((rows, height), (columns, width)):
        first = (side - PICTURE_PX) // 2
        assert first <= places.min()
        assert places.max() < first + PICTURE_PX


def test_photographs_are_baseline_jpegs_of_many_sizes() -> None:
    files = [encode_photograph(traits_of(i), Draws(f"photograph {i}")) for i in range(60)]
    sizes = [Image.open(io.BytesIO(file)).size for file in files]
    assert len(set(sizes)) > 8
    assert {width > height for width, height in sizes} == {True, False}
    assert 60_000 < np.mean([len(file) for file in files]) < 180_000
    for file, (width, height) in zip(files[:5], sizes, strict=False):
        assert decode_stored(file).pixels.shape == (height, width, 3)
        layers = Image.open(io.BytesIO(file)).layer  # type: ignore[attr-defined]
        assert [layer[1:3] for layer in layers] == [(2, 2), (1, 1), (1, 1)]


def test_a_photograph_is_the_picture_of_its_class_enlarged() -> None:
    """Made small again, it has the ground's direction: the class survives size, grain and encoding."""
    for i in range(6):
        file = encode_photograph(traits_of(9), Draws(f"level {i}"))  # level stripes
        grey = np.asarray(Image.open(io.BytesIO(file)).convert("L").reduce(2), np.float64)
        down, across = np.abs(np.diff(grey, axis=0)).mean(), np.abs(np.diff(grey, axis=1)).mean()
        assert down > across


def test_draws_are_even_and_their_limits_are_reached() -> None:
    numbers = [Draws(f"{i}").between(-2, 2) for i in range(500)]
    counts = np.bincount(np.array(numbers) + 2, minlength=5)
    assert len(counts) == 5
    assert counts.min() > 70
