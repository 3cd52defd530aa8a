"""Put everything on one page: the pictures first, then what the numbers look like, then the facts.

The page needs nothing but itself: style, drawings and pictures are inside, and it forbids the browser to fetch more.
"""

from collections.abc import Iterable
from importlib.resources import files
from xml.etree.ElementTree import Element

import numpy as np
import numpy.typing as npt

from alexnet.shards.manifest import SPLITS
from alexnet.tools.report import charts, cloud
from alexnet.tools.report.contact_sheet import png_uri, sheet
from alexnet.tools.report.markup import document, element
from alexnet.tools.report.survey import Survey

Counts = npt.NDArray[np.int64]

_FEW_CLASSES = 40  # up to so many get a bar and a name each
_NAMED = 6  # of many classes, the fewest and the most images are named
_SPLIT_NAMES = {"train": "training", "val": "validation"}
_HALF, _THIRD = 530.0, 352.0  # of a page of 1,100, in CSS pixels
_AXIS_NAMES = ("first", "second", "third")
_LIGHTING = (
    "Lighting moves a whole image along each axis by a tenth of its standard deviation, times a draw from N(0, 1)."
)
_IMAGENET_DEVIATIONS = (121.78, 37.09, 19.72)  # of the training set as the network of 2012 knew it


def page(survey: Survey) -> str:
    """Return the page as HTML; the same survey gives the same text."""
    style = (files("alexnet.tools.report") / "page.css").read_text(encoding="utf-8")
    body = element(
        "main",
        _header(survey),
        _section("As training sees them", _sheet_caption(survey), sheet(survey)),
        _colour(survey),
        _classes(survey),
        _order(survey),
        _files(survey),
        _rejects(survey),
        _facts(survey),
    )
    return document(f"{survey.name}: data set", style, body)


def _section(title: str, caption: str, *children: Element | Iterable[Element]) -> Element:
    return element("section", element("h2", title), element("p", caption, class_="caption"), *children)


def _header(survey: Survey) -> Element:
    manifest = survey.manifest
    tiles = [(f"{len(survey.labels.get(split, ())):,}", f"{_SPLIT_NAMES[split]} images") for split in SPLITS] + [
        (f"{len(manifest.classes):,}", "classes"),
        (f"{manifest.size_px} px", "squares"),
        (_size(sum(shard.bytes for shard in manifest.shards)), f"in {len(manifest.shards):,} shards"),
        (f"{survey.rejects.total:,}", "rejected"),
    ]
    cells = [element("div", element("b", value), element("span", name)) for value, name in tiles]
    source = f"An alexnet data set, made from {manifest.source.get('kind', 'an unnamed source')}."
    return element("header", element("h1", survey.name), element("p", source), element("div", cells, class_="tiles"))


def _sheet_caption(survey: Survey) -> str:
    crop_px, size_px = survey.settings.crop_px, survey.manifest.size_px
    return (
        f"Left, the square as it is stored, {size_px} px, with the outlines of eight windows. Then those windows, "
        f"{crop_px} px, as a stream with seed 0 draws them in epochs 0 to 7: cut at the x, y written below, mirrored "
        "where ⇆ stands, all pixels shifted by one colour along the principal axes. All at one scale; values beyond 0 "
        "and 255 are clipped here, and only here."
    )


def _colour(survey: Survey) -> Element:
    colour = survey.manifest.colour
    planes = [cloud.plane(survey.cloud, colour, x, y, _THIRD) for x, y in ((0, 1), (0, 2), (2, 1))]
    heads = (
        "axis",
        "two standard deviations to each side of the mean",
        "standard deviation",
        "lighting",
        "ImageNet 2012",
    )
    rows = [
        (
            element("span", element("i", class_=f"key pc{k + 1}"), _AXIS_NAMES[k]),
            element("span", [element("i", style=f"background:{c}") for c in cloud.strip(colour, k)], class_="strip"),
            f"{colour.standard_deviations[k]:.2f}",
            f"± {colour.standard_deviations[k] * survey.settings.lighting_std:.2f}",
            f"{_IMAGENET_DEVIATIONS[k]:.2f}",
        )
        for k in range(3)
    ]
    mean = ", ".join(f"{v:.1f}" for v in colour.mean)
    picture = element("img", src=png_uri(survey.mean_image), alt="the mean image")
    figure = element("figure", picture, element("figcaption", f"mean image; its mean is {mean}"), class_="mean")
    below = element("div", figure, _table(heads, rows, "axes"), class_="colour")
    if survey.manifest.stored.channels == 1:
        return _section("Colour", "The images are grey, so there is one axis: from black to white. " + _LIGHTING, below)
    return _section(
        "Colour",
        f"{len(survey.cloud):,} pixels, each in its own colour, seen along blue, green and red. The lines are the "
        "principal axes of all training pixels, two standard deviations to each side of the mean: how far the colours "
        "of this data set spread, and in which direction. " + _LIGHTING,
        element("div", planes, class_="thirds"),
        below,
    )


