"""Colour statistics of a data set, exact to the last bit whatever the order of work.

Sums over pixels are integers: inside an image they are float64 dot products of integers below 2^53 (65,536 pixels
times 255^2 is 4.3e9), over a shard int64, over the data set Python integers. Only the very last step leaves the
integers: covariance entries are correctly rounded quotients, and the 3x3 eigenproblem is solved by a Jacobi iteration
that uses +, -, *, / and sqrt, which IEEE 754 fixes on every CPU. LAPACK's answer depends on the CPU.

The sums of an image take .2 ms with NumPy and .04 ms in `_colour.c`, which is used where it was built. Integers have no
rounding, so it makes no difference to the result.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from msgspec import Meta

_compiled: ModuleType | None
try:
    from alexnet.shards import _colour as _compiled
except ImportError:  # no compiler when the package was installed
    _compiled = None

_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
_TOGETHER = 4  # images that `_colour.c` adds to the mean image's sums in one pass
_UINT16_IMAGES = 257  # 257 * 255 = 65,535: as many images as a uint16 can sum
_BAND_PIXELS = 8192  # 197 kB as float64: stays in a core's cache beside the image
_DIGITS = 12
_RESIDUAL = 1e-6  # of the largest eigenvalue: figures are rounded to 12 digits
_COLOUR_LOSS = 0.75  # of the spread of colour, by halving its resolution
_COARSE_STEP = 64  # a quality of about 13: from here on, anything but a block's mean may be rounded away

_THREE = Meta(min_length=3, max_length=3)
_LEVEL = Meta(ge=0, le=255)
_FIGURE = Meta(ge=-1_000_000, le=1_000_000)  # none of values up to 255 is larger

Matrix = list[list[float]]
Square = npt.NDArray[np.float64]
Vector = Annotated[tuple[Annotated[int, _FIGURE] | Annotated[float, _FIGURE], ...], _THREE]
Levels = Annotated[tuple[Annotated[int, _LEVEL] | Annotated[float, _LEVEL], ...], _THREE]


class ColourSums:
    """Accumulate the integer sums of 8-bit RGB images of one size.

    `images`: how many. `products`: six (rr, rg, rb, gg, gb, bb), Python integers. `mean_image_sums`: int64
    (size, size, 3), from which the sums of the channels follow.
    """

    def __init__(self, size_px: int) -> None:
        self.images = 0
        self.products = [0] * 6
        self.mean_image_sums = np.zeros((size_px, size_px, 3), np.int64)
        self._recent = np.zeros((size_px, size_px, 3), np.uint16)
        self._waiting: list[npt.NDArray[np.uint8]] = []

    @property
    def pixels(self) -> int:
        """Return the pixels of all images."""
        return self.images * self.mean_image_sums.shape[0] ** 2

    def add(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Add one image: uint8 (size, size, 3), RGB, or (size, size, 4) of which the last is not looked at."""
        size, channels = self.mean_image_sums.shape[0], pixels.shape[-1]
        if pixels.shape != (size, size, channels) or channels not in (3, 4) or pixels.dtype != np.uint8:
            raise ValueError(f"pixels: uint8 {(size, size, 3)} is summed here, not {pixels.dtype} {pixels.shape}")
        if channels != self._recent.shape[-1]:
            self._flush()
            self._recent = np.zeros((size, size, channels), np.uint16)
        pixels = np.ascontiguousarray(pixels)
        products = _compiled.products(pixels, channels) if _compiled else products_with_numpy(pixels)
        self.products = [total + product for total, product in zip(self.products, products, strict=True)]
        if pixels.flags.writeable:  # it may change when we return
            self._recent += pixels
        else:
            self._waiting.append(pixels)
            self._add_waiting(_TOGETHER)
        self.images += 1
        if self.images % _UINT16_IMAGES == 0:
            self._flush()

    def merge(self, other: Self) -> None:
        """Add another accumulator's sums to this one."""
        other._flush()
        self._flush()
        self.images += other.images
        self.products = [a + b for a, b in zip(self.products, other.products, strict=True)]
        self.mean_image_sums += other.mean_image_sums

    def mean_image(self) -> npt.NDArray[np.float32]:
        """Return the mean image: float32 (size, size, 3), 0-255."""
        self._flush()
        return (self.mean_image_sums / max(self.images, 1)).astype(np.float32)

    @property
    def sums(self) -> list[int]:
        """Return the sum of each channel over all pixels."""
        self._flush()
        return [int(v) for v in self.mean_image_sums.sum(axis=(0, 1))]

    def to_arrays(self) -> dict[str, npt.NDArray[np.int64]]:
        """Return the sums as int64 arrays, for one shard (a data set's products may exceed int64)."""
        self._flush()
        return {
            "counts": np.array([self.images, self.pixels], np.int64),
            "products": np.array(self.products, np.int64),
            "mean_image_sums": self.mean_image_sums,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.int64]]) -> Self:
        """Rebuild an accumulator from `to_arrays`."""
        sums = cls(arrays["mean_image_sums"].shape[0])
        sums.images = int(arrays["counts"][0])
        sums.products = [int(v) for v in arrays["products"]]
        sums.mean_image_sums = arrays["mean_image_sums"].astype(np.int64)
        return sums

    def _add_waiting(self, least: int) -> None:
        """Add what waits to the mean image's sums, once there are so many: these are out of cache every time."""
        if len(self._waiting) < least:
            return
        if _compiled and len(self._waiting) == _TOGETHER:
            _compiled.add_four(*self._waiting, self._recent)
        else:
            for pixels in self._waiting:
                self._recent += pixels
        self._waiting.clear()

    def _flush(self) -> None:
        self._add_waiting(1)
        self.mean_image_sums += self._recent[:, :, :3]
        self._recent[:] = 0


