"""How many pairs of GTX 580 a run is worth: its images a second against those of 2012.

The paper (section 5): "roughly 90 cycles through the training set of 1.2 million images, which took five to six days on
two NVIDIA GTX 580 3GB GPUs". That is 90 * 1.2 million images in 432,000 to 518,400 seconds: 208 to 250 images/s.
"""

from dataclasses import dataclass
from xml.etree.ElementTree import Element

from alexnet.model.networks.alexnet_2012 import PAPER
from alexnet.model.networks.drawing import Drawing
from alexnet.model.networks.figures import figures
from alexnet.tools.report.charts import svg
from alexnet.tools.report.markup import element

EPOCHS, IMAGES, DAYS = 90, 1_200_000, (5, 6)
_DAY_SECONDS = 86_400
RATES = tuple(EPOCHS * IMAGES / (days * _DAY_SECONDS) for days in reversed(DAYS))
"""Images a second of the pair in 2012, least and most: 208.3 and 250."""

_A_ROW, _CARD, _HIGH, _GAP = 25, 34.0, 13.0, 10.0
_MOST_SHOWN = 500


@dataclass(frozen=True, kw_only=True)
class Worth:
    """Hold a run's speed, its network's multiply-adds an image as a share of the paper's, and the pairs it equals."""

    rate: float
    share: float

    @property
    def pairs(self) -> tuple[float, float]:
        """Return the least and the most pairs: 2012's longer time makes this run worth more."""
        low, high = RATES
        return self.rate * self.share / high, self.rate * self.share / low


def worth(rate: float, drawing: Drawing, px: int, channels: int, classes: int) -> Worth:
    """Compare a rate with that of 2012; an image counts by what its network has to multiply for it."""
    done = sum(row.multiply_adds for row in figures(drawing, px=px, channels=channels, classes=classes))
    papers = sum(row.multiply_adds for row in figures(PAPER, px=PAPER.input_px[0], channels=3, classes=1000))
    return Worth(rate=rate, share=done / papers)


def in_words(found: Worth) -> str:
    """State the arithmetic."""
    least, most = found.pairs
    low, high = RATES
    share = ""
    if abs(found.share - 1) > 0.01:
        share = f", times {found.share:.3g}, as its network multiplies that much of what the paper's does for an image"
    return (
        f"In 2012, {EPOCHS} epochs of {IMAGES / 1e6:g} million images took {DAYS[0]} to {DAYS[1]} days on two GTX 580: "
        f"{EPOCHS} x {IMAGES:,} / ({DAYS[1]} x {_DAY_SECONDS:,} s) = {low:,.0f} images/s, or {high:,.0f} with "
        f"{DAYS[0]}. This run trained on {found.rate:,.1f} images/s{share}: it is worth {number(least)} to "
        f"{number(most)} such pairs."
    )


def number(pairs: float) -> str:
    """Write a number of pairs with as many digits as it deserves."""
    return f"{pairs:,.0f}" if pairs >= 10 else f"{pairs:,.1f}" if pairs >= 1 else f"{pairs:.2f}"


def pictogram(found: Worth) -> Element:
    """Draw the pairs, two cards each: filled those that the run is worth at least, paler those at most."""
    least, most = found.pairs
    unit = max(1, -(-int(most) // _MOST_SHOWN))
    count = max(1, -(-int(1e3 * most / unit) // 1000))
    marks = [card for k in range(count) for card in _pair(k, least / unit - k, most / unit - k)]
    rows = -(-count // _A_ROW)
    width, height = _A_ROW * (_CARD + _GAP), rows * (2 * _HIGH + 3 + _GAP)
    each = f", each for {unit:,}" if unit > 1 else ""
    return svg(width, height, f"{number(least)} to {number(most)} pairs of GTX 580{each}", marks)


def _pair(k: int, least: float, most: float) -> list[Element]:
    x, y = (k % _A_ROW) * (_CARD + _GAP), (k // _A_ROW) * (2 * _HIGH + 3 + _GAP)
    marks = []
    for card in range(2):
        top = y + card * (_HIGH + 3)
        box = {"x": x, "y": top, "height": _HIGH, "rx": 2.5}
        marks.append(element("rect", width=_CARD, class_="card", **box))
        for share, kind in ((most, "card most"), (least, "card least")):
            if share > 0:
                marks.append(element("rect", width=round(_CARD * min(1.0, share), 2), class_=kind, **box))
        marks.append(element("circle", cx=x + _CARD - 9, cy=top + _HIGH / 2, r=3.6, class_="fan"))
    return marks
