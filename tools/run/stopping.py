"""Stop a training run when it is told to: after the step that it is at, with a checkpoint."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

from alexnet.tools.console import stop_signals

STOPPING = "stopping after this step, with a checkpoint; once more to stop at once, without one"


class StopSignal:
    """Remember whether a signal to stop came, or whoever read the output left.

    `alone`: at the second one, stop at once. One of several processes leaves that to whoever started it, for Ctrl-C in
    a terminal reaches it twice: from the terminal and from there. So does the end of a terminal, from it and the shell.
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
        before = {number: signal.signal(number, self._hear) for number in (*stop_signals(), signal.SIGPIPE)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, _: object) -> None:
        again = self._heard
        self._heard = True  # first: the line may meet the reader's end, which is a signal of its own
        if not self._alone or number == signal.SIGPIPE:
            return
        if not again:
            click.echo(STOPPING, err=True)
        elif number != signal.SIGHUP:
            raise KeyboardInterrupt
