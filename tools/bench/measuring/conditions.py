"""Under what conditions figures came about: the machine, its load, the data, and what of them the system has cached."""

import datetime
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alexnet.shards.manifest import Split
from alexnet.shards.processes import usable_cores
from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.measuring.clock import foreign_load, read_clocks
from alexnet.tools.bench.measuring.page_cache import cached_share
from alexnet.tools.machine import describe_machine

FOREIGN_LOAD_MARK = 0.05
"""A row is marked if others kept more of the cores busy than this while it was measured."""

_LOOK_SECONDS = 0.5
_REPEATED_BELOW_BATCHES = 8
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def machine_before() -> dict[str, Any]:
    """Describe machine and load before anything is measured; takes half a second of looking."""
    begin = read_clocks()
    time.sleep(_LOOK_SECONDS)
    idle = foreign_load(begin, read_clocks())
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": asdict(describe_machine()),
        "governor": _governor(),
        "load": {"before": os.getloadavg()[0], "after": None, "foreign_before": idle},
        "cores": usable_cores(),
    }


def conditions_before(data: Path, split: Split, batch_images: int) -> dict[str, Any]:
    """Describe machine, load and data."""
    reader = SplitReader(data, split)
    return {
        **machine_before(),
        "data": _without_home(data),
        "manifest": reader.manifest.digest(),
        "split": split,
        "images": len(reader),
        "bytes_per_image": round(reader.jpeg_bytes() / len(reader)),
        "size_px": reader.manifest.size_px,
        "repeated": len(reader) < _REPEATED_BELOW_BATCHES * batch_images,
        "cached": cached_share([reader.root / shard.file for shard in reader.shards]),
    }


def _without_home(path: Path) -> str:
    """Return a path with ~ for the home folder: reports are passed on, and whose it was is nobody's business."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 (Path.home raises for users who have none)
    return str(Path("~") / path.relative_to(home)) if path.is_relative_to(home) else str(path)


def _governor() -> str:
    try:
        return _GOVERNOR.read_text().strip()
    except OSError:
        return "not told by this system"
