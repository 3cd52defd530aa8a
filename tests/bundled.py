"""Make what the repository bundles: the source of `shards/ci-100`, and the table of normal quantiles.

    python -m tests.bundled ci-100 SOURCE      writes three official archives, for `alexnet-prep shard` (`make ci-100`)
    python -m tests.bundled normals            writes `pipeline/normals.npy`

The first needs scikit-image, in an environment of its own: it brings plain Pillow, which overwrites pillow-simd. Ten of
its photographs are ten classes: ten random crops of each for training and two for validation. They prove that the
plumbing works; they say nothing about generalisation, since validation crops overlap training crops. Every photograph
is CC0 or in the public domain: see LICENSE beside the shards.

The table is committed rather than computed because logarithms and square roots of different C libraries differ in their
last bits, and the augmentation of every epoch must be the same everywhere.
"""

import io
import sys
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from PIL import Image

import alexnet.pipeline
from tests.sources import write_official

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


SLICES = 1 << 15


def normal_table() -> npt.NDArray[np.float32]:
    """Return the midpoints of 32,768 equal slices of the upper half of N(0, 1): float32, rising."""
    normal = NormalDist()
    return np.array([normal.inv_cdf(0.5 + (i + 0.5) / (2 * SLICES)) for i in range(SLICES)], np.float32)


if __name__ == "__main__":
    if sys.argv[1] == "ci-100":
        write_source(Path(sys.argv[2]))
    else:
        np.save(Path(alexnet.pipeline.__file__).with_name("normals.npy"), normal_table())
