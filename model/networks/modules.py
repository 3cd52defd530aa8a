"""A `torch.nn.Module` for each layer of a drawing."""

from torch import nn

from alexnet.model import layers, lenet_layers
from alexnet.model.networks import drawing as drawn
from alexnet.model.networks.trace import Placed

_FUNCTIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "scaled-tanh": lenet_layers.ScaledTanh}


def module_of(placed: Placed, clock: layers.StepClock, *, tower: int, dropout: float) -> nn.Module:
    """Build one layer of a tower. `dropout`: rate of the layers that drop units."""
    layer, width = placed.layer, placed.reads[0]
    if isinstance(layer, drawn.Drop):
        return layers.HashDropout(clock, placed.number, tower * width, dropout, scaled=layer.scaled)
    if isinstance(layer, drawn.Weighted):
        return _weighted(layer, width)
    return _without_weights(layer, width)


def _weighted(layer: drawn.Weighted, width: int) -> nn.Module:
    match layer:
        case drawn.Conv(table=None):
            return nn.Conv2d(width, layer.maps, layer.window, stride=layer.stride, padding=layer.padding)
        case drawn.Conv():
            return lenet_layers.TableConv2d(layer.table or (), width, layer.window)
        case drawn.Full():
            return nn.Linear(width, layer.units)
        case drawn.Subsample():
            return lenet_layers.SubsampleSum(width, layer.window)
    raise TypeError(f"{layer}: no module for this layer")


def _without_weights(layer: drawn.Layer, width: int) -> nn.Module:
    match layer:
        case drawn.Activation():
            return _FUNCTIONS[layer.kind]()
        case drawn.Pool(kind="max"):
            return nn.MaxPool2d(layer.window, layer.stride, ceil_mode=layer.ceil)
        case drawn.Pool():
            return nn.AvgPool2d(layer.window, layer.stride, ceil_mode=layer.ceil)
        case drawn.PoolTo():
            return nn.AdaptiveAvgPool2d(layer.px)
        case drawn.NormAcrossMaps():
            return layers.LocalResponseNorm(width, layer.size, layer.alpha, layer.beta, layer.k)
        case drawn.NormInMap():
            return layers.SameMapNorm(layer.size, layer.alpha, layer.beta)
        case drawn.PadEnd():
            return nn.ZeroPad2d((0, layer.px, 0, layer.px))
        case drawn.PadTo():
            return lenet_layers.CentreIn(layer.px)
        case drawn.Flatten():
            return nn.Flatten()
    raise TypeError(f"{layer}: no module for this layer")
