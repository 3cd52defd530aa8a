"""What a process may use of the machine: cores, and memory. A container sees all of its host and has a part of it."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(mount: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Return how many cores a process may keep busy: those it may run on, or its container's quota of CPU time if less.

    `docker --cpus 2` and limits of Kubernetes leave every core of the host in sight, and halt whoever used more than
    two cores' time. A part of a core counts as one. `mount`, `own`: where Linux tells of groups.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *map(math.ceil, _quotas(mount, own))]))


def _quotas(mount: Path, own: Path) -> Iterator[float]:
    """Yield the quotas, in cores, of this process's groups and of those that they are in."""
    with contextlib.suppress(OSError):
        groups = [line.split(":", 2)[1:] for line in own.read_text().splitlines() if ":/" in line]
        for controllers, path in groups:
            if not controllers or "cpu" in controllers.split(","):
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
                for group in (Path(path), *Path(path).parents):
                    yield from _quota(mount / controllers / group.relative_to("/"), names)


def _quota(group: Path, names: tuple[str, ...]) -> Iterator[float]:
    with contextlib.suppress(OSError, ValueError):  # of no such file, and of the word `max`
        quota, period = map(int, " ".join((group / name).read_text() for name in names).split())
        if quota > 0:
            yield quota / period


def available_memory(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that processes can still take: what the system has left, or their container if less.

    Memory that holds files counts as left, as the system lets go of it. `group`: where Linux tells of the container.
    """
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    try:
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        parts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such file, or the word `max`
        return available
    return min(available, limit - used + int(parts["active_file"]) + int(parts["inactive_file"]))