def products_with_numpy(pixels: npt.NDArray[np.uint8]) -> tuple[int, ...]:
    """Return an image's sums of products (rr, rg, rb, gg, gb, bb)."""
    products = [0] * 6
    rows = pixels.reshape(-1, pixels.shape[-1])[:, :3]
    for first in range(0, len(rows), _BAND_PIXELS):
        red, green, blue = rows[first : first + _BAND_PIXELS].T.astype(np.float64, order="C")
        # Six dot products take 0.05 ms an image, the matrix product of the planes 0.3.
        for k, product in enumerate((red @ red, red @ green, red @ blue, green @ green, green @ blue, blue @ blue)):
            products[k] += int(product)
    return tuple(products)


@dataclass(frozen=True, kw_only=True)
class ColourStatistics:
    """Hold the colour statistics of a data set's training pixels, RGB on the 0-255 scale, rounded to 12 digits.

    `mean`: (3,). `covariance`: (3, 3), of single pixels. `eigenvalues`: (3,), falling, in squared pixel values.
    `eigenvectors`: (3, 3), row k belongs to eigenvalue k, unit length, component of largest magnitude positive.
    `standard_deviations`: (3,), square roots of the eigenvalues: what lighting noise is multiplied by.
    """

    mean: Levels
    covariance: Annotated[tuple[Vector, ...], _THREE]
    eigenvalues: Vector
    eigenvectors: Annotated[tuple[Vector, ...], _THREE]
    standard_deviations: Levels

    def __post_init__(self) -> None:
        if min(self.covariance[c][c] for c in range(3)) < 0:
            raise ValueError("colour.covariance holds a variance below 0")

    @property
    def channel_standard_deviations(self) -> tuple[float, ...]:
        """Return the standard deviation of each channel, 0-255."""
        return tuple(math.sqrt(self.covariance[c][c]) for c in range(3))


def statistics_of(sums: ColourSums) -> ColourStatistics:
    """Compute mean, covariance and principal axes from exact sums; all zero axes are fine (one flat colour)."""
    n = sums.pixels
    if n == 0:
        raise ValueError("colour statistics need at least one image")
    channel_sums = sums.sums
    covariance = [[0.0] * 3 for _ in range(3)]
    for (a, b), product in zip(_PAIRS, sums.products, strict=True):
        # Python divides integers of any size with one correct rounding.
        covariance[a][b] = covariance[b][a] = (n * product - channel_sums[a] * channel_sums[b]) / (n * n)
    eigenvalues, eigenvectors = principal_axes(covariance)
    return ColourStatistics(
        mean=tuple(_rounded(s / n) for s in channel_sums),
        covariance=tuple(tuple(_rounded(v) for v in row) for row in covariance),
        eigenvalues=tuple(_rounded(v) for v in eigenvalues),
        eigenvectors=tuple(tuple(_rounded(v) for v in row) for row in eigenvectors),
        standard_deviations=tuple(_rounded(math.sqrt(max(v, 0.0))) for v in eigenvalues),
    )


def axes_agree(said: ColourStatistics) -> bool:
    """Say whether the axes are those of the covariance: the eigenproblem's solution is tested, not found again."""
    lists = (said.covariance, said.eigenvalues, said.eigenvectors, said.standard_deviations)
    covariance, values, vectors, deviations = (np.array(figures, np.float64) for figures in lists)
    scale = max(float(np.abs(covariance).max()), 1e-12)
    residuals = (
        np.abs(covariance - covariance.T).max() / scale,
        np.abs(vectors @ covariance - values[:, None] * vectors).max() / scale,
        np.abs(vectors @ vectors.T - np.eye(3)).max(),
        np.abs(deviations**2 - np.maximum(values, 0.0)).max() / scale,
    )
    return max(residuals) <= _RESIDUAL and not np.any(np.diff(values) > 0)


