"""Follow an image through a drawing by arithmetic: what each layer reads and gives, and what it is called."""

import dataclasses
from dataclasses import dataclass

from alexnet.model.networks.drawing import (
    Activation,
    Drawing,
    Drop,
    Flatten,
    Full,
    Layer,
    Meet,
    NormAcrossMaps,
    NormInMap,
    PadEnd,
    PadTo,
    Pool,
    PoolTo,
    Shape,
    Weighted,
)

_KINDS: dict[type[Layer], str] = {
    Activation: "act",
    Pool: "pool",
    PoolTo: "pool_to",
    NormAcrossMaps: "norm",
    NormInMap: "norm_in_map",
    PadEnd: "pad",
    PadTo: "pad",
    Drop: "drop",
    Flatten: "flat",
    Meet: "meet",
}


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Hold a layer in its place.

    `number`: how many weighted layers there are up to and including this one. `name`: its own, or its kind and that
    number (`pool2` follows the second weighted layer). `reads`, `gives`: shapes of one tower's input and output.
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


def trace(drawing: Drawing, *, px: int, channels: int, classes: int, tower: int = 0) -> tuple[Placed, ...]:
    """Place every layer of one tower. Raises InputError if the network does not take images of this size."""
    drawing.check_px(px)
    shape: Shape = (channels, px, px)
    number = 0
    placed = []
    for layer in drawing.layers:
        number += isinstance(layer, Weighted)
        if isinstance(layer, Full) and not layer.units:
            layer = dataclasses.replace(layer, units=len(class_range(classes, drawing.towers, tower)))
        name = layer.name if isinstance(layer, Weighted) else f"{_KINDS[type(layer)]}{number}"
        placed.append(Placed(name=name, layer=layer, number=number, reads=shape, gives=layer.after(shape)))
        shape = placed[-1].gives
    return tuple(placed)


def weighted_names(drawing: Drawing) -> list[str]:
    """Return the names of the layers with parameters, in order."""
    return [layer.name for layer in drawing.layers if isinstance(layer, Weighted)]
