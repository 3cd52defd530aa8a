"""The thread of requests, when its process ends."""

import _thread
import asyncio
import os
import threading
from concurrent.futures import CancelledError

import pytest

from alexnet.shards import event_loop


def test_requests_are_ended_and_foreign_threads_have_left_python_before_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, may_leave = threading.Event(), threading.Event()

    def foreign() -> None:  # as obstore's: no thread of Python's own
        entered.set()
        may_leave.wait()

    async def for_ever() -> None:
        await asyncio.Event().wait()

    request = asyncio.run_coroutine_threadsafe(for_ever(), event_loop.loop())
    _thread.start_new_thread(foreign, ())
    entered.wait()
    monkeypatch.setattr("time.sleep", lambda _: may_leave.set())
    event_loop._break_off(event_loop.loop(), os.getpid())
    assert request.cancelled()
    assert may_leave.is_set()


def test_work_for_a_thread_is_broken_off_when_none_starts_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that reads ahead would print a traceback at the end of a script."""

    async def to_thread(*_: object) -> None:
        raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    with pytest.raises(CancelledError):
        asyncio.run_coroutine_threadsafe(event_loop.on_a_thread(os.getpid), event_loop.loop()).result()
