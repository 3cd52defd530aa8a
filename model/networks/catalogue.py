"""The names of the networks."""

from alexnet.model.networks.alexnet_2012 import CONV6, ONE_TOWER, PAPER, SOURCE
from alexnet.model.networks.alexnet_owt import OWT
from alexnet.model.networks.cuda_convnet import CIFAR, CIFAR_80S
from alexnet.model.networks.drawing import Drawing
from alexnet.model.networks.lenet_5 import LENET_5
from alexnet.shards.errors import InputError, nearest

DRAWINGS: dict[str, Drawing] = {
    drawing.name: drawing for drawing in (LENET_5, CIFAR, CIFAR_80S, PAPER, SOURCE, CONV6, ONE_TOWER, OWT)
}
"""Every network by its name, from 1998 on."""


def drawing_named(name: str) -> Drawing:
    """Return a network's drawing. Raises InputError, with the nearest name, if there is none."""
    if name not in DRAWINGS:
        raise InputError(f"net.arch={name}: must be one of {', '.join(DRAWINGS)}{nearest(name, DRAWINGS)}")
    return DRAWINGS[name]
