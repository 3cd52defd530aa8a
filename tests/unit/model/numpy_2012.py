"""The 2012 network's training step in NumPy and float64, written from the paper and from nothing else here.

Slow, plain, and independent: no autograd, no PyTorch. Parameters are arrays by (tower, layer, "weight" or "bias").
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Key = tuple[int, str, str]
Parameters = dict[Key, Array]

K, ALPHA, BETA, SIZE = 2.0, 1e-4, 0.75, 5  # section 3.3
TOWERS = (0, 1)


@dataclass
class Step:
    """Walk forwards through the two towers, remembering what the way back needs; then back.

    `masks`: by (tower, layer), (n, 2048), what dropout leaves of fc6 and fc7.
    """

    parameters: Parameters
    masks: dict[tuple[int, str], Array]
    gradients: Parameters = field(default_factory=dict)

    def run(self, images: Array, labels: npt.NDArray[np.int64]) -> float:
        """Return the mean loss of (n, 3, 224, 224) images, and leave the gradients."""
        edge = np.pad(images, ((0, 0), (0, 0), (0, 3), (0, 3)))  # the last of 55 steps reaches 3 px past the edge
        self._kept: dict[tuple[int, str], Array] = {}
        pooled = [self._first_two(t, edge) for t in TOWERS]
        both = np.concatenate(pooled, axis=1)
        features = [self._next_three(t, both) for t in TOWERS]
        flat = np.concatenate(features, axis=1).reshape(len(images), -1)
        hidden6 = np.concatenate([self._full(t, "fc6", flat) for t in TOWERS], axis=1)
        hidden7 = np.concatenate([self._full(t, "fc7", hidden6) for t in TOWERS], axis=1)
        scores = np.concatenate([self._linear(t, "fc8", hidden7) for t in TOWERS], axis=1)
        loss, grad = softmax_loss(scores, labels)
        grad = self._linear_back("fc8", hidden7, grad)
        grad = self._full_back("fc7", hidden6, grad)
        grad = self._full_back("fc6", flat, grad).reshape(len(images), -1, 6, 6)
        into_both = sum(self._next_three_back(t, half, both) for t, half in zip(TOWERS, halves(grad), strict=True))
        for t, half in zip(TOWERS, halves(np.asarray(into_both)), strict=True):
            self._first_two_back(t, half, edge)
        return loss

    def _first_two(self, t: int, edge: Array) -> Array:
        values = edge
        for layer, padding, stride in (("conv1", 0, 4), ("conv2", 2, 1)):
            values = self._conv(t, layer, values, padding, stride)
            self._kept[t, f"{layer} normalised"] = response_norm(values)
            values = self._kept[t, f"{layer} pooled"] = max_pool(self._kept[t, f"{layer} normalised"])
        return values

    def _first_two_back(self, t: int, grad: Array, edge: Array) -> None:
        for layer, padding, stride, read in (
            ("conv2", 2, 1, self._kept[t, "conv1 pooled"]),
            ("conv1", 0, 4, edge),
        ):
            grad = max_pool_back(self._kept[t, f"{layer} normalised"], grad)
            grad = response_norm_back(self._kept[t, layer], grad)
            grad = self._conv_back(t, layer, read, grad, padding, stride)

    def _next_three(self, t: int, both: Array) -> Array:
        values = both
        for layer in ("conv3", "conv4", "conv5"):
            values = self._conv(t, layer, values, 1, 1)
        return max_pool(values)

    def _next_three_back(self, t: int, grad: Array, both: Array) -> Array:
        grad = max_pool_back(self._kept[t, "conv5"], grad)
        for layer, read in (
            ("conv5", self._kept[t, "conv4"]),
            ("conv4", self._kept[t, "conv3"]),
            ("conv3", both),
        ):
            grad = self._conv_back(t, layer, read, grad, 1, 1)
        return grad

    def _conv(self, t: int, layer: str, values: Array, padding: int, stride: int) -> Array:
        """Convolve and rectify."""
        weight, bias = self.parameters[t, layer, "weight"], self.parameters[t, layer, "bias"]
        sums = np.tensordot(windows(pad(values, padding), weight.shape[2], stride), weight, axes=((1, 4, 5), (1, 2, 3)))
        self._kept[t, layer] = np.maximum(sums + bias, 0).transpose(0, 3, 1, 2)
        return self._kept[t, layer]

    def _conv_back(self, t: int, layer: str, read: Array, grad: Array, padding: int, stride: int) -> Array:
        weight = self.parameters[t, layer, "weight"]
        grad = grad * (self._kept[t, layer] > 0)
        padded, side, rows = pad(read, padding), weight.shape[2], grad.shape[2]
        self.gradients[t, layer, "bias"] = grad.sum(axis=(0, 2, 3))
        self.gradients[t, layer, "weight"] = np.tensordot(
            grad, windows(padded, side, stride), axes=((0, 2, 3), (0, 2, 3))
        )
        back = np.zeros_like(padded)
        for i in range(side):
            for j in range(side):
                part = np.tensordot(grad, weight[:, :, i, j], axes=((1,), (0,))).transpose(0, 3, 1, 2)
                back[:, :, i : i + stride * rows : stride, j : j + stride * rows : stride] += part
        return back[:, :, padding : back.shape[2] - padding, padding : back.shape[3] - padding]

    def _linear(self, t: int, layer: str, values: Array) -> Array:
        return values @ self.parameters[t, layer, "weight"].T + self.parameters[t, layer, "bias"]

    def _linear_back(self, layer: str, read: Array, grad: Array) -> Array:
        back = np.zeros_like(read)
        for t, half in zip(TOWERS, halves(grad), strict=True):
            self.gradients[t, layer, "weight"] = half.T @ read
            self.gradients[t, layer, "bias"] = half.sum(axis=0)
            back += half @ self.parameters[t, layer, "weight"]
        return back

    def _full(self, t: int, layer: str, values: Array) -> Array:
        """Multiply, rectify, drop."""
        self._kept[t, layer] = np.maximum(self._linear(t, layer, values), 0)
        return self._kept[t, layer] * self.masks[t, layer]

    def _full_back(self, layer: str, read: Array, grad: Array) -> Array:
        parts = [
            half * self.masks[t, layer] * (self._kept[t, layer] > 0)
            for t, half in zip(TOWERS, halves(grad), strict=True)
        ]
        return self._linear_back(layer, read, np.concatenate(parts, axis=1))


def updated(weights: Array, velocity: Array, gradient: Array, *, rate: float) -> tuple[Array, Array]:
    """Return weights and velocity after section 5's rule."""
    velocity = 0.9 * velocity - rate * (0.0005 * weights + gradient)
    return weights + velocity, velocity


