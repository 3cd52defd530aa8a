"""What a training step must compute and move, counted from a network's drawing: the two rooflines.

The arithmetic roofline is operations over the machine's rate. The other takes each layer by itself: it needs the larger
of its operations over the rate and its bytes over the bandwidth, and layers add up. Counted are the layers with weights
and the update; everything between (rectifiers, pooling, normalisation) is taken to cost nothing, as if it were fused.
So both are limits that no implementation with these operations beats, not goals that one reaches.
"""

from dataclasses import dataclass
from math import prod

from alexnet.model.networks.architecture import trace
from alexnet.model.networks.figures import figures
from alexnet.model.networks.settings import NetSettings, architecture_of

_UPDATE_BYTES = 5 * 4  # of a parameter: weight, gradient and momentum read, weight and momentum written, in float32
_FORWARD, _BACKWARD = 2, 4  # operations of a multiply-add; backward has two products, one without an input gradient


@dataclass(frozen=True, kw_only=True)
class LayerWork:
    """Hold what one layer of one training step needs: operations and bytes, read and written."""

    name: str
    flop: float
    bytes: float

    def seconds(self, flop_per_s: float, bytes_per_s: float) -> float:
        """Return the least time it takes."""
        return max(self.flop / flop_per_s, self.bytes / bytes_per_s)


def step_work(settings: NetSettings, batch_images: int, value_bytes: int) -> list[LayerWork]:
    """Return the work of each layer with weights, and of the update. `value_bytes`: of a value computed with.

    Forward reads input and weights and writes the output; backward reads the output's gradient twice, weights and input
    once, and writes the gradients of weights and input. The first layer needs no gradient of its input.
    """
    drawing, px = architecture_of(settings), architecture_of(settings).input_px[0]
    rows = figures(drawing, px=px, channels=settings.input_channels, classes=settings.classes)
    towers = [
        {place.name: prod(place.reads) for place in trace(
            drawing, px=px, channels=settings.input_channels, classes=settings.classes, tower=tower
        )}
        for tower in range(drawing.towers)
    ]  # fmt: skip
    work = []
    for k, row in enumerate(rows):
        inputs = [tower[row.name] for tower in towers]
        read = batch_images * (sum(inputs) if row.reads == "own" else inputs[0])  # what both read is there once
        written, first = batch_images * row.neurons, k == 0
        forward = read + row.parameters + written
        backward = written + read + row.parameters + (0 if first else written + row.parameters + read)
        flop = row.multiply_adds * batch_images * (_FORWARD + (_BACKWARD // 2 if first else _BACKWARD))
        work.append(LayerWork(name=row.name, flop=flop, bytes=value_bytes * (forward + backward)))
    parameters = sum(row.parameters for row in rows)
    return [*work, LayerWork(name="update", flop=0.0, bytes=_UPDATE_BYTES * parameters)]


def arithmetic_bound(work: list[LayerWork], batch_images: int, flop_per_s: float) -> float:
    """Return images/s that the arithmetic alone allows."""
    return batch_images * flop_per_s / sum(layer.flop for layer in work)


def layer_bound(work: list[LayerWork], batch_images: int, flop_per_s: float, bytes_per_s: float) -> float:
    """Return images/s if each layer took the larger of its two times."""
    return batch_images / sum(layer.seconds(flop_per_s, bytes_per_s) for layer in work)
