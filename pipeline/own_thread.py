"""A thread that belongs to an object and ends with it, whoever lets go of the object, and wherever that happens.

Python's collector may let go of an object on any thread: on the very thread that is to end, or on one that it waits
for. Such a thread tells it to end and goes on, as waiting would never end. A forked child has a copy of the object but
not the thread, and perhaps a lock that the thread held: there, nothing is done.
"""

import os
import threading
import weakref
from collections.abc import Callable

_PREFIX = "alexnet-"


def own_thread(owner: object, name: str, work: Callable[[], None], stop: Callable[[], None]) -> Callable[[], object]:
    """Run `work` on a thread until it returns, which `stop` makes it do; neither may hold on to `owner`.

    Returns what ends it: tells it to stop, and waits until it has gone. That is also called when `owner` goes and when
    the interpreter exits; twice does no harm.
    """
    thread = threading.Thread(target=work, name=_PREFIX + name, daemon=True)
    thread.start()
    return weakref.finalize(owner, _end, thread, stop, os.getpid())


def _end(thread: threading.Thread, stop: Callable[[], None], process: int) -> None:
    if os.getpid() != process:
        return
    stop()
    if not threading.current_thread().name.startswith(_PREFIX):
        thread.join()
