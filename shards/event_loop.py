"""The one thread of a process on which all that goes over a network waits, hundreds of requests at a time."""

import asyncio
import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from alexnet.shards.url import StorageError

S = TypeVar("S")
T = TypeVar("T")

_loops: dict[int, asyncio.AbstractEventLoop] = {}
_lock = threading.Lock()
_END_SECONDS = 5.0  # at most, that the end of a process waits
_HEARD_SECONDS = 0.05  # until obstore's threads have heard that a request is over


def loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of this process, running on a thread of its own.

    Raises StorageError in a fork of a process that has one: obstore's threads do not come along, and it would wait.
    """
    with _lock:
        if (pid := os.getpid()) not in _loops:
            if _loops:
                raise StorageError(
                    "object storage was read before this process was forked, so it cannot be here: start processes by "
                    "spawn (a DataLoader takes multiprocessing_context='spawn')"
                )
            _loops[pid] = asyncio.new_event_loop()
            threading.Thread(target=_loops[pid].run_forever, name="alexnet-storage", daemon=True).start()
            atexit.register(_break_off, _loops[pid], pid)
        return _loops[pid]


def _break_off(running: asyncio.AbstractEventLoop, pid: int) -> None:
    """End all requests, and wait until obstore's threads have left Python, which aborts if it ends around one."""

    async def end() -> int:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(tasks)

    if pid != os.getpid():
        return
    with contextlib.suppress(TimeoutError):
        if asyncio.run_coroutine_threadsafe(end(), running).result(_END_SECONDS):
            time.sleep(_HEARD_SECONDS)
    own, end_s = {thread.ident for thread in threading.enumerate()}, time.monotonic() + _END_SECONDS
    while sys._current_frames().keys() - own and time.monotonic() < end_s:
        time.sleep(0.001)


async def on_a_thread(work: Callable[..., T], *arguments: object) -> T:
    """Do work on a thread; broken off when the process ends, and none is started any more."""
    try:
        return await asyncio.to_thread(work, *arguments)
    except RuntimeError:
        raise asyncio.CancelledError from None


async def side_by_side(work: Callable[[S], Awaitable[T]], of: Iterable[S], at_once: int = 32) -> list[T]:
    """Do work for each of many, so many at once; where one fails, none goes on."""
    some = asyncio.Semaphore(at_once)

    async def bounded(one: S) -> T:
        async with some:
            return await work(one)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(bounded(one)) for one in of]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
