"""How many cores a process may keep busy: those it may run on, or what its container's quota of CPU time comes to.

`docker --cpus 2` and limits of Kubernetes leave every core of the host in sight, and halt whoever used more than two
cores' time: threads for all of them would be measured against each other.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_MOUNT, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores(mount: Path = _MOUNT, own: Path = _OWN) -> int:
    """Return the number, at least 1; a part of a core counts as one. `mount`, `own`: where Linux tells of groups."""
    return max(1, min([len(os.sched_getaffinity(0)), *map(math.ceil, _quotas(mount, own))]))


def _quotas(mount: Path, own: Path) -> Iterator[float]:
    """Yield the quotas, in cores, of this process's groups and of those that they are in."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines if ":/" in line):
        if controllers and "cpu" not in controllers.split(","):
            continue
        for group in (Path(path), *Path(path).parents):
            place = mount / controllers / group.relative_to("/")
            limit = (
                _numbers(place, "cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else _numbers(place, "cpu.max")
            )
            if len(limit) == 2 and limit[0] > 0:
                yield limit[0] / limit[1]


def _numbers(folder: Path, *files: str) -> list[int]:
    """Read numbers from files; without `max`, which is none, and without what is not there."""
    words: list[str] = []
    for file in files:
        try:
            words += (folder / file).read_text().split()
        except OSError:
            return []
    return [int(word) for word in words if word != "max"]
