"""Show validation images and what the network takes them for, as in the paper's figure 4.

Which images: as many classes as there is room for, spread over the class list, and of each its first image; they depend
on the data set alone, so the pages of two runs show the same.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import numpy.typing as npt
from PIL import Image

from alexnet.pipeline.augment import centre
from alexnet.shards.reader import SplitReader
from alexnet.tools.report.markup import element
from alexnet.tools.stored_jpeg import rgb_and_quality
from alexnet.tools.use.predict import Guess, Predictor

IMAGES = 20
_QUALITY = 85


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Hold one validation image as the network sees it, uint8 (crop, crop, 3), its class, and the five guesses."""

    label: int
    name: str
    key: str
    window: npt.NDArray[np.uint8]
    guesses: tuple[Guess, ...]


def look(predictor: Predictor, data: Path) -> list[Shown]:
    """Predict up to 20 validation images of a data set."""
    trained = predictor.trained
    reader = SplitReader(data, "val")
    ids = chosen(reader.labels, IMAGES)
    squares = [rgb_and_quality(reader.jpeg(sample_id).tobytes())[0] for sample_id in ids]
    guesses = predictor.guesses(squares) if squares else []
    y, x = centre(trained.augment, trained.data.size_px, 1).crop_yx[0].tolist()
    side = trained.augment.crop_px
    return [
        Shown(
            label=int(reader.labels[sample_id]),
            name=trained.data.name(int(reader.labels[sample_id])),
            key=reader.key(sample_id),
            window=square[y : y + side, x : x + side],
            guesses=tuple(found),
        )
        for sample_id, square, found in zip(ids, squares, guesses, strict=True)
    ]


def chosen(labels: npt.NDArray[np.int32], images: int) -> list[int]:
    """Choose samples of as many classes as there is room for, then second ones of the same classes, and so on."""
    by_class = np.argsort(labels, kind="stable")
    sorted_labels = labels[by_class]
    place_in_class = np.arange(len(labels)) - np.searchsorted(sorted_labels, sorted_labels)
    first = by_class[place_in_class == 0]
    if len(first) >= images:
        return [int(first[k * len(first) // images]) for k in range(images)]
    taken = by_class[np.argsort(place_in_class, kind="stable")][:images]
    return [int(k) for k in taken[np.argsort(labels[taken], kind="stable")]]


def figure_4(shown: Sequence[Shown]) -> Element:
    """Lay the images out as cards: picture, class, and a bar for each guess, the right one marked."""
    return element("div", [_card(one) for one in shown], class_="guesses")


def _card(shown: Shown) -> Element:
    image = element("img", src=_jpeg_uri(shown.window), alt=f"{shown.name}, validation image {shown.key}")
    small = " tiny" if len(shown.window) < 96 else ""
    bars = [_bar(guess, right=guess.label == shown.label) for guess in shown.guesses]
    name = element("figcaption", shown.name, title=f"{shown.name}: {shown.key}, label {shown.label}")
    return element("figure", image, name, element("ol", bars), class_=f"guess{small}")


def _bar(guess: Guess, *, right: bool) -> Element:
    share = f"{100 * guess.probability:.1f}%"
    fill = element("i", style=f"width:{share}")
    return element(
        "li",
        fill,
        element("span", guess.name),
        element("b", f"{guess.probability:.0%}"),
        title=f"{guess.name}: {guess.probability:.2%}{', the right class' if right else ''}",
        class_="right" if right else None,
    )


def _jpeg_uri(pixels: npt.NDArray[np.uint8]) -> str:
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(encoded, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
