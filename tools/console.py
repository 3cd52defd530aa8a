"""What all commands share: how they end, what they print, where a name is chosen, and which data they use.

A command ends in one clear line and never in a traceback: exit code 2 for what the user can mend, 1 for what went
wrong, 130 when it was told to stop.

Its output may be a full disk, a terminal that is gone, a reader that has left. Work of hours does not end over a line
that cannot be printed: that is said once, on standard error, and a command that would have left with exit code 0 leaves
with 1. If the reader has left, as `head` does, the command ends in silence.
"""

import errno
import functools
import io
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import click

from alexnet.shards.errors import InputError, nearest, one_line
from alexnet.shards.resources import usable_cores
from alexnet.shards.url import set_options
from alexnet.tools.settings import check_recipe
from alexnet.tools.start import INTERRUPTED

MISTAKE = 2
"""The exit code of what the user can mend."""

P = ParamSpec("P")
R = TypeVar("R")

_OUT, _ERR = 1, 2
_AGAIN_SECONDS = 0.02


class StoppedError(Exception):
    """End a command that did what it could and can be continued: one line, exit code 1."""


class _UserMistake(click.ClickException):
    """Print `Error: <message>` on standard error and leave with exit code 2."""

    exit_code = MISTAKE


class Program(click.Command):
    """A command that is a process of its own: it ends well whatever becomes of its output."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run it and leave, with exit code 1 where something that was to be printed is lost."""
        guard_output()
        try:
            return super().main(*args, **kwargs)
        except SystemExit as end:
            if not end.code and output_is_lost():
                raise SystemExit(1) from None
            raise


class Programs(Program, click.Group):
    """A program of several commands."""


def one_line_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Turn an InputError into its one line and exit code 2, a StoppedError into its line and exit code 1."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            raise _UserMistake(one_line(str(error))) from None
        except StoppedError as error:
            raise click.ClickException(one_line(str(error))) from None

    return wrapped


def tell(line: str, *, err: bool = False) -> None:
    """Print one line, whatever is in the names that it holds; on standard error with `err`."""
    click.echo(one_line(line), err=err)


def name_of(names: Iterable[str]) -> Callable[[str], str]:
    """Return a type for click: one of some names, with the nearest suggested for one that is none.

    Unlike click's own choice, help does not list the names in a column too narrow.
    """
    known = tuple(names)

    def name(value: str) -> str:
        if value not in known:
            raise click.BadParameter(f"{value}: must be one of {', '.join(known)}{nearest(value, known)}")
        return value

    return name


def recipe_or_file(value: str) -> str:
    """Return what names a recipe; a type for click. Whether a file can be read is seen when it is."""
    try:
        check_recipe(value)
    except InputError as error:
        raise click.BadParameter(f"{value}: {error}") from None
    return value


workers_option = click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=usable_cores,
    help="Processes; the output does not depend on it.  [default: cores]",
)
"""What commands have that write the same with any number of processes."""


def _take_storage_options(_context: click.Context, _option: click.Parameter, assignments: tuple[str, ...]) -> None:
    try:
        set_options(assignments)
    except InputError as error:
        raise _UserMistake(str(error)) from None


storage_options = click.option(
    "--storage-option",
    multiple=True,
    metavar="KEY=VALUE",
    expose_value=False,
    callback=_take_storage_options,
    help="Of data at a URL: how to reach it, such as region=eu-central-1; may be repeated.",
)
"""What commands have that take URLs. Processes that they start inherit it; it is never printed or written down."""


cache_option = click.option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="With a URL, what comes from there or goes there lies here.  [default: ~/.cache/alexnet/remote]",
)
"""What commands have that read or write data at URLs without the settings of a run."""


def find_data(given: Path | None) -> tuple[Path, str]:
    """Return the data set to use and why, in words."""
    if given is not None:
        return given, "given"
    if named := os.environ.get("ALEXNET_DATA"):
        return Path(named), "from ALEXNET_DATA"
    with as_file(files("alexnet.shards") / "ci-100") as bundled:
        return bundled, "the bundled 100 images, as no DATA was given and ALEXNET_DATA is not set"


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask to stop: Ctrl-C, SIGTERM, and a terminal that closes, unless nohup said otherwise."""
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGINT, signal.SIGTERM, *hangup)


@contextmanager
def interruptible(line: str) -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and SIGHUP into a line on standard error and exit code 130.

    Once told, or done, the process ignores them until it is gone: people press Ctrl-C more than once while workers
    leave, and what is complete must not end in a traceback.
    """
    for number in stop_signals():
        signal.signal(number, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        click.echo(line, err=True)
        raise SystemExit(INTERRUPTED) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # of `_interrupt`
        _ignore_stop_signals()


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but not out of an import, where PyTorch would abort: try again until it is over."""
    _ignore_stop_signals()
    while frame:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            signal.signal(signal.SIGALRM, _interrupt)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def _ignore_stop_signals() -> None:
    for number in stop_signals():
        signal.signal(number, signal.SIG_IGN)


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
