"""Check shards in worker processes; none outlives the call, whatever ends it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from ctypes import c_longlong
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from alexnet.shards.errors import InputError
from alexnet.shards.processes import starting_workers
from alexnet.shards.verify.shard import ShardOutcome, ShardTask, check_shard

_POLL_SECONDS = 0.1


def check_shards(
    root: Path, tasks: Iterable[ShardTask], workers: int, on_bytes: Callable[[int], None]
) -> Iterator[ShardOutcome]:
    """Check shards and yield what was found, in no particular order; `on_bytes` is told of bytes as they are read.

    With no workers this process does it all. Raises InputError if a worker process dies.
    """
    if workers == 0:
        yield from (check_shard(root, task, on_bytes) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")
    counter = context.Value(c_longlong, 0)
    lifeline, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(counter, lifeline))
    seen = 0
    try:
        with starting_workers():  # they start as tasks are submitted
            pending: set[Future[ShardOutcome]] = {pool.submit(_run, root, task) for task in tasks}
        while pending:
            done, pending = wait(pending, timeout=_POLL_SECONDS)
            total = counter.value
            on_bytes(total - seen)
            seen = total
            while done:
                yield done.pop().result()
        pool.shutdown()
    except BrokenProcessPool:
        raise InputError(
            f"workers={workers}: a worker process died while it checked {root}; if memory was short, give "
            "fewer --workers"
        ) from None
    finally:
        held.close()  # workers that are still busy leave at once
        pool.shutdown(cancel_futures=True)


_counter: Any  # bytes read by all workers, set in each when it starts


def _start_worker(counter: Any, lifeline: Connection) -> None:
    global _counter
    _counter = counter
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers, so that none prints a traceback
    threading.Thread(target=_leave_with_parent, args=(lifeline,), daemon=True).start()


def _leave_with_parent(lifeline: Connection) -> None:
    lifeline.poll(None)  # returns when the parent has closed its end, or is gone
    os._exit(1)


def _run(root: Path, task: ShardTask) -> ShardOutcome:
    return check_shard(root, task, _count)


def _count(count: int) -> None:
    with _counter.get_lock():
        _counter.value += count
