"""Where shards are converted: in worker processes of this machine, or in tasks of a Ray cluster.

A shard is converted the same everywhere, so the output is the same bytes. A worker that dies costs its shard a second
run and nothing else; the image it died on is first tried alone, and only if it kills that process, too, is it rejected.
"""

import resource
import signal
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from alexnet.shards.errors import InputError
from alexnet.shards.processes import Counts, WorkerDiedError, WorkerPool
from alexnet.tools.convert.image import convert_image
from alexnet.tools.convert.opening import UndecodableError
from alexnet.tools.convert.shard import ConversionError, ShardJob, convert_shard
from alexnet.tools.convert.source_files import SourceChangedError, SourceFiles
from alexnet.tools.host_memory import keep_freed_memory

OnCounts = Callable[[Sequence[int]], None]
"""Told how many images are written and how many rejected, several times a second."""

_TRIAL_SECONDS = 60
_TRIAL_BYTES = 2 << 30
_DEATHS_ALLOWED = 5  # of workers on one shard, images that were found to kill not counted

_RAY_RETRIES = 5
_RAY_POLL_SECONDS = 0.5
_RAY_CONNECT_SECONDS = 10
_RAY_TASKS_PER_CORE = 2  # in flight: jobs hold their members' names, and 14 million need not be sent at once


def convert_here(jobs: Iterable[ShardJob], workers: int, on_counts: OnCounts) -> None:
    """Convert every job in so many worker processes; 0: in this one. Raises as `convert_shard`, and ConversionError."""
    with WorkerPool(_convert, workers, counted=2, on_counts=on_counts, on_death=_blame) as pool:
        for _ in pool.results(jobs):
            pass


def _convert(job: ShardJob, counts: Counts) -> tuple[int, ...]:
    keep_freed_memory()
    convert_shard(job, counts)
    return tuple(counts)


def _blame(job: ShardJob, counts: Sequence[int], exit_code: int) -> ShardJob:
    """Return the shard to try instead where a worker died on it: without the image that killed it, if one did."""
    order, at = job.order(), sum(counts)
    reason = _reason_to_reject(job, order[at]) if at < len(order) else ""
    if reason:
        return replace(job, poisoned={**job.poisoned, order[at]: reason})
    if job.deaths == _DEATHS_ALLOWED:
        raise ConversionError(
            f"{job.plan.name}: {_DEATHS_ALLOWED + 1} workers died on it (exit code {exit_code}), and none of its "
            "images is to blame; is the machine short of memory?"
        )
    return replace(job, deaths=job.deaths + 1)


def _reason_to_reject(job: ShardJob, position: int) -> str:
    """Try one image alone in a fresh process; return why it must be rejected, or nothing.

    A crash or lack of memory is the image's fault, SIGKILL somebody else's.
    """
    try:
        with WorkerPool(_try_alone, 1) as trial:
            return next(trial.results([replace(job, members=[job.members[position]])]))
    except WorkerDiedError as death:
        if death.exit_code >= 0 or death.exit_code == -signal.SIGKILL:
            return ""
        if death.exit_code == -signal.SIGALRM:
            return f"decoding takes more than {_TRIAL_SECONDS} s"
        return f"the decoder crashes on it ({signal.Signals(-death.exit_code).name})"


def _try_alone(job: ShardJob, _: Counts) -> str:
    """Decode a job's only image, with little time and address space; return a reason to reject it, or ''."""
    resource.setrlimit(resource.RLIMIT_AS, (_TRIAL_BYTES, _TRIAL_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(_TRIAL_SECONDS)  # which kills the process
    try:
        with SourceFiles(job.source.root, opener=job.source.opener) as files:
            data = files.read(job.members[0])
            convert_image(data, job.settings.size_px, job.settings.quality, job.source.encoding)
    except (UndecodableError, SourceChangedError, OSError):
        return ""  # no decoder's fault: the shard's next run says what it is
    except MemoryError:
        return f"decoding takes more than {_TRIAL_BYTES >> 30} GiB of memory"
    return ""


def convert_on_ray(jobs: Iterable[ShardJob], workers: int, address: str | None, on_counts: OnCounts) -> None:
    """Convert every job on the Ray cluster at `address`; None: on one started here with `workers` cores.

    Ray places tasks, notices dead nodes and starts their tasks again. Source and output lie on storage that every node
    sees under the same path. A shard whose task keeps dying is finished by a worker here, which finds out the image
    that is to blame. Raises InputError without Ray or a cluster, or as `convert_here`.
    """
    in_tasks, here = [0, 0], [0, 0]

    def count(part: list[int], counts: Sequence[int]) -> None:
        part[:] = counts
        on_counts([a + b for a, b in zip(in_tasks, here, strict=True)])

    ray = _connect(address, workers)
    try:
        convert_here(_convert_tasks(ray, iter(jobs), partial(count, in_tasks)), 1, partial(count, here))
    finally:
        ray.shutdown()


def _convert_tasks(ray: Any, jobs: Iterator[ShardJob], on_counts: OnCounts) -> Iterator[ShardJob]:
    """Run tasks, a window at a time; yield the jobs whose tasks died again and again."""
    task = ray.remote(num_cpus=1, max_retries=_RAY_RETRIES)(_convert)
    pending: dict[Any, ShardJob] = {}
    counted, more = [0, 0], True
    while more or pending:
        window = _RAY_TASKS_PER_CORE * max(1, int(ray.cluster_resources().get("CPU", 1)))
        while more and len(pending) < window:
            job = next(jobs, None)
            more = job is not None
            if job is not None:
                pending[task.remote(job, [0, 0])] = job
        done, _ = ray.wait(list(pending), timeout=_RAY_POLL_SECONDS) if pending else ([], [])
        for reference in done:
            job = pending.pop(reference)
            try:
                counted = [a + b for a, b in zip(counted, ray.get(reference), strict=True)]
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError:
                yield job
        on_counts(counted)


def _connect(address: str | None, workers: int) -> Any:
    try:
        import ray
    except ModuleNotFoundError:
        raise InputError("--engine ray: Ray is not installed; pip install 'alexnet[ray]'") from None
    if address is None:
        ray.init(num_cpus=max(1, workers), include_dashboard=False, log_to_driver=False)
        return ray
    try:
        host, colon, port = address.rpartition(":")
        if colon and port.isdigit() and "/" not in host:  # Ray itself goes on trying for minutes
            socket.create_connection((host, int(port)), timeout=_RAY_CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"--address {address}: no Ray cluster answers there ({error})") from None
    return ray
