"""Hand shards to worker processes and outlive any of them.

A worker that dies costs its shard a second run and nothing else. The image it died on is first tried alone; only if it
kills that process, too, is it rejected. Workers are plain processes with a pipe each, because
`concurrent.futures` gives up the whole pool when one dies.
"""

import contextlib
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from alexnet.shards.processes import starting_workers
from alexnet.tools.command import StoppedError
from alexnet.tools.convert.source_files import SourceChangedError
from alexnet.tools.convert.work import Report, ShardJob
from alexnet.tools.convert.worker import Board, serve, try_alone

_POLL_SECONDS = 0.1
_TRIAL_SECONDS = 60
_DEATHS_ALLOWED = 5  # of workers on one shard, images that were found to kill not counted


MEND_AND_REPEAT = "mend it and give the same command again"


class ConversionError(StoppedError):
    """End a run that can be continued: the message says why it stopped."""


def raise_unless_done(report: Report) -> None:
    """End the run if a shard could not be finished."""
    if report.status == "changed":
        raise SourceChangedError(report.message)
    if report.status == "rejected":
        raise ConversionError(f"--on-error fail: {report.message}")
    if report.status == "os":
        raise ConversionError(f"{report.message}; {MEND_AND_REPEAT}")


@dataclass
class _Worker:
    """One process, its pipe, what it publishes, and the job it is on."""

    process: SpawnProcess
    jobs: Connection
    board: Board
    job: ShardJob | None = None


class Pool:
    """Convert jobs in `workers` processes; `on_progress(written, rejected)` is told the counts ten times a second."""

    def __init__(self, workers: int, on_progress: Callable[[int, int], None]) -> None:
        self._context: SpawnContext = multiprocessing.get_context("spawn")
        self._size = workers
        self._stop: Any = self._context.Value("b", 0, lock=False)
        self._workers: list[_Worker] = []
        self._again: deque[ShardJob] = deque()
        self._deaths: dict[str, int] = {}
        self._written = self._rejected = 0  # in finished shards
        self._on_progress = on_progress

    def run(self, jobs: Iterator[ShardJob]) -> None:
        """Convert every job. Raises ConversionError or InputError when a job cannot be finished."""
        try:
            self._workers = [self._start() for _ in range(self._size)]
            for worker in self._workers:
                self._assign(worker, jobs)
            while busy := [worker for worker in self._workers if worker.job]:
                wait([end for w in busy for end in (w.jobs, w.process.sentinel)], timeout=_POLL_SECONDS)
                for worker in busy:
                    self._attend(worker, jobs)
                self._tell()
        finally:
            self._close()

    def _tell(self) -> None:
        boards = [worker.board for worker in self._workers]
        written = self._written + sum(board.written.value for board in boards)
        self._on_progress(written, self._rejected + sum(board.rejected.value for board in boards))

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        board = Board(self._context)
        process = self._context.Process(target=serve, args=(theirs, board, self._stop), daemon=True)
        with starting_workers():
            process.start()
        theirs.close()
        return _Worker(process=process, jobs=ours, board=board)

    def _assign(self, worker: _Worker, jobs: Iterator[ShardJob]) -> None:
        worker.job = self._again.popleft() if self._again else next(jobs, None)
        if worker.job:
            worker.board.clear()
            with contextlib.suppress(ConnectionError):  # it died idle: it will be found and replaced
                worker.jobs.send(worker.job)

    def _attend(self, worker: _Worker, jobs: Iterator[ShardJob]) -> None:
        """Take a worker's report, or find it dead and replace it."""
        try:
            report: Report | None = worker.jobs.recv() if worker.jobs.poll() else None
        except (EOFError, ConnectionError):
            report = None
            worker.process.join()
        if report is not None:
            self._take(worker, report)
            self._assign(worker, jobs)
        elif not worker.process.is_alive():
            self._bury(worker)
            self._workers[self._workers.index(worker)] = fresh = self._start()
            self._assign(fresh, jobs)

    def _take(self, worker: _Worker, report: Report) -> None:
        raise_unless_done(report)
        self._written += report.written
        self._rejected += report.rejected
        worker.board.clear()

    def _bury(self, worker: _Worker) -> None:
        """Queue a dead worker's shard again, without the image that killed it if one did."""
        job, position = worker.job, int(worker.board.position.value)
        worker.job = None
        worker.jobs.close()
        if job is None:
            return
        reason = self._reason_to_reject(job, position) if position >= 0 else ""
        if reason:
            self._again.append(replace(job, poisoned={**job.poisoned, position: reason}))
            return
        self._deaths[job.plan.name] = self._deaths.get(job.plan.name, 0) + 1
        if self._deaths[job.plan.name] > _DEATHS_ALLOWED:
            raise ConversionError(
                f"{job.plan.name}: {_DEATHS_ALLOWED + 1} workers died on it (exit code {worker.process.exitcode}), and "
                "none of its images is to blame; is the machine short of memory?"
            )
        self._again.append(job)

    def _reason_to_reject(self, job: ShardJob, position: int) -> str:
        """Try one image alone in a fresh process; return why it must be rejected, or nothing."""
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=try_alone, args=(job, position, theirs), daemon=True)
        with starting_workers():
            process.start()
        theirs.close()
        process.join(_TRIAL_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
            return f"decoding takes more than {_TRIAL_SECONDS} s"
        try:
            return str(ours.recv()) if ours.poll() else _verdict(process.exitcode)
        except EOFError:
            return _verdict(process.exitcode)

    def _close(self) -> None:
        """Tell workers to leave after the image they are on, and wait for them."""
        self._stop.value = 1
        for worker in self._workers:
            worker.jobs.close()
        for worker in self._workers:
            worker.process.join()


def _verdict(exit_code: int | None) -> str:
    """Judge a death in trial: a crash or lack of memory is the image's fault, SIGKILL somebody else's."""
    if exit_code is None or exit_code >= 0 or exit_code == -signal.SIGKILL:
        return ""
    return f"the decoder crashes on it ({signal.Signals(-exit_code).name})"
