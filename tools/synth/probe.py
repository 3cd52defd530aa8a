"""What tells a picture's class? Simple classifiers on simple features, none of which is a network.

Colours must not, be it their mean and covariance or their histograms. Where they are may, a little: large outlines
show at 16x16 px. Directions of edges, as a network's first layers find them, must.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from alexnet.tools.synth.classes import traits_of
from alexnet.tools.synth.picture import draw_picture
from alexnet.tools.synth.randomness import Draws

Array = npt.NDArray[np.float64]
Features = Callable[[npt.NDArray[np.uint8]], Array]
"""Turn a picture, uint8 (256, 256, 3), into numbers, float64 (n,)."""

_BINS = 16
_THUMBNAIL_PX = 16
_DIRECTIONS = 12
_RIDGE = 1.0


def accuracy(features: Features, classes: int, train_images: int, val_images: int, seed: int = 0) -> float:
    """Return the better of two classifiers' share of right answers on validation pictures, so many a class.

    Least squares with a ridge, one number for each class; and the nearest training picture. Features are scaled to
    unit deviation.
    """
    numbered = [(label, i) for i in range(train_images + val_images) for label in range(classes)]
    labels = np.array([label for label, _ in numbered])
    values = np.stack([features(_rgb(label, f"{seed} probe {label} {i}")) for label, i in numbered])
    cut = classes * train_images
    train, val = values[:cut], values[cut:]
    centre, spread = train.mean(axis=0), train.std(axis=0) + 1e-9
    train, val = (train - centre) / spread, (val - centre) / spread
    answers = (_least_squares(train, labels[:cut], val), _nearest(train, labels[:cut], val))
    return max(float((answer == labels[cut:]).mean()) for answer in answers)


def colours(pixels: npt.NDArray[np.uint8]) -> Array:
    """Return mean, covariance and a histogram of each channel, and of lightness."""
    rows = pixels[::2, ::2].reshape(-1, 3).astype(np.float64)
    channels = [*rows.T, rows.mean(axis=1)]
    histograms = [np.histogram(channel, _BINS, (0, 256))[0] / len(rows) for channel in channels]
    return np.concatenate([rows.mean(axis=0), np.cov(rows.T).ravel(), *histograms])


def thumbnail(pixels: npt.NDArray[np.uint8]) -> Array:
    """Return the picture at 16x16 px: where colours are."""
    side = pixels.shape[0] // _THUMBNAIL_PX
    blocks = pixels.astype(np.float64).reshape(_THUMBNAIL_PX, side, _THUMBNAIL_PX, side, 3)
    return np.asarray(blocks.mean(axis=(1, 3)).ravel())


def edges(pixels: npt.NDArray[np.uint8]) -> Array:
    """Return how much of the lightness's slope goes in which direction, at distances of 2, 4 and 8 px."""
    grey = pixels[..., 1].astype(np.float64)
    found = []
    for step in (2, 4, 8):
        here = grey[:-step:2, :-step:2]
        across, down = grey[:-step:2, step::2] - here, grey[step::2, :-step:2] - here
        directions = np.arctan2(down, across) % np.pi
        weights = np.hypot(across, down)
        counts = np.histogram(directions, _DIRECTIONS, (0, np.pi), weights=weights)[0]
        found.append(counts + counts[(-np.arange(_DIRECTIONS) - 1) % _DIRECTIONS])  # a mirrored picture is the same
    values = np.concatenate(found)
    return np.asarray(values / values.sum())


def _rgb(label: int, name: str) -> npt.NDArray[np.uint8]:
    pixels = draw_picture(traits_of(label), Draws(name))
    return np.ascontiguousarray(pixels.astype("<u4").view(np.uint8).reshape(*pixels.shape, 4)[..., 2::-1])


def _least_squares(train: Array, labels: npt.NDArray[np.int64], val: Array) -> npt.NDArray[np.int64]:
    wanted = np.eye(labels.max() + 1)[labels]
    normal = train.T @ train + _RIDGE * len(train) * np.eye(train.shape[1])
    return np.asarray((val @ np.linalg.solve(normal, train.T @ (wanted - wanted.mean(axis=0)))).argmax(axis=1))


def _nearest(train: Array, labels: npt.NDArray[np.int64], val: Array) -> npt.NDArray[np.int64]:
    distances = (train**2).sum(axis=1) - 2 * val @ train.T
    return np.asarray(labels[distances.argmin(axis=1)])
