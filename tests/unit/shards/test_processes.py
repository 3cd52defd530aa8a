"""The pool: results of every task, whatever becomes of a worker, and no process that outlives it."""

import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from alexnet.shards.errors import SampleError
from alexnet.shards.processes import (
    Counts,
    WorkerDiedError,
    WorkerPool,
    starting_workers,
)


def work(task: int, counts: Counts) -> tuple[int, int]:
    """Square a number; those below 0 are ways to fail."""
    counts[0] += 1
    if task == -1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == -2:
        raise MemoryError
    if task == -3:
        raise SampleError(7, "one line")
    counts[1] += 10
    return task * task, os.getpid()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_task_has_its_result_in_order_and_counts_add_up(workers: int) -> None:
    sums: list[list[int]] = []
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for k in range(40):
            taken.append(k)
            yield k

    with WorkerPool(work, workers, counted=2, on_counts=sums.append) as pool:
        for k, (square, pid) in enumerate(pool.results(tasks(), in_order=True)):
            assert square == k * k
            assert (pid == os.getpid()) == (workers == 0)
            assert len(taken) <= k + 1 + 2 * max(workers, 1)
    assert sums[-1] == [40, 400]
    assert sums == sorted(sums)
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_is_replaced_and_its_task_tried_as_told() -> None:
    deaths: list[tuple[int, list[int], int]] = []

    def on_death(task: int, counts: Sequence[int], exit_code: int) -> int:
        deaths.append((task, list(counts), exit_code))
        return 100

    with WorkerPool(work, 2, counted=2, on_death=on_death) as pool:
        assert sorted(square for square, _ in pool.results([1, -1, 2, -2, 3])) == [1, 4, 9, 10_000, 10_000]
    assert sorted(deaths) == [(-2, [1, 0], 1), (-1, [1, 0], -signal.SIGSEGV)]


@pytest.mark.parametrize(("task", "said"), [(-1, "died by SIGSEGV; is the"), (-2, "died with exit code 1; is the")])
def test_unless_told_a_death_ends_it(task: int, said: str) -> None:
    with pytest.raises(WorkerDiedError, match=said), WorkerPool(work, 2, counted=2) as pool:
        list(pool.results([1, task, 2]))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_what_the_function_raises_is_raised_as_it_is(workers: int) -> None:
    with pytest.raises(SampleError, match=r"^one line$") as raised, WorkerPool(work, workers, counted=2) as pool:
        list(pool.results([1, -3, 2]))
    assert raised.value.sample_id == 7
    assert multiprocessing.active_children() == []


def linger(_: int, counts: Counts) -> None:
    """Say that it works, and go on for ever."""
    os.write(1, b"%d\n" % os.getpid())
    signal.pause()


KILLED = """
from alexnet.shards.processes import WorkerPool
from tests.unit.shards.test_processes import linger
with WorkerPool(linger, 2) as pool:
    list(pool.results([1, 2]))
"""


def test_workers_end_with_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", KILLED], cwd=Path(__file__).parents[3], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert len({parent.stdout.readline() for _ in range(2)} - {b""}) == 2
    parent.kill()
    parent.wait()
    assert select.select([parent.stdout], [], [], 30)[0], "the pipe ends when the last worker has"
    assert parent.stdout.read() == b""


LEAVING = """
import multiprocessing, os
from types import SimpleNamespace
from alexnet.shards.processes import leave_with_parent
multiprocessing.parent_process = lambda: SimpleNamespace(pid={parent})
os.getppid = lambda: {found}
leave_with_parent()
print("works")
"""


def test_a_worker_leaves_with_its_parent_which_may_be_process_1() -> None:
    """In a container a command often is process 1; elsewhere that is who inherits orphans."""
    for parent, found, said in ((1, 1, "works\n"), (77, 77, "works\n"), (77, 1, "")):
        code = LEAVING.format(parent=parent, found=found)
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (run.stdout, run.returncode) == (said, 0 if said else 1), run.stderr


def test_workers_hear_no_signal_that_is_meant_for_their_parent() -> None:
    with starting_workers():
        assert {signal.SIGINT, signal.SIGHUP} <= signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert not {signal.SIGINT, signal.SIGHUP} & signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_ctrl_c_waits_until_a_worker_is_started_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may get the signal, and blocking it in the main one does not help."""
    start, started = SpawnProcess.start, list[SpawnProcess]()

    def interrupt() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    def interrupted_start(process: SpawnProcess) -> None:
        other = threading.Thread(target=interrupt)
        other.start()
        other.join()
        start(process)
        started.append(process)

    monkeypatch.setattr(SpawnProcess, "start", interrupted_start)
    with pytest.raises(KeyboardInterrupt), WorkerPool(work, 1, counted=2) as pool:
        list(pool.results([1]))
    assert [process.exitcode for process in started] == [-signal.SIGKILL]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_workers_ignore_what_nohup_has_their_parent_ignore() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with starting_workers():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, "what is handled has its default in a new process"
            assert callable(signal.getsignal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGHUP, before)
