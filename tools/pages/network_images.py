"""What a network sees, as images: its first layer's kernels (the paper's figure 3), and its guesses (figure 4)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from alexnet.model.networks.architecture import Conv, Weighted
from alexnet.model.networks.build import Network
from alexnet.pipeline.augment import centre_corner
from alexnet.shards.reader import SplitReader
from alexnet.tools.pages.data_set import Pixels, chosen, pixels_and_quality
from alexnet.tools.use.predict import Guess, Predictor

IMAGES = 20
_A_ROW = 16  # kernels, as in figure 3
_SCALE, _GAP = 6, 9  # pixels: of one weight, and between kernels


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Hold one validation image as the network sees it, uint8 (crop, crop, 3), its class, and the five guesses."""

    label: int
    name: str
    key: str
    pixels: Pixels
    guesses: tuple[Guess, ...]


def judged(predictor: Predictor, data: Path) -> list[Judged]:
    """Predict up to 20 validation images of a data set."""
    trained, reader = predictor.trained, SplitReader(data, "val")
    ids = chosen(reader.labels, IMAGES)
    reader.files.plan_samples(reader.rows(np.array(ids, np.int64)))
    squares = [pixels_and_quality(reader, sample_id)[0] for sample_id in ids]
    guesses = predictor.guesses(squares) if squares else []
    side = trained.augment.crop_px
    y = x = centre_corner(trained.data.size_px, side)
    return [
        Judged(
            label=int(reader.labels[sample_id]),
            name=trained.data.name(int(reader.labels[sample_id])),
            key=reader.key(sample_id),
            pixels=square[y : y + side, x : x + side],
            guesses=tuple(found),
        )
        for sample_id, square, found in zip(ids, squares, guesses, strict=True)
    ]


def kernel_sheets(net: Network) -> list[tuple[str, Pixels]]:
    """Return caption and image of each tower's first layer."""
    towers = kernels(net)
    titles = [f"tower {k + 1}" for k in range(len(towers))] if len(towers) > 1 else ["all"]
    return [
        (f"{title}: {len(tower)} kernels of {tower.shape[1]}x{tower.shape[2]}", sheet(tower))
        for title, tower in zip(titles, towers, strict=False)
    ]


def kernels(net: Network) -> list[Pixels]:
    """Return each tower's kernels of the first layer as uint8 (n, window, window, 3).

    Each kernel is stretched on its own from its least weight, 0, to its largest, 255; one of a grey image is grey.
    Empty if the first layer is no convolution of an image.
    """
    layer = next(layer for layer in net.architecture.layers if isinstance(layer, Weighted))
    if not isinstance(layer, Conv) or layer.table:
        return []
    return [_stretched(module.get_parameter("weight")) for module in net.weighted()[layer.name] if module is not None]


def sheet(tower: Pixels) -> Pixels:
    """Lay kernels out in rows of 16, each weight a square, with nothing between them: uint8 (height, width, 4)."""
    count, window = tower.shape[:2]
    side, columns = window * _SCALE, min(_A_ROW, count)
    rows = -(-count // columns)
    image = np.zeros((rows * (side + _GAP) - _GAP, columns * (side + _GAP) - _GAP, 4), np.uint8)
    for k, kernel in enumerate(tower):
        y, x = (k // columns) * (side + _GAP), (k % columns) * (side + _GAP)
        image[y : y + side, x : x + side, :3] = kernel.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
        image[y : y + side, x : x + side, 3] = 255
    return image


def _stretched(weight: Tensor) -> Pixels:
    values = weight.detach().double().numpy().transpose(0, 2, 3, 1)
    low, high = values.min(axis=(1, 2, 3), keepdims=True), values.max(axis=(1, 2, 3), keepdims=True)
    span = np.where(high > low, high - low, 1.0)
    stretched = np.rint(255 * (values - low) / span).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(stretched, (*stretched.shape[:3], 3)))
