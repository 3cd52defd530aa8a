"""What every command does around its measuring: say what runs, print, write files, and end as it went."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from alexnet.shards.errors import InputError, reason_of
from alexnet.tools.bench.page import page_of
from alexnet.tools.bench.report import Report, to_json
from alexnet.tools.bench.tables import print_report
from alexnet.tools.console import StoppedError, interruptible
from alexnet.tools.start import INTERRUPTED

Measure = Callable[[Callable[[str], None]], Report]
"""Measures, telling what it is given what goes on."""


def run(measure: Measure, json_file: Path | None = None, html_file: Path | None = None, *, check: bool = False) -> None:
    """Measure, print, and write what was asked for. After Ctrl-C that is what was measured until then.

    Raises InputError before the work for a file that could not be written after it; StoppedError for a disk that is
    full, and with `check` for ratios that fail; SystemExit if it was interrupted.
    """
    _refuse_unwritable(json_file, "--json")
    _refuse_unwritable(html_file, "--html")
    with interruptible("interrupted before anything was measured"):
        with Console(stderr=True).status("") as status:
            report = measure(status.update)
        report = replace(report, conditions=replace(report.conditions, load_after=os.getloadavg()[0]))
        print_report(report)
        _write(json_file, to_json(report))
        _write(html_file, page_of(report).encode())
        if not report.rows:
            whys = "; ".join(sorted({one.why for one in report.missing})) or "nothing was asked for"
            click.echo(f"nothing was measured: {whys}", err=True)
        if not report.complete:
            raise SystemExit(INTERRUPTED)
        if check and report.failed():
            raise StoppedError(f"guarded ratios that fail: {'; '.join(report.failed())}")


def _refuse_unwritable(file: Path | None, option: str) -> None:
    if file is not None and not os.access(file if file.exists() else file.absolute().parent, os.W_OK):
        raise InputError(f"{option} {file}: cannot be written; give a file in a folder that exists")


def _write(file: Path | None, content: bytes) -> None:
    try:
        if file is not None:
            file.write_bytes(content)
    except OSError as error:
        raise StoppedError(f"{file}: cannot be written ({reason_of(error)}); the figures above are complete") from None