def stored_colour_problems(
    sums: ColourSums, dc_step: int, said: ColourStatistics, mean_image: npt.NDArray[np.float32] | None
) -> tuple[list[str], list[str]]:
    """Say which statistics, and whether the mean image, cannot be of the stored training images whose sums are given.

    They cannot be equal: what is said is of the pixels before encoding. A stored JPEG has rounded frequencies, and half
    the colour resolution (4:2:0): fine detail goes, fine colour most of all, and hardly anything comes. So each figure
    has a range. The mean moves by little. A spread grows by little, and shrinks by at most 75% of what in its axis is
    colour (noise of single pixels loses 65%; photographs of 256 px lose 0.4%, of 40 px 2%) and by more where steps are
    coarse. The ranges were set on photographs of 256 and 40 px and on noise, at qualities from 100 to 1; no figure used
    more than 88% of its range (docs/measurements.md). `dc_step`: the coarsest step that DC terms are rounded to.
    """
    stored = statistics_of(sums)
    axes, covariance = np.array(said.eigenvectors), np.array(stored.covariance)
    deviations = np.sqrt(np.maximum(np.einsum("ki,ij,kj->k", axes, covariance, axes), 0.0))
    means, spread, found = np.array(said.mean), np.array(said.standard_deviations), []
    colour = 1.0 - axes.sum(axis=1) ** 2 / 3  # share of a unit axis: nothing of (1, 1, 1) / sqrt(3), all across it
    loss = np.minimum(1.0, _COLOUR_LOSS * colour + dc_step / _COARSE_STEP)
    level, margin = 0.5 + dc_step / 64, 2.0 + dc_step / 8
    for name, figures, figures_said, low, high in (
        ("mean", np.array(stored.mean), means, means - level, means + level),
        ("standard_deviations", deviations, spread, spread * (1.0 - loss) - margin, spread + margin),
    ):
        if not np.all((low <= figures) & (figures <= high)):
            texts = [", ".join(f"{v:.2f}" for v in row) for row in (figures_said, figures, low, high)]
            text = "says colour.{} {} where the stored images have {}; encoding explains {} to {}"
            found.append(text.format(name, *texts))
    if mean_image is None:
        return found, []
    # What an image lost, and rounding, is its own error; the mean of many images has a share of 1 / sqrt(images) of it.
    lost = math.sqrt(max(float((spread**2 - deviations**2).mean()), 0.0))
    limit = 0.5 + (12.0 + dc_step / 2 + 1.5 * lost) / math.sqrt(max(sums.images, 1))
    distance = math.sqrt(float(np.square(mean_image.astype(np.float64) - sums.mean_image()).mean()))
    problem = (
        f"differs from the stored images' mean by {distance:.2f} (root mean square); encoding explains {limit:.2f}"
    )
    return found, [problem] if distance > limit else []


def principal_axes(symmetric: Matrix) -> tuple[list[float], Matrix]:
    """Diagonalise a symmetric 3x3 matrix: eigenvalues falling, unit eigenvectors as rows, largest component positive.

    Cyclic Jacobi rotations (Golub and Van Loan, section 8.5); a 3x3 matrix is diagonal to the last bit in under ten
    sweeps.
    """
    a, v = np.array(symmetric, np.float64), np.eye(3)
    for _ in range(30):
        if a[0, 1] == a[0, 2] == a[1, 2] == 0.0:
            break
        for p, q in ((0, 1), (0, 2), (1, 2)):
            _rotate(a, v, p, q)
    order = np.argsort(-a.diagonal(), kind="stable")
    vectors: Matrix = v.T[order].tolist()
    for row in vectors:
        if max(row, key=abs) < 0:
            row[:] = [-x for x in row]
    return a.diagonal()[order].tolist(), vectors


def _rotate(a: Square, v: Square, p: int, q: int) -> None:
    """Annihilate a[p, q] in place and turn the eigenvectors (columns of v) along."""
    app, aqq, apq = float(a[p, p]), float(a[q, q]), float(a[p, q])
    if abs(apq) <= 1e-18 * math.sqrt(abs(app * aqq)):
        a[p, q] = a[q, p] = 0.0
        return
    theta = (aqq - app) / (2.0 * apq)
    t = math.copysign(1.0, theta) / (abs(theta) + math.sqrt(theta * theta + 1.0))
    c = 1.0 / math.sqrt(t * t + 1.0)
    s = t * c
    a[:, p], a[:, q] = c * a[:, p] - s * a[:, q], s * a[:, p] + c * a[:, q]
    a[p], a[q] = c * a[p] - s * a[q], s * a[p] + c * a[q]
    a[p, q] = a[q, p] = 0.0
    v[:, p], v[:, q] = c * v[:, p] - s * v[:, q], s * v[:, p] + c * v[:, q]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
