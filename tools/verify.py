"""`alexnet-prep verify`: say whether a data set is what it was when it was written, file by file."""

import dataclasses
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import click

from alexnet import __version__
from alexnet.shards.errors import InputError, one_line
from alexnet.shards.files import replace
from alexnet.shards.processes import usable_cores
from alexnet.shards.verify.check import verify as verify_data_set
from alexnet.shards.verify.report import Report
from alexnet.tools.console import interruptible, one_line_errors
from alexnet.tools.progress import Amount, progress, say

RECEIPT_SCHEMA = 1

_STDOUT = "-"


@click.command()
@click.argument("data", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--deep", is_flag=True, help="Also decode every JPEG and recompute the colour statistics.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes; the findings do not depend on it.  [default: cores]"
)
@click.option("--receipt", metavar="FILE", help="Write what was checked and found as JSON; `-` is standard output.")
@click.option("--json", "as_json", is_flag=True, help="Print events for machines, one JSON object a line.")
@one_line_errors
def verify(data: Path, deep: bool, workers: int | None, receipt: str | None, as_json: bool) -> None:
    """Check the data set DIR: every byte of every file, and that its parts agree with each other.

    Sizes and sha256 against the manifest and SHA256SUMS; missing and extra files; the index and the DALI index files
    against the tars; labels, keys and counts; with --deep also the pixels. One line a finding. Nothing is changed.

    A bar in a terminal, or a line every 30 seconds, says how far it is. With --json there are events instead: progress
    each second, each finding, and at last what was checked.

    The exit code is 0 if all is well, 1 if something was found, 2 if DIR cannot be checked, 130 if stopped.
    """
    out = _receipt_file(receipt, data)
    stream = sys.stderr if receipt == _STDOUT else sys.stdout  # beside the receipt alone, nothing is on its stream
    decode = _decoder() if deep else None
    with (
        interruptible("interrupted; nothing was changed"),
        progress(as_json=as_json, stream=stream if as_json else sys.stderr) as view,
    ):
        try:
            report = verify_data_set(
                data,
                decode=decode,
                workers=workers or usable_cores(),
                on_progress=lambda done, total: view.update(_amount(done, total)),
            )
        except PermissionError as error:
            raise InputError(f"{error.filename or data}: {error.strerror}; all of {data} must be readable") from None
    (_say if as_json else _print)(data, report, deep, stream)
    text = json.dumps(receipt_of(data, report, deep), indent=1) + "\n"
    if receipt == _STDOUT:
        click.echo(text, nl=False)
    elif out is not None:
        _write(out, text)
    if not report.passed:
        sys.exit(1)


def receipt_of(data: Path, report: Report, deep: bool) -> dict[str, Any]:
    """Return the receipt: what was checked, when and with which result; the schema is in docs/prep.md."""
    fields = dataclasses.asdict(report)
    return {
        "schema": RECEIPT_SCHEMA,
        "alexnet": __version__,
        "data_set": data.absolute().name,
        "finished_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "deep": deep,
        "passed": report.passed,
        "sha256": fields.pop("digests"),
        **fields,
        "seconds": round(report.seconds, 3),
    }


def _amount(done_bytes: int, total_bytes: int) -> Amount:
    return Amount(event="progress", done=done_bytes, total=total_bytes, unit="bytes")


def _print(data: Path, report: Report, deep: bool, stream: TextIO) -> None:
    """Tell people: a line a finding, and a summary."""
    for finding in report.findings:
        click.echo(str(finding), file=stream)
    click.echo(one_line(_summary(data, report, deep)), file=stream)


def _say(data: Path, report: Report, deep: bool, stream: TextIO) -> None:
    """Tell machines: an event a finding, and one that ends it."""
    for finding in report.findings:
        say(stream, event="finding", **dataclasses.asdict(finding))
    say(
        stream,
        event="complete",
        data_set=data.absolute().name,
        deep=deep,
        passed=report.passed,
        findings=len(report.findings),
        files=report.files,
        bytes=report.bytes,
        shards=report.shards,
        images=report.images,
        decoded=report.decoded,
        seconds=round(report.seconds, 3),
    )


def _summary(data: Path, report: Report, deep: bool) -> str:
    images = " and ".join(f"{count:,} {split}" for split, count in report.images.items())
    shards = f"{report.shards:,} shard{'s' if report.shards != 1 else ''}"
    looked = f"{report.decoded:,} images decoded" if deep else "pixels not looked at (--deep does)"
    speed = report.bytes / 1e6 / max(report.seconds, 1e-9)
    checked = (
        f"{data}: {images} images in {shards}; {report.files:,} files, {report.bytes / 1e6:,.1f} MB "
        f"checked in {report.seconds:,.1f} s ({speed:,.0f} MB/s), {looked}"
    )
    found = len(report.findings)
    return f"{checked}: " + ("all is well" if report.passed else f"{found} finding{'s' if found > 1 else ''}")


def _receipt_file(receipt: str | None, data: Path) -> Path | None:
    """Return where the receipt goes, if it goes to a file; refuse at the start what would fail at the end."""
    if receipt is None or receipt == _STDOUT:
        return None
    file = Path(receipt).absolute()
    if file.is_dir() or not file.parent.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise InputError(f"--receipt {receipt}: cannot be written; give a file in a folder that exists and is yours")
    if file.resolve().is_relative_to(data.resolve()):
        raise InputError(f"--receipt {receipt}: would be an extra file of the data set; give one outside of {data}")
    return file


def _write(file: Path, text: str) -> None:
    try:
        replace(file, text.encode())
    except OSError as error:
        raise InputError(f"--receipt {file}: {error.strerror or error}; give another file") from None


def _decoder() -> Any:
    from alexnet.tools.stored_jpeg import decode_stored

    return decode_stored
