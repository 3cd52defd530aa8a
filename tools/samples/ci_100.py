"""Make the source of `shards/ci-100`, the bundled data set, from scikit-image's bundled photographs.

    python -m alexnet.tools.samples.ci_100 SOURCE       writes the three official archives
    alexnet-prep shard SOURCE --out DIR                 makes the data set (`make ci-100` does both)

The first needs scikit-image, in an environment of its own: it brings plain Pillow, which overwrites pillow-simd. Ten
photographs are ten classes: ten random crops of each for training and two for validation. They prove that the plumbing
works; they say nothing about generalisation, since validation crops overlap training crops. Every photograph is CC0 or
in the public domain: see LICENSE beside the shards.
"""

import io
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from alexnet.tools.samples.official import write_official

PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "coffee",
    "grass",
    "gravel",
    "hubble_deep_field",
    "retina",
    "rocket",
)
TRAIN_CROPS = 10
VAL_CROPS = 2


def write_source(folder: Path) -> None:
    """Write the photographs' crops as official archives; the same crops on every call."""
    from skimage import data

    rng = np.random.default_rng(2012)
    words, train, val = {}, {}, []
    for number, photograph in enumerate(PHOTOGRAPHS, start=1):
        wnid = f"n{90000000 + number}"  # no WordNet number begins with 9
        words[wnid] = photograph.replace("_", " ")
        pixels = np.atleast_3d(getattr(data, photograph)())
        crops = [_crop(pixels, rng) for _ in range(TRAIN_CROPS + VAL_CROPS)]
        train[wnid] = {f"{wnid}_{i}.JPEG": crop for i, crop in enumerate(crops[:TRAIN_CROPS])}
        val += [(wnid, crop) for crop in crops[TRAIN_CROPS:]]
    write_official(folder, words, train, [val[i] for i in rng.permutation(len(val))])


def _crop(pixels: npt.NDArray[np.uint8], rng: np.random.Generator) -> bytes:
    """Cut a random 4:3 window, 60 to 90% of the photograph's height, and encode it nearly without loss."""
    limit = min(pixels.shape[0], pixels.shape[1] * 3 // 4, 700)
    height = int(limit * rng.uniform(0.6, 0.9))
    width = height * 4 // 3
    top, left = rng.integers(0, pixels.shape[0] - height + 1), rng.integers(0, pixels.shape[1] - width + 1)
    window = Image.fromarray(pixels[top : top + height, left : left + width].squeeze()).convert("RGB")
    encoded = io.BytesIO()
    window.save(encoded, "JPEG", quality=95)
    return encoded.getvalue()


if __name__ == "__main__":
    write_source(Path(sys.argv[1]))
