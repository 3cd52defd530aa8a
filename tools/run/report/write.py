"""Write `report.html` into a run folder."""

from pathlib import Path
from xml.etree.ElementTree import Element

from alexnet.model.networks.figures import figures
from alexnet.model.networks.settings import drawing_of
from alexnet.shards.errors import InputError
from alexnet.shards.files import replace
from alexnet.shards.manifest import read_manifest
from alexnet.tools.console import tell
from alexnet.tools.run.report import era, filters, guesses
from alexnet.tools.run.report.page import Findings, page
from alexnet.tools.run.report.records import Records, read_records
from alexnet.tools.use.data_record import read_data_record
from alexnet.tools.use.predict import Predictor
from alexnet.tools.use.trained import Trained, open_trained

REPORT_NAME = "report.html"


def report_after(run: Path) -> None:
    """Write the report of a run that has just ended. Whatever goes wrong is a line of warning: the run is done."""
    try:
        tell(f"report: {write_report(run)}")
    except (Exception, KeyboardInterrupt) as error:  # a picture of the run must not cost the run
        reason = " ".join(str(error).split()) or type(error).__name__
        tell(f"warning: no report was written ({reason}); `alexnet-model report {run}` tries again", err=True)


def write_report(run: Path, data: Path | None = None) -> Path:
    """Write a run's report, finished or not; return the file.

    `data`: the data set it trains on, if that is not where it was. Raises InputError if `run` is no run folder, or
    `data` another data set. Without a checkpoint or the data, the page says what is missing.
    """
    records = read_records(run)
    text = page(records, _findings(run, records, data))
    file = run / REPORT_NAME
    try:
        replace(file, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from None
    return file


def _findings(run: Path, records: Records, data: Path | None) -> Findings:
    net, px = records.kept.net, records.kept.augment.crop_px
    drawing = drawing_of(net)
    rows = figures(drawing, px=px, channels=net.input_channels, classes=net.classes)
    trained, missing = _weights(run)
    kernels: list[Element] = []
    shown: list[guesses.Shown] = []
    if trained is not None:
        predictor = Predictor(trained, "cpu")  # a GPU may be busy, and 20 images take the CPU a second
        kernels = filters.figures(predictor.net)
        where, missing = _data(run, trained, data)
        shown = guesses.look(predictor, where) if where else []
    return Findings(
        about=drawing.about,
        step=trained.step if trained else 0,
        parameters=sum(row.parameters for row in rows),
        kernels=kernels,
        shown=shown,
        missing=missing,
        worth=era.worth(records.rate, drawing, px, net.input_channels, net.classes),
    )


def _weights(run: Path) -> tuple[Trained | None, str]:
    """Open the newest checkpoint, or say why there is none."""
    try:
        return open_trained(run), ""
    except InputError as error:
        return None, f"{error}."


def _data(run: Path, trained: Trained, given: Path | None) -> tuple[Path | None, str]:
    """Return where the run's data set is, or say why it is not to be had."""
    where = given or read_data_record(run)[1]
    try:
        same = read_manifest(where).digest() == trained.data.manifest
    except InputError as error:
        if given:
            raise
        return None, f"The data set cannot be read ({error}). `alexnet-model report {run} --data DIR` shows it."
    if same:
        return where, ""
    if given:
        raise InputError(f"--data {given}: is not the data set that {run} was trained on; that was {where}")
    return (
        None,
        f"The data set in {where} is another one now. `alexnet-model report {run} --data DIR` shows the right one.",
    )
