"""Under what conditions figures come about: clocks, memory, and what others do meanwhile.

On a machine that is shared, wall time measures the others, too. CPU time does not, so every rate is given by both.
"""

import datetime
import os
import re
import resource
import time
from pathlib import Path
from typing import NamedTuple

from alexnet.shards.errors import one_line
from alexnet.shards.resources import usable_cores
from alexnet.tools.bench.report import Conditions, Data
from alexnet.tools.machine import describe_machine

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_IDLE, _IOWAIT, _GUEST = 3, 4, 8  # columns of /proc/stat; guests are counted as users already
_QUIET_SHARE, _QUIET_LOOK_SECONDS, _QUIET_LIMIT_SECONDS = 0.1, 0.04, 1.0  # share of a core
_LOOK_SECONDS = 0.5
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_PEAK = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)  # a child's `ru_maxrss` begins at what its parent had


class Clocks(NamedTuple):
    """Count seconds by the wall clock, of CPU time and of all cores being busy, and page faults.

    CPU time and faults are those of this process and its children.
    """

    wall: float
    cpu: float
    busy: float
    faults: int


def read_clocks() -> Clocks:
    """Look at all clocks."""
    cpu, faults = _used()
    return Clocks(time.perf_counter(), cpu, _busy_seconds(), faults)


def foreign_load(begin: Clocks, end: Clocks) -> float:
    """Return the share of the cores that other processes, or other machines of the same host, kept busy: 0 to 1."""
    whole, own = (end.wall - begin.wall) * len(os.sched_getaffinity(0)), end.cpu - begin.cpu
    return min(1.0, max(0.0, (end.busy - begin.busy - own) / whole)) if whole > 0 else 0.0


def wait_until_quiet() -> None:
    """Wait until this process and its children have done what they do ahead, so that the next row is not disturbed."""
    deadline, before = time.perf_counter() + _QUIET_LIMIT_SECONDS, _used()[0]
    while time.perf_counter() < deadline:
        time.sleep(_QUIET_LOOK_SECONDS)
        now = _used()[0]
        if now - before < _QUIET_SHARE * _QUIET_LOOK_SECONDS:
            return
        before = now


def peak_bytes() -> int:
    """Return the most resident memory that this process and its children have had, summed."""
    found = (_PEAK.search(_text(f"/proc/{pid}/status")) for pid in (os.getpid(), *_descendants(os.getpid())))
    return sum(int(one[1]) << 10 for one in found if one)


def conditions_before(device: str, threads: int, rounds: int, seconds: float, data: Data | None = None) -> Conditions:
    """Describe machine and load before anything is measured; takes half a second of looking."""
    begin = read_clocks()
    time.sleep(_LOOK_SECONDS)
    load = os.getloadavg()[0]
    return Conditions(
        when=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine=describe_machine(),
        governor=_text(_GOVERNOR).strip() or "not told by this system",
        device=device,
        cores=usable_cores(),
        threads=threads,
        rounds=rounds,
        seconds=seconds,
        foreign_before=foreign_load(begin, read_clocks()),
        load_before=load,
        load_after=load,
        data=data,
    )


def without_home(path: str | Path) -> str:
    """Return a path, or any text, with ~ for the home folder: reports are passed on, and do not say whose it was."""
    text, home = str(path), os.path.expanduser("~")  # noqa: PTH111 (Path.home raises for users who have none)
    return one_line(f"~{text.removeprefix(home)}" if f"{text}/".startswith(f"{home}/") else text)


def _used() -> tuple[float, int]:
    """Return CPU seconds and page faults of this process, of its children that have ended, and of those that run."""
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks, faults = 0, sum(one.ru_minflt + one.ru_majflt for one in (own, ended))
    for pid in _descendants(os.getpid()):
        fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()  # the name before may hold spaces
        ticks += int(fields[11]) + int(fields[12]) if fields else 0
        faults += int(fields[7]) + int(fields[9]) if fields else 0
    return time.process_time() + ended.ru_utime + ended.ru_stime + ticks / _TICKS_PER_SECOND, faults


def _busy_seconds() -> float:
    """Sum what the cores did that this process may use; time stolen by the hypervisor counts as busy."""
    cores = {f"cpu{n}" for n in os.sched_getaffinity(0)}
    busy = 0
    for name, *counts in (line.split() for line in _text("/proc/stat").splitlines() if line.startswith("cpu")):
        if name in cores:
            busy += sum(int(c) for k, c in enumerate(counts[:_GUEST]) if k not in (_IDLE, _IOWAIT))
    return busy / _TICKS_PER_SECOND


def _descendants(pid: int) -> list[int]:
    """Return the ids of a process's children and of theirs."""
    lists = [_text(path) for path in Path(f"/proc/{pid}/task").glob("*/children")]
    children = [int(number) for text in lists for number in text.split()]
    return children + [pid for child in children for pid in _descendants(child)]


def _text(path: str | Path) -> str:
    """Read a file of /proc or /sys; nothing where a process is gone, or the system has no such file."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""
