"""What the commands share while they measure and when they are done: a line that says what runs, files, exit codes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from alexnet.tools.bench.measuring.figures import write_figures, write_json
from alexnet.tools.bench.networks.networks_page import networks_page
from alexnet.tools.console import StoppedError
from alexnet.tools.start import INTERRUPTED


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """Yield what shows a line of text while something runs, on standard error."""
    with Console(stderr=True).status("") as shown:
        yield lambda text: shown.update(text)


def finish(report: dict[str, Any], json_file: Path | None, html_file: Path | None, failed: list[str]) -> None:
    """Write the report and end as it went: SystemExit if it was interrupted, StoppedError for ratios that failed."""
    write_figures(html_file, networks_page(report) if html_file else "")
    write_json(json_file, report)
    if not any(report[group] for group in ("limits", "rows", "peers")):
        whys = "; ".join(sorted({one["why"] for one in report["missing"]})) or "nothing was asked for"
        click.echo(f"nothing was measured: {whys}", err=True)
    if not report["complete"]:
        raise SystemExit(INTERRUPTED)
    if failed:
        raise StoppedError(f"guarded ratios that fail: {'; '.join(failed)}")
