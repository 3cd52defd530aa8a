"""What every measurement shares: how a value a round is summarised, and where its figures may go."""

import json
import os
import statistics
from pathlib import Path
from typing import Any

from alexnet.shards.errors import InputError
from alexnet.tools.console import StoppedError


def spread(values: list[float]) -> dict[str, float]:
    """Return the median, the minimum and the maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def refuse_unwritable(file: Path | None, option: str = "--json") -> None:
    """Refuse before the work what could not be written after it. Raises InputError."""
    if file is not None and not os.access(file if file.exists() else file.absolute().parent, os.W_OK):
        raise InputError(f"{option} {file}: cannot be written; give a file in a folder that exists")


def write_json(file: Path | None, report: dict[str, Any]) -> None:
    """Write a report, if that is asked for. Raises StoppedError if it cannot be: on a full disk, say."""
    write_figures(file, json.dumps(report, indent=1) + "\n")


def write_figures(file: Path | None, text: str) -> None:
    """Write a file of figures, if that is asked for. Raises StoppedError if it cannot be."""
    if file is None:
        return
    try:
        file.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise StoppedError(f"{file}: cannot be written ({error.strerror}); the figures above are complete") from None
