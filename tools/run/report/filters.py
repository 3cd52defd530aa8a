"""Show what the first layer looks for: its kernels as pictures, the towers apart, as in the paper's figure 3."""

from xml.etree.ElementTree import Element

import numpy as np
import numpy.typing as npt
from torch import Tensor

from alexnet.model.networks.drawing import Conv
from alexnet.model.networks.network import Network
from alexnet.tools.report.contact_sheet import png_uri
from alexnet.tools.report.markup import element

Pixels = npt.NDArray[np.uint8]

_A_ROW = 16  # as in figure 3
_SCALE, _GAP = 6, 9  # pixels of the picture: of one weight, and between kernels


def kernels(net: Network) -> list[Pixels]:
    """Return each tower's kernels of the first layer as uint8 (n, window, window, 3).

    Each kernel is stretched on its own from its least weight, 0, to its largest, 255; one of a grey image is grey.
    Empty if the first layer is no convolution of an image.
    """
    name, modules = next(iter(net.weighted().items()))
    layer = next(place.layer for place in net.placed() if place.name == name)
    if not isinstance(layer, Conv) or layer.table:
        return []
    return [_stretched(module.get_parameter("weight")) for module in modules if module is not None]


def sheet(tower: Pixels) -> Pixels:
    """Lay kernels out in rows of 16, each weight a square, with nothing between them: uint8 (height, width, 4)."""
    count, window = tower.shape[:2]
    side, columns = window * _SCALE, min(_A_ROW, count)
    rows = -(-count // columns)
    picture = np.zeros((rows * (side + _GAP) - _GAP, columns * (side + _GAP) - _GAP, 4), np.uint8)
    for k, kernel in enumerate(tower):
        y, x = (k // columns) * (side + _GAP), (k % columns) * (side + _GAP)
        picture[y : y + side, x : x + side, :3] = kernel.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
        picture[y : y + side, x : x + side, 3] = 255
    return picture


def figures(net: Network) -> list[Element]:
    """Return one figure a tower."""
    towers = kernels(net)
    shown = []
    for k, tower in enumerate(towers):
        title = f"tower {k + 1}" if len(towers) > 1 else "all"
        caption = f"{title}: {len(tower)} kernels of {tower.shape[1]}x{tower.shape[2]}"
        image = element("img", src=png_uri(sheet(tower)), alt=f"The first layer, {caption}", class_="kernels")
        shown.append(element("figure", image, element("figcaption", caption)))
    return shown


def _stretched(weight: Tensor) -> Pixels:
    values = weight.detach().double().numpy().transpose(0, 2, 3, 1)
    low, high = values.min(axis=(1, 2, 3), keepdims=True), values.max(axis=(1, 2, 3), keepdims=True)
    span = np.where(high > low, high - low, 1.0)
    stretched = np.rint(255 * (values - low) / span).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(stretched, (*stretched.shape[:3], 3)))
