"""Worker processes: the one pool for work in tasks, and how they are started.

Each worker computes on one thread, as the workers are the parallelism. A worker may be killed at any moment: the pool
outlives it, kills all of its workers when it is closed, and the kernel does when their parent dies.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any, Generic, NoReturn, Self, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
Counts = MutableSequence[int]
"""Whole numbers that a task adds to while it runs, from 0; its worker shares them with the parent."""

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"
_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.1
_AHEAD = 2  # tasks a worker, in order: results that wait for an earlier one take memory or disk space


class WorkerDiedError(Exception):
    """Say that a worker process died on a task; `exit_code` is negative for a signal, as `Process.exitcode`."""

    def __init__(self, exit_code: int) -> None:
        how = f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
        super().__init__(f"a worker process died {how}; is the machine short of memory?")
        self.exit_code = exit_code


def give_up(task: object, counts: Sequence[int], exit_code: int) -> NoReturn:
    """Raise WorkerDiedError: what a pool does where a worker died, unless it is given `on_death`."""
    raise WorkerDiedError(exit_code)


@dataclass
class _Worker(Generic[Task]):
    """One process, its pipe, what it has counted, and the numbered task that it is on."""

    process: SpawnProcess
    pipe: Connection
    counts: Counts
    task: tuple[int, Task] | None = None


class WorkerPool(Generic[Task, Result]):
    """Apply `function(task, counts)` to tasks in `workers` processes; with 0, in this one. A context manager.

    `counted`: how many counts a task has. `on_counts(sums)`: called ten times a second with the counts of all tasks.
    `on_death(task, counts, exit_code)`: called where a worker died on a task, or had no more memory; returns the task
    to try instead, in a fresh worker, or raises to end the run. The function is importable, tasks and results pickle.
    """

    def __init__(
        self,
        function: Callable[[Task, Counts], Result],
        workers: int,
        *,
        counted: int = 1,
        on_counts: Callable[[list[int]], None] = lambda _: None,
        on_death: Callable[[Task, Sequence[int], int], Task] = give_up,
    ) -> None:
        self._function, self._size = function, workers
        self._on_counts, self._on_death = on_counts, on_death
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker[Task]] = []
        self._counted = [0] * counted  # by tasks that are done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()

    def results(self, tasks: Iterable[Task], *, in_order: bool = False) -> Iterator[Result]:
        """Yield what the function returns as it comes or, `in_order`, in the order of the tasks.

        Tasks are taken when a worker is free; in order, no more than two a worker run ahead of the result that is
        waited for. Raises whatever the function does.
        """
        if not self._size:
            yield from self._here(tasks)
            return
        numbered, again = enumerate(tasks), list[tuple[int, Task]]()
        done: dict[int, Result] = {}
        taken = yielded = 0

        def next_task() -> tuple[int, Task] | None:
            nonlocal taken
            if again:
                return again.pop()
            if in_order and taken >= yielded + _AHEAD * self._size:
                return None
            task = next(numbered, None)
            taken += task is not None
            return task

        while True:
            for worker in self._idle():
                if (task := next_task()) is None:
                    break
                self._give(worker or self._start(), task)
            busy = [worker for worker in self._workers if worker.task]
            if not busy:
                return
            wait([end for w in busy for end in (w.pipe, w.process.sentinel)], timeout=_POLL_SECONDS)
            again += [task for worker in busy for task in self._attend(worker, done)]
            self._tell()
            while done and not (in_order and yielded not in done):
                yield done.pop(yielded if in_order else next(iter(done)))
                yielded += 1

    def _here(self, tasks: Iterable[Task]) -> Iterator[Result]:
        for task in tasks:
            counts = [0] * len(self._counted)
            result = self._function(task, counts)
            self._count(counts)
            self._tell()
            yield result

    def _idle(self) -> Iterator[_Worker[Task] | None]:
        """Yield workers without a task, then None for each that may yet be started."""
        yield from [worker for worker in self._workers if not worker.task]
        while len(self._workers) < self._size:
            yield None

    def _start(self) -> _Worker[Task]:
        ours, theirs = self._context.Pipe()
        counts = self._context.Array("q", len(self._counted), lock=False)
        process = self._context.Process(target=_serve, args=(self._function, theirs, counts), daemon=True)
        with starting_workers():
            process.start()
            worker = _Worker[Task](process, ours, counts)
            self._workers.append(worker)
        theirs.close()
        return worker

    def _give(self, worker: _Worker[Task], task: tuple[int, Task]) -> None:
        worker.task = task
        with contextlib.suppress(ConnectionError):  # it died idle: it will be found and replaced
            worker.pipe.send(task[1])

    def _attend(self, worker: _Worker[Task], done: dict[int, Result]) -> Iterator[tuple[int, Task]]:
        """Take a worker's result or, if it died, remove it and yield the task to try instead."""
        assert worker.task is not None
        number, task = worker.task
        try:
            if not worker.pipe.poll():
                if worker.process.is_alive():
                    return
                raise EOFError
            well, result = worker.pipe.recv()
        except (EOFError, ConnectionError):
            worker.process.join()
            worker.pipe.close()
            self._workers.remove(worker)
            yield number, self._on_death(task, list(worker.counts), worker.process.exitcode or 0)
            return
        if not well:
            raise result
        done[number] = result
        worker.task = None
        self._count(worker.counts)

    def _count(self, counts: Counts) -> None:
        for k, count in enumerate(counts):
            self._counted[k] += count
            counts[k] = 0

    def _tell(self) -> None:
        self._on_counts([sum(each) for each in zip(self._counted, *(w.counts for w in self._workers), strict=True)])


def _serve(function: Callable[[Any, Counts], Any], pipe: Connection, counts: Counts) -> None:
    """Be a worker: answer each task with (True, result) or (False, what was raised), until the pipe is closed."""
    leave_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = True, function(task, counts)
        except MemoryError:
            os._exit(1)  # as the kernel would have ended it: the parent is told by its death
        except Exception as error:
            error.add_note(traceback.format_exc())
            answer = False, error
        try:
            pipe.send(answer)
        except ConnectionError:
            return


def leave_with_parent() -> None:
    """Have the kernel kill this process when its parent dies; leave at once if it already has.

    A parent may well have the number 1: in a container, a command often has.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)


@contextmanager
def handling(numbers: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle signals while a block runs; only the main thread can, another one leaves them as they are."""
    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in numbers if here}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def starting_workers() -> Iterator[None]:
    """Have processes that start meanwhile compute on one thread each and hear neither Ctrl-C nor SIGHUP.

    A terminal sends both to the workers, too, but it is their parent that ends them, and Python takes half a second
    until it can ignore a signal. The parent itself hears what asks to stop when the block is over: a worker that it
    leaves half started ends in a traceback. To block is not enough for that, as another thread, such as OpenBLAS's, may
    get the signal; and of one that came in the middle of an import, SIGALRM tells again.
    """
    heard, ours = list[int](), (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    deferred = [number for number in ours if signal.getsignal(number) is not signal.SIG_IGN]  # which is inherited
    threads = os.environ.get(_BLAS_THREADS)
    os.environ[_BLAS_THREADS] = "1"  # read when a process loads NumPy
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        with handling(deferred, lambda number, _: heard.append(number)):
            resource_tracker.ensure_running()  # multiprocessing starts it with the first worker, and unblocks SIGINT
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            yield
    finally:
        del os.environ[_BLAS_THREADS]
        if threads is not None:
            os.environ[_BLAS_THREADS] = threads
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        for number in heard:
            signal.raise_signal(number)
