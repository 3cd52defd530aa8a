"""What a network is in numbers, layer by layer: what each reads and gives, its parameters, neurons and multiply-adds.

A neuron is an output of a layer that has parameters, as the paper counts them (section 3.5). A multiply-add is one
product of a weight with a value, in the forward pass of one image; biases, pooling and normalisation are not counted.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from alexnet.model.networks.architecture import AllGather, Full, Layer, Shape, Weighted
from alexnet.model.networks.settings import NetSettings, architecture_of


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Hold a layer in its place.

    `number`: how many weighted layers there are up to and including this one. `name`: its own, or what its kind is
    called and that number (`pool2` follows the second weighted layer). `reads`, `gives`: shapes of one tower's input
    and output.
    """

    name: str
    layer: Layer
    number: int
    reads: Shape
    gives: Shape


def class_range(classes: int, towers: int, tower: int) -> range:
    """Return the classes that a tower computes: as equal parts as can be, the first ones the larger."""
    part = -(-classes // towers)
    return range(min(tower * part, classes), min((tower + 1) * part, classes))


def trace(settings: NetSettings, tower: int = 0, px: int = 0) -> tuple[Placed, ...]:
    """Place every layer of one tower, for images of the usual size or `px`. Raises InputError if that does not fit."""
    architecture = architecture_of(settings)
    px = px or architecture.input_px[0]
    architecture.check_px(px)
    shape: Shape = (settings.input_channels, px, px)
    placed: list[Placed] = []
    number = 0
    for layer in architecture.layers:
        number += isinstance(layer, Weighted)
        if isinstance(layer, Full) and not layer.units:
            layer = dataclasses.replace(layer, units=len(class_range(settings.classes, architecture.towers, tower)))
        name = layer.name if isinstance(layer, Weighted) else f"{layer.short}{number}"
        placed.append(Placed(name=name, layer=layer, number=number, reads=shape, gives=layer.after(shape)))
        shape = placed[-1].gives
    return tuple(placed)


@dataclass(frozen=True, kw_only=True)
class LayerFigures:
    """Describe a weighted layer over towers. `output`: (maps, height, width) or (units,).

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


def figures(settings: NetSettings, px: int = 0, towers: Sequence[int] | None = None) -> tuple[LayerFigures, ...]:
    """Return the figures of every weighted layer, of all towers or some. Raises InputError as `trace` does."""
    wanted = range(architecture_of(settings).towers) if towers is None else towers
    rows: list[LayerFigures] = []
    met = False
    for same_place in zip(*(trace(settings, tower, px) for tower in wanted), strict=True):
        layer = same_place[0].layer
        met = met or isinstance(layer, AllGather)
        if isinstance(layer, Weighted):
            reads = "image" if not rows else "both" if met else "own" if len(same_place) > 1 else ""
            rows.append(_row(layer, same_place, reads))
            met = False
    return tuple(rows)


def _row(layer: Weighted, same_place: tuple[Placed, ...], reads: str) -> LayerFigures:
    weights = [place.layer.weights(place.reads) for place in same_place if isinstance(place.layer, Weighted)]
    gives = [place.gives for place in same_place]
    outputs = sum(shape[0] for shape in gives)
    return LayerFigures(
        name=layer.name,
        what=layer.what,
        reads=reads,
        output=(outputs, *gives[0][1:]),
        parameters=sum(weights) + outputs,  # a bias each
        multiply_adds=sum(weights) * prod(gives[0][1:]),
    )
