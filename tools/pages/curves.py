"""Draw what a run measured over its course: loss, error, speed, waiting; as inline SVG.

A curve of many points is drawn as means over equal parts, with the range of each part behind it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from alexnet.tools.pages.charts import Frame, plot
from alexnet.tools.pages.render import tag
from alexnet.tools.use.run_files import Records, Series

WIDTH, HEIGHT = 530.0, 270.0  # half of the page, in CSS pixels
MOST_POINTS = 240
"""Points of a curve, one for every other pixel; of more, means of parts are drawn."""

_ILSVRC_CLASSES, _ILSVRC_IMAGES = 1000, 50_000
_PAPERS_ERRORS = (40.7, 18.2)  # one network, ten views, ILSVRC-2012 (paper, section 6)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Hold one curve. `kind`: the class that colours it, `one` or `two`. `dots`: mark each point, for few of them."""

    kind: str
    x: Series
    y: Series
    dots: bool = False


def loss(records: Records) -> Markup:
    """Draw the training loss, and the validation loss after each epoch."""
    x = _place(records, records.steps)
    validated = _validated(records, [np.nan if v.val_loss is None else v.val_loss for v in records.judged])
    highest = float(np.quantile(records.loss, 0.98)) if len(records.loss) else 1.0
    most = max([highest, chance(records.kept.net.classes), *validated.y.tolist()[-1:]])
    curves = [Curve(kind="one", x=x, y=records.loss), validated]
    return chart(curves, most * 1.08, _x_title(records), "Training and validation loss")


def of_ilsvrc(records: Records) -> bool:
    """Say whether the errors are over as many images of as many classes as the paper's, so that they compare."""
    images = {v.val_images for v in records.judged}
    return records.kept.net.classes == _ILSVRC_CLASSES and images == {_ILSVRC_IMAGES}


def chance(classes: int) -> float:
    """Return the loss of guessing: ln(classes)."""
    return math.log(max(classes, 2))


def error(records: Records) -> Markup:
    """Draw top-1 and top-5 error over the validation images, in per cent; with the paper's where it is comparable."""
    one = _validated(records, [100 * v.errors[0] for v in records.judged], "one")
    two = _validated(records, [100 * v.errors[1] for v in records.judged], "two")
    most = max([1.0, *one.y.tolist(), *two.y.tolist()])
    marks = _PAPERS_ERRORS if of_ilsvrc(records) else ()
    return chart([one, two], min(100.0, most) * 1.08, _x_title(records), "Validation error in per cent", marks)


def speed(records: Records) -> Markup:
    """Draw images a second over the hours of training."""
    most = float(records.images_per_s.max()) if len(records.steps) else 1.0
    x, title = _time(records)
    return chart([Curve(kind="one", x=x, y=records.images_per_s)], most * 1.08, title, "Images a second")


def waiting(records: Records) -> Markup:
    """Draw the share of time spent waiting for data, in per cent, over the hours of training."""
    share = 100 * records.data_wait
    most = max(1.0, float(share.max()) if len(share) else 1.0)
    x, title = _time(records)
    return chart([Curve(kind="two", x=x, y=share)], most * 1.08, title, "Waiting for data, in per cent of the time")


def chart(
    curves: Sequence[Curve], y_high: float, x_title: str, description: str, levels: Sequence[float] = ()
) -> Markup:
    """Draw curves in one frame. `levels`: heights to be marked by a dashed line."""
    drawn = [curve for curve in curves if len(curve.x)]
    x_high = max((float(curve.x[-1]) for curve in drawn), default=1.0) or 1.0
    frame = Frame(width=WIDTH, height=HEIGHT, x_low=0.0, x_high=x_high, y_high=y_high)
    lines = [
        tag("line", x1=frame.x(0), x2=frame.x(x_high), y1=frame.y(level), y2=frame.y(level), class_="median")
        for level in levels
        if level < y_high
    ]
    marks = [mark for curve in drawn for mark in _marks(frame, curve)]
    return plot(frame, x_title, description, *lines, *marks, y_steps=5)


def _marks(frame: Frame, curve: Curve) -> list[Markup]:
    x, low, mean, high = thinned(curve.x, np.minimum(curve.y, frame.y_high))
    line = tag("path", d=frame.line(x, mean), class_=f"line {curve.kind}")
    if curve.dots and len(curve.x) <= MOST_POINTS // 2:
        return [line, tag("path", d=frame.dots(x, mean), class_=f"points {curve.kind}")]
    if len(x) == len(curve.x):
        return [line]
    band = f"{frame.line(x, high)}L{frame.line(x[::-1], low[::-1])[1:]}Z"
    return [tag("path", d=band, class_=f"band {curve.kind}"), line]


def thinned(x: Series, y: Series) -> tuple[Series, Series, Series, Series]:
    """Cut a curve into equal parts if it has too many points: their mean x, and least, mean and largest y."""
    if len(x) <= MOST_POINTS:
        return x, y, y, y
    parts = np.array_split(np.arange(len(x)), MOST_POINTS)
    columns = [(x[p].mean(), y[p].min(), y[p].mean(), y[p].max()) for p in parts]
    first, low, mean, high = np.array(columns).T
    return first, low, mean, high


def _validated(records: Records, values: Sequence[float], kind: str = "two") -> Curve:
    steps, y = np.array([v.step for v in records.judged], np.float64), np.array(values, np.float64)
    finite = np.isfinite(y)  # a loss may have overflowed
    return Curve(kind=kind, x=_place(records, steps[finite]), y=y[finite], dots=True)


def _place(records: Records, steps: Series) -> Series:
    return steps / (records.steps_an_epoch or 1.0)


def _x_title(records: Records) -> str:
    return "epochs" if records.steps_an_epoch else "steps"


def _time(records: Records) -> tuple[Series, str]:
    """Return when each record was made, in the unit that suits the length of the run."""
    total = float(records.hours[-1]) if len(records.hours) else 0.0
    for unit, factor in (("hours", 1.0), ("minutes", 60.0)):
        if total * factor >= 2:
            return records.hours * factor, f"{unit} of training"
    return records.hours * 3600, "seconds of training"
