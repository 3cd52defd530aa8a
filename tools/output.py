"""Standard output and error that cannot be written: a full disk, a terminal that is gone, a reader that has left.

Work of hours does not end over a line that cannot be printed. That is said once, on standard error, and a command that
would have left with exit code 0 leaves with 1. If the reader has left, as `head` does, the command ends in silence.
"""

import errno
import io
import os
import select
import signal
import sys
from typing import Any

import click

_OUT, _ERR = 1, 2


class _Stream(io.FileIO):
    """A standard stream that leads nowhere once it could not be written; `lost`: what should be in it is not."""

    lost = False

    def write(self, data: Any, /) -> int:
        """Write, or pretend to. Raises SystemExit if the reader has left, unless somebody hears SIGPIPE."""
        try:
            while (written := super().write(data)) is None:  # whoever shares it has it not wait
                select.select([], [self], [])
            return written
        except OSError as error:
            _lead_nowhere(self.fileno())
            if self.fileno() == _OUT:
                self._end(error)
            return memoryview(data).nbytes

    def _end(self, error: OSError) -> None:
        if error.errno != errno.EPIPE:
            self.lost = True
            click.echo(f"standard output: {error.strerror}; what else was to be printed there is lost", err=True)
        elif not callable(signal.getsignal(signal.SIGPIPE)):
            raise SystemExit(1)


def guard_output() -> None:
    """Have standard output and error take all that is printed from here on; what they cannot encode they escape."""
    if sys.stdout is None:
        click.echo("standard output is closed; what was to be printed there is lost", err=True)
    sys.stdout, sys.stderr = _guarded(sys.stdout, _OUT), _guarded(sys.stderr, _ERR)


def output_is_lost() -> bool:
    """Say whether something could not be written to standard output."""
    sys.stdout.flush()
    return getattr(getattr(sys.stdout.buffer, "raw", None), "lost", False)


def _guarded(stream: Any, number: int) -> Any:
    """Return what takes a standard stream's place: itself, if it is not the one that the process began with."""
    if stream not in (None, sys.__stdout__, sys.__stderr__):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        return stream
    if stream is None:  # closed: else the next file that is opened would get its number, and what libraries print
        _lead_nowhere(number)
    raw = io.BufferedWriter(_Stream(number, "w", closefd=False))
    encoding, lines = (stream.encoding, stream.line_buffering) if stream else ("utf-8", True)
    return io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=lines)


def _lead_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
    os.set_inheritable(number, True)  # for processes that are started from here, and their files
