"""The page of a run, `report.html` in its folder: how it went, its first layer, its guesses, what it is worth, facts.

Everything is read from the run folder, so a run that was stopped, or ran in many processes, has its page, too.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alexnet.model.networks.figures import figures
from alexnet.model.networks.settings import NetSettings, architecture_of
from alexnet.shards.errors import InputError
from alexnet.shards.files import replace
from alexnet.shards.local_root import local_root
from alexnet.shards.manifest import read_manifest
from alexnet.shards.url import place_of
from alexnet.tools.console import tell
from alexnet.tools.pages import curves
from alexnet.tools.pages.data_set import Pixels
from alexnet.tools.pages.network_images import Judged, judged, kernel_sheets
from alexnet.tools.pages.render import render
from alexnet.tools.use.predict import Predictor
from alexnet.tools.use.run_files import Records, read_data_record
from alexnet.tools.use.trained import Trained, open_trained

REPORT_NAME = "report.html"

RATES_2012 = (90 * 1_200_000 / (6 * 86_400), 90 * 1_200_000 / (5 * 86_400))
"""Images a second of two GTX 580, least and most. The paper (section 5): "roughly 90 cycles through the training set of
1.2 million images, which took five to six days on two NVIDIA GTX 580 3GB GPUs"."""


def report_after(run: Path) -> None:
    """Write the report of a run that has just ended. Whatever goes wrong is a line of warning: the run is done."""
    try:
        tell(f"report: {write_report(run)}")
    except (Exception, KeyboardInterrupt) as error:  # a page about the run must not cost the run
        reason = " ".join(str(error).split()) or type(error).__name__
        tell(f"warning: no report was written ({reason}); `alexnet-model report {run}` tries again", err=True)


def write_report(run: Path, data: Path | None = None) -> Path:
    """Write a run's report, finished or not; return the file.

    `data`: the data set it trains on, if that is not where it was. Raises InputError if `run` is no run folder, or
    `data` another data set. Without a checkpoint or the data, the page says what is missing.
    """
    text, file = page(run, data), run / REPORT_NAME
    try:
        replace(file, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from None
    return file


def page(run: Path, data: Path | None = None) -> str:
    """Return the page as HTML; the same run folder gives the same text."""
    records = Records(run)
    net, px = records.kept.net, records.kept.augment.crop_px
    architecture = architecture_of(net)
    rows = figures(net, px)
    trained, missing = _weights(run)
    kernels, images = list[tuple[str, Pixels]](), list[Judged]()
    if trained is not None:
        predictor = Predictor(trained, "cpu")  # a GPU may be busy, and 20 images take the CPU a second
        kernels = kernel_sheets(predictor.net)
        where, missing = _data(records, run, trained, data)
        images = judged(predictor, where) if where else []
    share = sum(row.multiply_adds for row in rows) / papers_multiply_adds()
    state = "" if records.result else " The run is not finished: this is how it stands."
    return render(
        "run.html",
        title=f"{records.name}: run",
        records=records,
        about=f"{net.arch}: {architecture.about}.{state}",
        steps=max(records.last_step, trained.step if trained else 0),
        parameters=sum(row.parameters for row in rows),
        pairs=[_number(count) for count in pairs(records.rate, share)],
        curves=curves,
        kernels=kernels,
        images=images,
        missing=missing,
        right=sum(image.guesses[0].label == image.label for image in images),
        among_five=sum(any(guess.label == image.label for guess in image.guesses) for image in images),
        share=share,
        facts=[*_flat(records.settings), *((f"result: {key}", value) for key, value in _flat(records.result or {}))],
    )


def papers_multiply_adds() -> int:
    """Return the multiply-adds of an image in the paper's network."""
    return sum(row.multiply_adds for row in figures(NetSettings()))


def pairs(rate: float, share: float) -> tuple[float, float]:
    """Return how many pairs of GTX 580 a run is worth, least and most.

    `rate`: images/s. `share`: its network's multiply-adds an image, of the paper's: a smaller network's count for less.
    """
    low, high = RATES_2012
    return rate * share / high, rate * share / low


def _number(count: float) -> str:
    return f"{count:,.0f}" if count >= 10 else f"{count:,.1f}" if count >= 1 else f"{count:.2f}"


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{key}", f"{value:.6g}" if isinstance(value, float) else str(value)


def _weights(run: Path) -> tuple[Trained | None, str]:
    """Open the newest checkpoint, or say why there is none."""
    try:
        return open_trained(run), ""
    except InputError as error:
        return None, f"{error}."


def _data(records: Records, run: Path, trained: Trained, given: Path | None) -> tuple[Path | None, str]:
    """Return where the run's data set can be read, or say why it is not to be had."""
    where = given or read_data_record(run)[1]
    try:
        root = local_root(where, records.kept.stream.cache)
        same = read_manifest(root).images_digest() == trained.data.manifest
    except InputError as error:
        if given:
            raise
        return None, f"The data set cannot be read ({error}). `alexnet-model report {run} --data DATA` shows it."
    if same:
        return root, ""
    if given:
        there = place_of(read_data_record(run)[1])
        raise InputError(f"--data {place_of(given)}: is not the data set that {run} was trained on; that was {there}")
    right = f"`alexnet-model report {run} --data DATA` shows the right one"
    return None, f"The data set in {place_of(where)} is another one now. {right}."
