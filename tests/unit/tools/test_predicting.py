"""What `predict` does to a picture beyond what the data set did."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from alexnet.tools.use.predict import upright


@pytest.mark.parametrize("turn", range(10))
def test_a_square_is_turned_as_pillow_turns_it(turn: int) -> None:
    pixels = np.random.default_rng(turn).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = turn
    turned = upright(pixels, turn)
    assert np.array_equal(turned, np.asarray(ImageOps.exif_transpose(image)))
    assert turned.flags.c_contiguous
