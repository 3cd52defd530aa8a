"""Which data set a command uses when it is told, and when it is not."""

import os
from importlib.resources import as_file, files
from pathlib import Path


def find_data(given: Path | None) -> tuple[Path, str]:
    """Return the data set to use and why, in words."""
    if given is not None:
        return given, "given"
    if named := os.environ.get("ALEXNET_DATA"):
        return Path(named), "from ALEXNET_DATA"
    with as_file(files("alexnet.shards") / "ci-100") as bundled:
        return bundled, "the bundled 100 images, as no DATA was given and ALEXNET_DATA is not set"
