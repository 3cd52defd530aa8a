"""Stop a training run when it is told to: after the step that it is at, with a checkpoint."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

from alexnet.tools.interruption import signals
from alexnet.tools.standard_output import OutputError

STOPPING = "stopping after this step, with a checkpoint; once more to stop at once, without one"


class StopSignal:
    """Remember whether Ctrl-C, SIGTERM or SIGHUP came, or what is said no longer arrives; `lost` tells why then.

    `alone`: at the second one, stop at once. One of several processes leaves that to whoever started it, for Ctrl-C in
    a terminal reaches it twice: from the terminal and from there.
    """

    lost: OutputError | None = None

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self._heard = False

    def __call__(self) -> bool:
        """Say whether to stop."""
        return self._heard

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Take words that cannot be written for a reason to stop as well: with a checkpoint."""
        try:
            yield
        except OutputError as error:
            self._heard, self.lost = True, self.lost or error

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals over; they can only be taken over in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._hear) for number in signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, _: object) -> None:
        if self._heard and number == signal.SIGHUP:
            return  # a terminal that closes sends it twice: itself, and its shell
        if self._heard and self._alone:
            raise KeyboardInterrupt
        if self._alone:
            click.echo(STOPPING, err=True)
        self._heard = True
