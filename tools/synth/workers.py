"""Worker processes that write parts of archives, a window ahead of whoever takes them in order.

The converter's pool knows shards and bad images, of which there are none here, so the standard library's does. It gives
up when a worker dies; then the command ends, and continues when it is given again.
"""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Self

from alexnet.shards.processes import leave_with_parent, starting_workers
from alexnet.tools.console import StoppedError
from alexnet.tools.host_memory import keep_freed_memory
from alexnet.tools.synth.parts import Part

_POLL_SECONDS = 0.1
_AHEAD = 2  # parts a worker: a class tar of ImageNet's has 140 MB

_shared: dict[str, Any] = {}  # in a worker: the flag that stops it and the count of pictures


class Workers:
    """Write parts in processes; `on_drawn` is told, ten times a second, how many pictures all of them have drawn."""

    def __init__(self, workers: int, on_drawn: Callable[[int], None]) -> None:
        context = multiprocessing.get_context("spawn")
        self._stop: Any = context.Value("b", 0, lock=False)
        self._drawn: Any = context.Value("q", 0)
        self._pool = ProcessPoolExecutor(workers, context, _begin, (self._stop, self._drawn))
        self._window = _AHEAD * workers
        self._on_drawn = on_drawn

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Have workers leave after the picture they are on, and wait for them."""
        self._stop.value = 1
        self._pool.shutdown(cancel_futures=True)

    def write(self, parts: Sequence[Part], on_part: Callable[[Part], None]) -> None:
        """Write those parts that are not there; hand each to `on_part` in order. Raises StoppedError if that fails."""
        ahead: deque[tuple[Part, Future[None] | None]] = deque()
        try:
            for part in parts:
                ahead.append((part, None if part.path.exists() else self._submit(part)))
                if len(ahead) == self._window:
                    self._take(*ahead.popleft(), on_part)
            while ahead:
                self._take(*ahead.popleft(), on_part)
        except BrokenProcessPool:
            raise StoppedError(
                "a worker died; is the machine short of memory? The same command continues, with fewer --workers too"
            ) from None

    def _submit(self, part: Part) -> Future[None]:
        with starting_workers():
            return self._pool.submit(_write, part)

    def _take(self, part: Part, future: Future[None] | None, on_part: Callable[[Part], None]) -> None:
        while future is not None and not wait([future], _POLL_SECONDS).done:
            self._on_drawn(self._drawn.value)
        if future is not None:
            future.result()
        on_part(part)
        self._on_drawn(self._drawn.value)


class _ToldToStopError(Exception):
    """Leave a part half-way because the run was told to stop."""


def _begin(stop: Any, drawn: Any) -> None:
    leave_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops workers itself, so none prints a traceback
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    keep_freed_memory()
    _shared.update(stop=stop, drawn=drawn)


def _write(part: Part) -> None:
    part.write(_count_or_stop)


def _count_or_stop() -> None:
    if _shared["stop"].value:
        raise _ToldToStopError
    with _shared["drawn"].get_lock():
        _shared["drawn"].value += 1
