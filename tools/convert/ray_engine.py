"""Convert shards as tasks of a Ray cluster, for sets that outgrow one machine.

A task is a shard, and converts it exactly as a local worker does, so the output is the same bytes. Ray places tasks,
notices dead nodes and starts their tasks again; there is no scheduler of ours. Source and output lie on storage that
every node sees under the same path. A shard whose task keeps dying is finished by the local pool, which finds out the
image that is to blame.
"""

import socket
from collections.abc import Callable, Iterator
from typing import Any

from alexnet.shards.errors import InputError
from alexnet.tools.convert.pool import Pool, raise_unless_done
from alexnet.tools.convert.work import ShardJob, attempt_shard

_RETRIES = 5
_POLL_SECONDS = 0.5
_CONNECT_SECONDS = 10
_TASKS_PER_CORE = 2  # in flight: jobs hold their members' names, and 14 million need not be sent at once


class RayEngine:
    """Run jobs on the cluster at `address`, or on one started here with `workers` cores."""

    def __init__(self, address: str | None, workers: int, on_progress: Callable[[int, int], None]) -> None:
        self._address, self._workers, self._on_progress = address, workers, on_progress
        self._written = self._rejected = 0

    def run(self, jobs: Iterator[ShardJob]) -> None:
        """Convert every job. Raises InputError without Ray or a cluster, or as the local pool does."""
        ray = _connect(self._address, self._workers)
        try:
            for job in self._convert(ray, jobs):
                Pool(1, lambda *_: None).run(iter([job]))
        finally:
            ray.shutdown()

    def _convert(self, ray: Any, jobs: Iterator[ShardJob]) -> Iterator[ShardJob]:
        """Run tasks, a window at a time; yield the jobs whose tasks died again and again."""
        task = ray.remote(num_cpus=1, max_retries=_RETRIES)(attempt_shard)
        pending: dict[Any, ShardJob] = {}
        more = True
        while more or pending:
            window = _TASKS_PER_CORE * max(1, int(ray.cluster_resources().get("CPU", 1)))
            while more and len(pending) < window:
                job = next(jobs, None)
                more = job is not None
                if job is not None:
                    pending[task.remote(job)] = job
            done, _ = ray.wait(list(pending), timeout=_POLL_SECONDS) if pending else ([], [])
            for reference in done:
                job = pending.pop(reference)
                try:
                    report = ray.get(reference)
                except ray.exceptions.RayError:
                    yield job
                    continue
                raise_unless_done(report)
                self._written += report.written
                self._rejected += report.rejected
            self._on_progress(self._written, self._rejected)


def _connect(address: str | None, workers: int) -> Any:
    try:
        import ray
    except ModuleNotFoundError:
        raise InputError("--engine ray: Ray is not installed; pip install 'alexnet[ray]'") from None
    if address is None:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
        return ray
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"--address {address}: no Ray cluster answers there ({error})") from None
    return ray


def _knock(address: str) -> None:
    """See that something listens at HOST:PORT: Ray itself goes on trying for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
