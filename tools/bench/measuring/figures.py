"""What every measurement shares: how a value a round is summarised, and where its figures may go."""

import os
import statistics
from pathlib import Path

from alexnet.shards.errors import InputError


def spread(values: list[float]) -> dict[str, float]:
    """Return the median, the minimum and the maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def refuse_unwritable(file: Path | None, option: str = "--json") -> None:
    """Refuse before the work what could not be written after it. Raises InputError."""
    if file is not None and not os.access(file.absolute().parent, os.W_OK):
        raise InputError(f"{option} {file}: cannot be written; give a file in a folder that exists")
