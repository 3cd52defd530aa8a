"""End a long command cleanly when it is told to stop: one line, exit code 130, whatever it was doing."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import click

INTERRUPTED = 130
"""As a shell counts it; 1 would say that something is wrong."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible(line: str) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a line on standard error and exit code 130.

    Once told, or done, the process is deaf to both until it is gone: people press Ctrl-C more than once while workers
    leave, and what is complete must not end in a traceback.
    """
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        click.echo(line, err=True)
        raise SystemExit(INTERRUPTED) from None
    finally:
        _be_deaf()


def _interrupt(*_: object) -> None:
    _be_deaf()
    raise KeyboardInterrupt


def _be_deaf() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
