"""Put a run on one page: how it went, what the first layer sees, what the network says, what it is worth, the facts.

The page needs nothing but itself and looks as that of `alexnet-prep show`, whose style sheet it begins with.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from xml.etree.ElementTree import Element

from alexnet.tools.report.markup import document, element
from alexnet.tools.run.report import curves, era, guesses
from alexnet.tools.run.report.guesses import Shown
from alexnet.tools.run.report.records import Records


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Hold what the page shows beside the records.

    `about`: of the network, in words. `step`: of the newest checkpoint. `kernels`: figures of the first layer, empty if
    there is nothing to see. `shown`: validation images; `missing`: why there are none, or nothing of the weights.
    `parameters`: of the network.
    """

    about: str
    step: int
    parameters: int
    kernels: Sequence[Element]
    shown: Sequence[Shown]
    missing: str
    worth: era.Worth


def page(records: Records, findings: Findings) -> str:
    """Return the page as HTML; the same run folder gives the same text."""
    style = "".join(
        (files(package) / name).read_text(encoding="utf-8")
        for package, name in (("alexnet.tools.report", "page.css"), ("alexnet.tools.run.report", "report.css"))
    )
    body = element(
        "main",
        _header(records, findings),
        _learning(records),
        _feeding(records),
        _kernels(findings),
        _guesses(findings),
        _worth(findings),
        _facts(records),
    )
    return document(f"{records.name}: run", style, body)


def _header(records: Records, findings: Findings) -> Element:
    arch = records.kept.net.arch
    state = "" if records.result else " The run is not finished: this is how it stands."
    cells = [element("div", element("b", value), element("span", name)) for value, name in _tiles(records, findings)]
    return element(
        "header",
        element("h1", records.name),
        element("p", f"{arch}: {findings.about}.{state}"),
        element("div", cells, class_="tiles"),
    )


def _tiles(records: Records, findings: Findings) -> list[tuple[str, str]]:
    tiles = []
    if records.judged:
        last = records.judged[-1]
        tiles += [(f"{last.top1_error:.1%}", "top-1 error"), (f"{last.top5_error:.1%}", "top-5 error")]
    if final := records.final:
        tiles += [(f"{1 - final.top1:.1%}", "top-1, ten views"), (f"{1 - final.top5:.1%}", "top-5, ten views")]
    steps = max(records.last_step, findings.step)
    done = f"{steps / records.steps_an_epoch:,.4g}" if records.steps_an_epoch else ""
    epochs = f", {done} epoch{'s' * (done != '1')}" if done else ""
    least, most = findings.worth.pairs
    return [
        *tiles,
        (f"{steps:,}", f"steps{epochs}"),
        (f"{records.rate:,.0f}", "images/s"),
        (f"{records.waited:.1%}", "waiting for data"),
        (f"{findings.parameters / 1e6:,.1f} M", "parameters"),
        (f"{era.number(least)}–{era.number(most)}", "pairs of GTX 580"),  # noqa: RUF001 (an en dash is meant)
    ]


def _learning(records: Records) -> Element:
    if not len(records.steps):
        return _section("Learning", "Nothing has been logged yet.")
    classes = records.kept.net.classes
    judged = ", and of all validation images after each epoch" if records.judged else ""
    dashed = " Dashed: the paper's network, 40.7% and 18.2%, with ten views." if curves.of_ilsvrc(records) else ""
    band = " Where there are many batches, a line is their mean and a band their range." * _thinned(records)
    loss_key, error_key = [("one", "training, a batch")], [("one", "top-1"), ("two", "top-5")]
    if records.judged:
        loss_key.append(("two", "validation"))
    halves = [element("div", element("h3", "loss", _key(loss_key)), curves.loss(records))]
    if records.judged:
        title = element("h3", "validation error, per cent", _key(error_key))
        halves.append(element("div", title, curves.error(records)))
    return _section(
        "Learning",
        "The loss is the cross-entropy: of single batches in training, where images are augmented and units dropped"
        f"{judged}. Guessing among {classes:,} classes has "
        f"{curves.chance(classes):.2f}.{band}{dashed}",
        element("div", halves, class_="halves"),
    )


def _thinned(records: Records) -> bool:
    return len(records.steps) > curves.MOST_POINTS


def _feeding(records: Records) -> Element:
    if not len(records.steps):
        return _section("Feeding", "Nothing has been logged yet.")
    halves = [
        element("div", element("h3", "images a second"), curves.speed(records)),
        element("div", element("h3", "waiting for data, per cent of the time"), curves.waiting(records)),
    ]
    return _section(
        "Feeding",
        f"{records.rate:,.1f} images/s over all of training, {records.waited:.2%} of it spent waiting for a batch. "
        "Validation and checkpoints are not part of that time. The first steps of a process are slow.",
        element("div", halves, class_="halves"),
    )


def _kernels(findings: Findings) -> Element:
    if not findings.kernels:
        return _section("The first layer", findings.missing or "It has no kernels that could be shown as pictures.")
    towers = len(findings.kernels) > 1
    apart = " There one tower's came out mostly grey and the other's coloured, in every run." if towers else ""
    return _section(
        "The first layer",
        "Its kernels as pictures, each stretched to its own range, as in the paper's figure 3." + apart,
        element("div", findings.kernels, class_="towers"),
    )


def _guesses(findings: Findings) -> Element:
    if not findings.shown:
        return _section("What it sees", findings.missing or "The data set has no validation images.")
    right = sum(one.guesses[0].label == one.label for one in findings.shown)
    five = sum(any(guess.label == one.label for guess in one.guesses) for one in findings.shown)
    count = len(findings.shown)
    return _section(
        "What it sees",
        f"{count} validation images, each with its class and the five that the network finds most probable, as in the "
        f"paper's figure 4. The right class is marked: first in {right} of {count}, among the five in {five}.",
        guesses.figure_4(findings.shown),
    )


def _worth(findings: Findings) -> Element:
    picture = element("div", era.pictogram(findings.worth), class_="pairs")
    return _section("In pairs of GTX 580", era.in_words(findings.worth), picture)


def _facts(records: Records) -> Element:
    rows = [(key, value) for key, value in _flat(records.settings)]
    if records.result:
        rows += [(f"result: {key}", value) for key, value in _flat(records.result)]
    cells = [element("tr", element("td", key), element("td", value)) for key, value in rows]
    table = element("table", element("tbody", cells), class_="facts")
    caption = "Every setting of the run, the data's digest and the versions, from settings.json; and its result."
    return _section("Facts", caption, element("div", table, class_="scroll"))


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _plain(value)


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _key(entries: Sequence[tuple[str, str]]) -> Element:
    marks = [element("span", element("i", class_=f"key {kind}"), name) for kind, name in entries]
    return element("span", marks, class_="legend")


def _section(title: str, caption: str, *children: Element | Iterable[Element]) -> Element:
    return element("section", element("h2", title), element("p", caption, class_="caption"), *children)
