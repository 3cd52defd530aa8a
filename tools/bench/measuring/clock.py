"""Clocks of a measurement: wall time, CPU time of a process with all its children, and what others did meanwhile.

On a machine that is shared, wall time measures the others, too. CPU time does not, so every rate is given by both.
"""

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_QUIET_SHARE = 0.1  # of a core
_QUIET_LOOK_SECONDS = 0.04
_IDLE, _IOWAIT, _GUEST = 3, 4, 8  # columns of /proc/stat; guests are counted as users already


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Hold what the clocks show: `cpu_seconds` of this process and its children, `busy_seconds` of all cores."""

    wall_seconds: float
    cpu_seconds: float
    busy_seconds: float


def read_clocks() -> Reading:
    """Look at all clocks."""
    return Reading(wall_seconds=time.perf_counter(), cpu_seconds=cpu_seconds(), busy_seconds=_busy_seconds())


def foreign_load(begin: Reading, end: Reading) -> float:
    """Return the share of the cores that other processes, or other machines of the same host, kept busy: 0 to 1."""
    wall = (end.wall_seconds - begin.wall_seconds) * len(os.sched_getaffinity(0))
    own = end.cpu_seconds - begin.cpu_seconds
    return min(1.0, max(0.0, (end.busy_seconds - begin.busy_seconds - own) / wall)) if wall > 0 else 0.0


def cpu_seconds() -> float:
    """Return the CPU time of this process, of its children that have ended, and of those that run."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(map(_cpu_of, descendants(os.getpid())))


def descendants(pid: int) -> list[int]:
    """Return the ids of a process's children and of theirs."""
    found: list[int] = []
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # gone, or a thread of it is
        return found
    for child in (int(number) for text in lists for number in text.split()):
        found += [child, *descendants(child)]
    return found


def wait_until_quiet(limit_seconds: float) -> None:
    """Wait until this process and its children have done what they do ahead, so that the next row is not disturbed."""
    deadline = time.perf_counter() + limit_seconds
    before = cpu_seconds()
    while time.perf_counter() < deadline:
        time.sleep(_QUIET_LOOK_SECONDS)
        now = cpu_seconds()
        if now - before < _QUIET_SHARE * _QUIET_LOOK_SECONDS:
            return
        before = now


def _cpu_of(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = stat.rpartition(")")[2].split()  # the name before may hold spaces
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def _busy_seconds() -> float:
    """Sum what the cores did that this process may use; time stolen by the hypervisor counts as busy."""
    cores = {f"cpu{n}" for n in os.sched_getaffinity(0)}
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return 0.0
    busy = 0
    for name, *counts in (line.split() for line in lines if line.startswith("cpu")):
        if name in cores:
            busy += sum(int(c) for k, c in enumerate(counts[:_GUEST]) if k not in (_IDLE, _IOWAIT))
    return busy / _TICKS_PER_SECOND
