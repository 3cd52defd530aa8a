"""What a command prints, where that cannot be written: the disk is full, the reader has left, the terminal is gone.

A failed write is raised once, under a name of its own. From there on the descriptor leads to /dev/null, so that neither
cleaning up nor the end of Python fails again. On standard error nothing is raised: there is nobody left to tell.
"""

import errno
import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click


class OutputError(Exception):
    """Say that standard output could not be written, and why. `broken_pipe`: who read it has left, as `head` does.

    No OSError: what prints on the way is not to take it for its own.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written ({error.strerror})")
        self.broken_pipe = error.errno == errno.EPIPE


@contextmanager
def standard_output() -> Iterator[None]:
    """Watch standard output and standard error while a block runs. Raises OutputError, for what is unwritten, too."""
    _open_what_is_closed()
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _watched(out, raises=True), _watched(err, raises=False)
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        finally:
            sys.stdout, sys.stderr = out, err


class _Descriptor(io.FileIO):
    """Descriptor 1 or 2; what cannot be written there goes nowhere."""

    def __init__(self, number: int, *, raises: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self._raises = raises
        self._failed: OutputError | None = None

    def write(self, data: Any, /) -> int:
        """Write; raise a failure in the main thread, where a command can end: others draw its progress."""
        try:
            written = super().write(data)
        except OSError as error:
            _lead_nowhere(self.fileno())
            self._failed = OutputError(error)
            written = len(memoryview(data).cast("B"))
        if self._failed and self._raises and threading.current_thread() is threading.main_thread():
            failed, self._failed = self._failed, None
            raise failed
        return written


def _watched(stream: TextIO, *, raises: bool) -> TextIO:
    """Return a stream as this one, watched; itself if it is not a process's own, as in tests."""
    if stream not in (sys.__stdout__, sys.__stderr__) or not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Descriptor(stream.fileno(), raises=raises)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _open_what_is_closed() -> None:
    """Open /dev/null where a standard stream is closed: else the next file, a shard maybe, would get its number."""
    closed = sys.stdout is None
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(null, null == number)  # for processes that are started from here
            setattr(sys, name, open(null, mode))  # noqa: SIM115, PTH123 (it stays open)
    if closed:
        click.echo("note: standard output is closed; what would be printed there is lost", err=True)


def _lead_nowhere(number: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
