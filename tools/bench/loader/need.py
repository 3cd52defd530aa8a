"""What the trainer takes: a rate that is given, or that `alexnet-bench model` measured on this machine."""

import math
from pathlib import Path

from alexnet.shards.errors import InputError
from alexnet.tools.bench.schema import read_report


def read_need(text: str) -> float:
    """Return images/s from `--need`: a number, or a file that `alexnet-bench model --json` wrote.

    Of the file the fastest network counts; on a CPU by CPU time if others disturbed it. Raises InputError.
    """
    try:
        rate = float(text)
    except ValueError:
        return _measured(text)
    if not 0 < rate < math.inf:
        raise InputError(f"--need {text}: must be more than 0 images/s")
    return rate


def _measured(text: str) -> float:
    asked = f"--need {text}: must be images/s, such as 40000, or a file of `alexnet-bench model --json`"
    if not Path(text).is_file():
        raise InputError(asked)
    report = read_report(Path(text))
    if report["command"] != "model" or not report["rows"]:
        raise InputError(f"{asked} with a network in it")
    on_cpu = report["conditions"]["device"] == "cpu"
    return max(
        float(row["images_per_s_all_cores_busy" if on_cpu and row["disturbed"] else "images_per_s"]["median"])
        for row in report["rows"]
    )