def _classes(survey: Survey) -> Element:
    classes = survey.manifest.classes
    counts = {
        split: np.bincount(labels, minlength=len(classes)) for split, labels in survey.labels.items() if len(labels)
    }
    columns = []
    for split, images in counts.items():
        if len(classes) <= _FEW_CLASSES:
            drawing = charts.class_bars(images, [c.words or c.wnid for c in classes], _HALF)
        else:
            drawing = charts.class_profile(images, _HALF, 260)
        columns.append(element("div", element("h3", _SPLIT_NAMES[split]), drawing))
    spread = "; ".join(f"{_SPLIT_NAMES[split]} {_range(images)}" for split, images in counts.items())
    named = [] if len(classes) <= _FEW_CLASSES else [_fewest_and_most(survey, counts["train"])]
    return _section("Classes", f"Images a class: {spread}.", element("div", columns, class_="halves"), *named)


def _range(images: Counts) -> str:
    low, high = int(images.min()), int(images.max())
    return f"{low:,} in each" if low == high else f"{low:,} to {high:,}, {images.mean():,.1f} on average"


def _fewest_and_most(survey: Survey, images: Counts) -> Element:
    rising = np.argsort(images, kind="stable").tolist()
    lists = []
    for title, labels in (("fewest images", rising[:_NAMED]), ("most images", rising[: -_NAMED - 1 : -1])):
        rows = [
            (str(k), survey.manifest.classes[k].words or survey.manifest.classes[k].wnid, f"{images[k]:,}")
            for k in labels
        ]
        lists.append(element("div", _table(("label", title, "images"), rows, "named")))
    return element("div", lists, class_="halves")


def _order(survey: Survey) -> Element:
    labels, classes = survey.labels["train"], len(survey.manifest.classes)
    found, ideal = survey.shuffle
    window = min(256, len(labels))
    return _section(
        "Order on disk",
        f"{window} consecutive training samples hold {found:,.1f} distinct classes on average; a random order gives "
        f"about {ideal:,.1f}. The shuffle score is their ratio, {found / ideal:.2f}. Each dot is a sample: a good "
        "shuffle looks like rain, a set that was written class by class like a staircase.",
        charts.order(labels, classes, 1100.0, 240.0),
    )


def _files(survey: Survey) -> Element:
    lengths = np.concatenate(list(survey.lengths.values()))
    qualities = np.array(survey.qualities)
    bits = 8 * float(lengths.mean()) / survey.manifest.size_px**2
    halves = [
        element("div", element("h3", "bytes of a JPEG"), charts.histogram(lengths, "bytes", _HALF, 260)),
        element("div", element("h3", "estimated JPEG quality"), charts.histogram(qualities, "quality", _HALF, 260)),
    ]
    return _section(
        "Files",
        f"All {len(lengths):,} JPEGs by size: {_size(float(lengths.mean()))} on average, {bits:.2f} bits a pixel. "
        f"Quality is estimated from the quantisation tables of {len(qualities):,} training images spread over the set; "
        "a set that was encoded in one go has one quality.",
        element("div", halves, class_="halves"),
    )


def _rejects(survey: Survey) -> Element:
    rejects, counts = survey.rejects, survey.manifest.counts
    going_in = sum(c.input for c in counts.values())
    if not rejects.total:
        return _section("Rejected", f"None: all {going_in:,} images of the source could be decoded.")
    reasons = [(reason, f"{count:,}") for reason, count in rejects.reasons]
    first = [(reject.split, reject.source, reject.member, reject.reason) for reject in rejects.first]
    shown = f"; the first {len(first)} are listed" if len(first) < rejects.total else ""
    return _section(
        "Rejected",
        f"{rejects.total:,} of {going_in:,} images of the source could not be decoded and are not in the set{shown}.",
        _table(("reason (… stands for a number)", "images"), reasons, "reasons"),
        _table(("split", "source", "member", "reason"), first, "members"),
    )


def _facts(survey: Survey) -> Element:
    manifest = survey.manifest
    facts = [
        *((name.replace("_", " "), str(value)) for name, value in manifest.settings.items()),
        *((f"source {name}", value) for name, value in manifest.source.items()),
        *((f"version of {name}", value) for name, value in manifest.versions.items()),
        *(
            (f"{_SPLIT_NAMES.get(split, split)}", f"{c.input:,} in = {c.written:,} written + {c.rejected:,} rejected")
            for split, c in manifest.counts.items()
        ),
        ("sha256 of the manifest", survey.digest),
    ]
    return _section(
        "Facts",
        "From manifest.json. Its sha256 names the data exactly: training runs record it.",
        _table((), facts, "facts"),
    )


def _table(heads: Iterable[str], rows: Iterable[Iterable[Element | str]], kind: str) -> Element:
    names = [element("th", name, scope="col") for name in heads]
    head = [element("thead", element("tr", names))] if names else []
    body = element("tbody", [element("tr", [element("td", cell) for cell in row]) for row in rows])
    return element("div", element("table", head, body, class_=kind), class_="scroll")


def _size(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:,.0f} B"
