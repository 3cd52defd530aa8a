"""Pillow's own memory as an array: the same pixels as a copy, for as long as anyone looks."""

import gc

import numpy as np
import pytest
from PIL import Image

from alexnet.tools.convert.image import pixels_of

RANDOM = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "RGBX", "L"])
def test_equals_a_copy(mode: str) -> None:
    image = Image.fromarray(RANDOM).convert(mode)
    pixels = pixels_of(image)
    assert np.array_equal(pixels[:, :, :3], np.asarray(image.convert("RGB")))
    assert not pixels.flags.writeable


@pytest.mark.parametrize("mode", ["RGB", "RGBX"])
def test_an_image_made_from_memory_is_seen_too(mode: str) -> None:
    channels = len(mode)
    memory = np.random.default_rng(1).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    image = Image.frombuffer(mode, (30, 20), memory, "raw", mode, 0, 1)
    assert np.array_equal(pixels_of(image)[:, :, :3], memory[:, :, :3])


def test_pixels_outlive_their_image() -> None:
    pixels = pixels_of(Image.fromarray(RANDOM))
    part = pixels[3:9, ::2]
    del pixels
    gc.collect()
    fill = [Image.new("RGB", (53, 37), (200, 100, k)) for k in range(50)]  # takes whatever memory was freed
    assert np.array_equal(part[:, :, :3], RANDOM[3:9, ::2])
    assert fill


def test_a_picture_in_several_pieces_is_copied() -> None:
    image = Image.new("RGB", (2200, 2000), (1, 2, 3))  # 17.6 MB; Pillow's pieces have 16
    assert (pixels_of(image)[:, :, :3] == [1, 2, 3]).all()


def test_a_pillow_that_does_not_share_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Image.Image, "__arrow_c_array__")
    assert np.array_equal(pixels_of(Image.fromarray(RANDOM)), RANDOM)
