"""Stop a training run when it is told to: after the step that it is at, with a checkpoint."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

STOPPING = "stopping after this step, with a checkpoint; once more to stop at once, without one"

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Remember whether Ctrl-C or SIGTERM came.

    `alone`: at the second one, stop at once. One of several processes leaves that to whoever started it, for Ctrl-C in
    a terminal reaches it twice: from the terminal and from there.
    """

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self._heard = False

    def __call__(self) -> bool:
        """Say whether to stop."""
        return self._heard

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals over; they can only be taken over in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, *_: object) -> None:
        if self._heard and self._alone:
            raise KeyboardInterrupt
        if self._alone:
            click.echo(STOPPING, err=True)
        self._heard = True
