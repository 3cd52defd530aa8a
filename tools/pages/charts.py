"""Draw charts as inline SVG: histograms, images a class, the order of classes, colours, curves over a run.

Sizes are in CSS pixels of a page that is 1,100 wide; colours and fonts come from the page's style sheet, so that a
chart is right in the light and in the dark.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from alexnet.shards.colour import ColourStatistics
from alexnet.tools.pages.render import Child, tag

_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 12.0, 12.0, 40.0
_MOST_POINTS = 1_000  # of a curve: no screen shows more
_CHANNELS = ("red", "green", "blue")
_STEPS = 9  # colours in a strip, from -2 to +2 standard deviations


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Map data onto a plot of a given size; upwards it begins at 0, to the right at `x_low`."""

    width: float
    height: float
    x_low: float
    x_high: float
    y_high: float

    def x(self, value: float) -> float:
        """Return a value's place from the left."""
        inner = self.width - _LEFT - _RIGHT
        return round(_LEFT + inner * (value - self.x_low) / (self.x_high - self.x_low), 1)

    def y(self, value: float) -> float:
        """Return a value's place from the top."""
        return round(self.height - _BOTTOM - (self.height - _TOP - _BOTTOM) * value / self.y_high, 1)

    def line(self, x: Iterable[float], y: Iterable[float]) -> str:
        """Return the path of a line through points."""
        return "M" + "L".join(self._points(x, y))

    def dots(self, x: Iterable[float], y: Iterable[float]) -> str:
        """Return a path of dots, one a point."""
        return "".join(f"M{point}h0" for point in self._points(x, y))

    def _points(self, x: Iterable[float], y: Iterable[float]) -> Iterator[str]:
        return (f"{self.x(a):g} {self.y(b):g}" for a, b in zip(x, y, strict=True))


def ticks(high: float, count: int = 4, low: float = 0.0) -> list[float]:
    """Return round numbers from `low` to `high`: multiples of 1, 2 or 5 times a power of ten, about `count` of them."""
    rough = max(high - low, 1e-9) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def plot(
    frame: Frame,
    x_title: str,
    description: str,
    *marks: Markup,
    x_ticks: Sequence[float] | None = None,
    y_steps: int = 4,
) -> Markup:
    """Put marks into a frame with a quiet grid of about `y_steps` lines, an axis and a title below."""
    y_grid = [_grid_line(frame, value) for value in ticks(frame.y_high, y_steps)]
    bottom = frame.height - _BOTTOM
    x_labels = [
        tag("text", _number(value), x=frame.x(value), y=bottom + 18, class_="tick middle")
        for value in (ticks(frame.x_high, 6, frame.x_low) if x_ticks is None else x_ticks)
    ]
    axis = tag("line", x1=_LEFT, x2=frame.width - _RIGHT, y1=bottom, y2=bottom, class_="axis")
    title = tag("text", x_title, x=(_LEFT + frame.width - _RIGHT) / 2, y=bottom + 35, class_="tick middle")
    return svg(frame.width, frame.height, description, y_grid, marks, axis, x_labels, title)


def svg(width: float, height: float, description: str, *children: Child) -> Markup:
    """Make a drawing that scales with the page and says to a screen reader what it shows."""
    label = tag("title", description)
    return tag("svg", label, *children, viewBox=f"0 0 {width:g} {height:g}", role="img", class_="chart")


def histogram(values: npt.NDArray[np.integer], x_title: str, width: float, height: float) -> Markup:
    """Draw how often whole numbers fall into about 36 equal steps between their extremes, with a line at the median."""
    low, high, median = int(values.min()), int(values.max()), float(np.median(values))
    if high - low < 8:
        low, high = low - 4, high + 4
    rough = ticks(high, min(36, high - low), low)
    step = round(rough[1] - rough[0])
    shift = 0.5 if step == 1 else 0.0  # a bar of one number stands over it
    edges = [rough[0] - shift + step * k for k in range(-1, len(rough) + 1)]
    counts = np.histogram(values, bins=np.array(edges))[0]
    frame = Frame(width=width, height=height, x_low=edges[0], x_high=edges[-1], y_high=float(counts.max()) * 1.12)
    marks = [_bar(frame, left, left + step, int(count)) for left, count in zip(edges, counts, strict=False) if count]
    at, bottom = frame.x(median), height - _BOTTOM
    anchor, offset = ("start", 6) if at < width * 0.7 else ("end", -6)
    line = tag("line", x1=at, x2=at, y1=_TOP, y2=bottom, class_="median")
    note = tag("text", f"median {_number(median)}", x=at + offset, y=_TOP + 9, class_=f"note {anchor}")
    description = f"Histogram of {x_title}, {low:,} to {high:,}, median {_number(median)}"
    return plot(frame, x_title, description, *marks, line, note)


