"""What every measurement shares: how a value a round is summarised, and where its figures may go."""

import os
import statistics
from pathlib import Path

from alexnet.shards.errors import InputError


def spread(values: list[float]) -> dict[str, float]:
    """Return the median, the minimum and the maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def refuse_unwritable(json_file: Path | None) -> None:
    """Refuse before the work what could not be written after it. Raises InputError."""
    if json_file is not None and not os.access(json_file.absolute().parent, os.W_OK):
        raise InputError(f"--json {json_file}: cannot be written; give a file in a folder that exists")
