"""The one thread of a process on which all that goes over a network waits, hundreds of requests at a time."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from alexnet.shards.url import StorageError

S = TypeVar("S")
T = TypeVar("T")

_loops: dict[int, asyncio.AbstractEventLoop] = {}
_lock = threading.Lock()


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
        return _loops[pid]


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