def class_bars(counts: npt.NDArray[np.integer], names: Sequence[str], width: float) -> Markup:
    """Draw a named bar a class: for a few classes."""
    row, left, inner = 26.0, 190.0, width - 190.0 - 60
    children: list[Markup] = []
    for k, (share, count, name) in enumerate(zip(counts / max(counts.max(), 1), counts, names, strict=True)):
        y, long = k * row, round(inner * float(share), 1)
        short = name if len(name) <= 26 else f"{name[:25]}…"
        children += [
            tag("text", tag("title", name), short, x=left - 10, y=y + 17, class_="label end"),
            tag("rect", x=left, y=y + 5, width=long, height=16, rx=2, class_="bar"),
            tag("text", f"{count:,}", x=left + long + 8, y=y + 17, class_="note start"),
        ]
    return svg(width, len(names) * row, f"Images of each of {len(names)} classes", children)


def class_profile(counts: npt.NDArray[np.integer], width: float, height: float) -> Markup:
    """Draw the classes in falling order of their images: for many classes."""
    falling = np.sort(counts)[::-1]
    classes = len(falling)
    frame = Frame(width=width, height=height, x_low=0.0, x_high=float(classes), y_high=float(falling[0]) * 1.08 or 1.0)
    places = np.unique(np.linspace(0, classes - 1, min(classes, _MOST_POINTS)).astype(int))
    curve = frame.line([*places, classes], [*falling[places], falling[-1]])
    area = tag("path", d=f"{frame.line([0], [0])}L{curve[1:]}L{frame.line([classes], [0])[1:]}Z", class_="area")
    line = tag("path", d=curve, class_="curve")
    description = f"Images a class, {classes} classes in falling order, from {falling[0]} to {falling[-1]}"
    return plot(frame, "classes, in falling order of images", description, area, line)


def order(labels: npt.NDArray[np.int32], classes: int, width: float, height: float) -> Markup:
    """Draw the label of samples spread over the whole order: a good shuffle looks like rain."""
    n = len(labels)
    frame = Frame(width=width, height=height, x_low=0.0, x_high=float(n), y_high=float(max(classes, 1)))
    places = np.unique(np.linspace(0, n - 1, min(n, 2 * _MOST_POINTS)).astype(int))
    marks = tag("path", d=frame.dots(places + 0.5, labels[places] + 0.5), class_="dots")
    return plot(frame, "place in the training set; upwards: label", f"Labels of {len(places)} samples by place", marks)


def _bar(frame: Frame, left: float, right: float, count: int) -> Markup:
    x1, x2, top, bottom = frame.x(left), frame.x(right), frame.y(count), frame.y(0)
    title = tag("title", f"{_number(left)} to {_number(right)}: {count:,}")
    return tag(
        "rect", title, x=x1 + 0.5, width=round(x2 - x1 - 1, 1), y=top, height=round(bottom - top, 1), class_="bar"
    )


def _grid_line(frame: Frame, value: float) -> Markup:
    y = frame.y(value)
    line = tag("line", x1=_LEFT, x2=frame.width - _RIGHT, y1=y, y2=y, class_="grid")
    return tag("g", line, tag("text", _number(value), x=_LEFT - 8, y=y + 4, class_="tick end"))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.2g}"


def plane(points: npt.NDArray[np.uint8], colour: ColourStatistics, x: int, y: int, size: float) -> Markup:
    """Project the cloud on the plane of two channels; an axis is drawn two standard deviations to each side."""
    frame = Frame(width=size, height=size, x_low=0.0, x_high=255.0, y_high=255.0)
    dots = [
        tag("circle", cx=frame.x(point[x]), cy=frame.y(point[y]), r=1.7, fill="#{:02x}{:02x}{:02x}".format(*point))
        for point in points.tolist()
    ]
    axes = []
    for k in (2, 1, 0):
        reach = 2 * colour.standard_deviations[k] * np.array(colour.eigenvectors[k])
        low, high = (np.array(colour.mean) - reach).tolist(), (np.array(colour.mean) + reach).tolist()
        ends = frame.line([low[x], high[x]], [low[y], high[y]])
        axes += [tag("path", d=ends, class_=c) for c in ("halo", f"pc pc{k + 1}")]
    box = {"x": _LEFT, "y": _TOP, "width": size - _LEFT - _RIGHT, "height": size - _TOP - _BOTTOM}
    clip = f"cloud-{x}{y}"
    across, up = _CHANNELS[x], _CHANNELS[y]
    return plot(
        frame,
        f"{across}; upwards: {up}",
        f"Pixels of the training set by {across} and {up}, with the principal axes",
        tag("clipPath", tag("rect", **box), id=clip),
        tag("rect", **box, class_="box"),
        tag("g", dots, axes, clip_path=f"url(#{clip})"),
    )


def strip(colour: ColourStatistics, axis: int) -> list[str]:
    """Return the colours along one axis, from two standard deviations below the mean to two above, as CSS colours."""
    reach = colour.standard_deviations[axis] * np.array(colour.eigenvectors[axis])
    steps = np.linspace(-2.0, 2.0, _STEPS)
    colours = np.clip(np.rint(np.array(colour.mean) + steps[:, None] * reach), 0, 255).astype(int)
    return ["#{:02x}{:02x}{:02x}".format(*row) for row in colours.tolist()]
