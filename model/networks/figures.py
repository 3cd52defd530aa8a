"""What a network is in numbers, layer by layer: outputs, parameters, neurons, multiply-adds.

A neuron is an output of a layer that has parameters, as the paper counts them (section 3.5). A multiply-add is one
product of a weight with a value, in the forward pass of one image; biases, pooling and normalisation are not counted.
"""

from dataclasses import dataclass
from math import prod

from alexnet.model.networks.architecture import AllGather, Architecture, Conv, Full, Placed, Shape, Weighted, trace


@dataclass(frozen=True, kw_only=True)
class LayerFigures:
    """Describe a weighted layer over all towers. `output`: (maps, height, width) or (units,).

    `reads`: the `image`, a tower's `own` values, or `both` towers'; empty where there is one tower and no choice.
    """

    name: str
    what: str
    reads: str
    output: Shape
    parameters: int
    multiply_adds: int

    @property
    def neurons(self) -> int:
        """Count the layer's outputs."""
        return prod(self.output)


def figures(architecture: Architecture, *, px: int, channels: int, classes: int) -> tuple[LayerFigures, ...]:
    """Return the figures of every weighted layer. Raises InputError if the network does not take this size."""
    towers = [
        trace(architecture, px=px, channels=channels, classes=classes, tower=t) for t in range(architecture.towers)
    ]
    rows: list[LayerFigures] = []
    met = False
    for same_place in zip(*towers, strict=True):
        layer = same_place[0].layer
        met = met or isinstance(layer, AllGather)
        if isinstance(layer, Weighted):
            reads = "image" if not rows else "both" if met else "own" if len(towers) > 1 else ""
            rows.append(_row(layer, same_place, reads))
            met = False
    return tuple(rows)


def _row(layer: Weighted, same_place: tuple[Placed, ...], reads: str) -> LayerFigures:
    counted = [_weights_and_biases(placed) for placed in same_place]
    gives = [placed.gives for placed in same_place]
    return LayerFigures(
        name=layer.name,
        what=_what(layer),
        reads=reads,
        output=(sum(shape[0] for shape in gives), *gives[0][1:]),
        parameters=sum(weights + biases for weights, biases in counted),
        multiply_adds=sum(weights * prod(shape[1:]) for (weights, _), shape in zip(counted, gives, strict=True)),
    )


def _weights_and_biases(placed: Placed) -> tuple[int, int]:
    """Count those of one tower."""
    layer, maps, outputs = placed.layer, placed.reads[0], placed.gives[0]
    if isinstance(layer, Conv):
        connected = sum(map(len, layer.table)) if layer.table else maps * outputs
        return connected * layer.window**2, outputs
    return (maps * outputs if isinstance(layer, Full) else maps), outputs


def _what(layer: Weighted) -> str:
    if isinstance(layer, Full):
        return "full"
    if isinstance(layer, Conv):
        stride = f"/{layer.stride}" if layer.stride > 1 else ""
        return f"conv {layer.window}x{layer.window}{stride}{', table' if layer.table else ''}"
    return "subsample"
