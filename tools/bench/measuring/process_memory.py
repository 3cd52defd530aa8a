"""Read how much memory a process has used at most, from the kernel.

`VmHWM` and not `ru_maxrss`: a child's `ru_maxrss` begins at what its parent had when it was started, so beside an
index of 0.8 GB every worker would seem to take 0.8 GB.
"""

import multiprocessing
import re
from pathlib import Path

_PEAK = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)


def peak_bytes(pid: int | None = None) -> int:
    """Return the most resident memory that a process has had, this one's by default; 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid or 'self'}/status").read_text()
    except OSError:
        return 0
    found = _PEAK.search(status)
    return int(found[1]) << 10 if found else 0


class WorkerPeak:
    """Keep the largest peak seen among the worker processes of this one."""

    def __init__(self) -> None:
        self.bytes = 0

    def look(self) -> None:
        """Look at the workers that are there."""
        peaks = [peak_bytes(child.pid) for child in multiprocessing.active_children() if child.pid]
        self.bytes = max(self.bytes, *peaks) if peaks else self.bytes
