"""Draw the training set's colours: the cloud of its pixels with its principal axes, and each axis as a strip.

The axes are the manifest's, over all pixels; the dots are a sample, each in its own colour.
"""

from xml.etree.ElementTree import Element

import numpy as np
import numpy.typing as npt

from alexnet.shards.colour import ColourStatistics
from alexnet.tools.report.charts import svg
from alexnet.tools.report.markup import element

_NAMES = ("red", "green", "blue")
_AXIS, _EDGE = 26.0, 4.0  # room for the names of the axes, and for dots on the other edges
_STEPS = 9  # colours in a strip, from -2 to +2 standard deviations


def plane(points: npt.NDArray[np.uint8], colour: ColourStatistics, x: int, y: int, size: float) -> Element:
    """Project the cloud on the plane of two channels; an axis is drawn two standard deviations to each side."""
    inner = size - _AXIS - _EDGE

    def place(rgb: npt.NDArray[np.floating]) -> tuple[float, float]:
        across, up = float(rgb[x]) / 255, float(rgb[y]) / 255
        return round(_AXIS + inner * across, 1), round(_EDGE + inner * (1 - up), 1)

    dots = []
    for point in points:
        cx, cy = place(point.astype(np.float64))
        dots.append(element("circle", cx=cx, cy=cy, r=1.7, fill="#{:02x}{:02x}{:02x}".format(*point.tolist())))
    mean = np.array(colour.mean)
    axes = []
    for k in (2, 1, 0):
        reach = 2 * colour.standard_deviations[k] * np.array(colour.eigenvectors[k])
        (x1, y1), (x2, y2) = place(mean - reach), place(mean + reach)
        axes += [element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=c) for c in ("halo", f"pc pc{k + 1}")]
    box = element("rect", x=_AXIS, y=_EDGE, width=inner, height=inner, class_="box")
    clip = f"cloud-{x}{y}"
    window = element("rect", x=_AXIS - 2, y=_EDGE - 2, width=inner + 4, height=inner + 4)
    turned = f"translate({_AXIS - 10:g} {_EDGE:g}) rotate(-90)"
    texts = [
        element("text", f"{_NAMES[x]} →", x=_AXIS + inner, y=size - 7, class_="tick end"),
        element("text", "0", x=_AXIS, y=size - 7, class_="tick middle"),
        element("text", f"{_NAMES[y]} →", class_="tick end", transform=turned),
    ]
    description = f"Pixels of the training set by {_NAMES[x]} and {_NAMES[y]}, with the principal axes"
    clouds = element("g", dots, axes, clip_path=f"url(#{clip})")
    return svg(size, size, description, element("clipPath", window, id=clip), box, clouds, texts)


def strip(colour: ColourStatistics, axis: int) -> list[str]:
    """Return the colours along one axis, from two standard deviations below the mean to two above, as CSS colours."""
    reach = colour.standard_deviations[axis] * np.array(colour.eigenvectors[axis])
    steps = np.linspace(-2.0, 2.0, _STEPS)
    colours = np.clip(np.rint(np.array(colour.mean) + steps[:, None] * reach), 0, 255).astype(int)
    return ["#{:02x}{:02x}{:02x}".format(*row) for row in colours.tolist()]