def halves(values: Array) -> tuple[Array, Array]:
    middle = values.shape[1] // 2
    return values[:, :middle], values[:, middle:]


def pad(values: Array, px: int) -> Array:
    return np.pad(values, ((0, 0), (0, 0), (px, px), (px, px)))


def windows(values: Array, side: int, stride: int) -> Array:
    """Return (n, maps, rows, columns, side, side)."""
    return np.lib.stride_tricks.sliding_window_view(values, (side, side), axis=(2, 3))[:, :, ::stride, ::stride]


def max_pool(values: Array) -> Array:
    largest: Array = windows(values, 3, 2).max(axis=(4, 5))
    return largest


def max_pool_back(values: Array, grad: Array) -> Array:
    """Give each gradient to the largest of its window, the first of them where several are."""
    seen = windows(values, 3, 2)
    largest = seen.reshape(*seen.shape[:4], 9).argmax(axis=-1)
    back, rows = np.zeros_like(values), grad.shape[2]
    for place in range(9):
        i, j = divmod(place, 3)
        back[:, :, i : i + 2 * rows : 2, j : j + 2 * rows : 2] += grad * (largest == place)
    return back


def near_maps(values: Array) -> Array:
    """Return the sums over each map and two on either side of it."""
    padded = np.pad(values, ((0, 0), (SIZE // 2, SIZE // 2), (0, 0), (0, 0)))
    return sum((padded[:, i : i + values.shape[1]] for i in range(SIZE)), np.zeros_like(values))


def response_norm(values: Array) -> Array:
    return values * (K + ALPHA * near_maps(values**2)) ** -BETA


def response_norm_back(values: Array, grad: Array) -> Array:
    divisor = K + ALPHA * near_maps(values**2)
    return grad * divisor**-BETA - 2 * ALPHA * BETA * values * near_maps(grad * values * divisor ** (-BETA - 1))


def softmax_loss(scores: Array, labels: npt.NDArray[np.int64]) -> tuple[float, Array]:
    """Return the mean cross-entropy and its gradient."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = float(-np.log(probabilities[rows, labels]).mean())
    probabilities[rows, labels] -= 1
    return loss, probabilities / len(labels)
