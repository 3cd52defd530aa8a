"""End a long command cleanly when it is told to stop: one line, exit code 130, whatever it was doing."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from alexnet.tools.start import INTERRUPTED

__all__ = ["INTERRUPTED", "interruptible", "stop_signals"]

_AGAIN_SECONDS = 0.02


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask to stop: Ctrl-C, SIGTERM, and a terminal that closes, unless nohup said otherwise."""
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGINT, signal.SIGTERM, *hangup)


@contextmanager
def interruptible(line: str) -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and SIGHUP into a line on standard error and exit code 130.

    Once told, or done, the process is deaf to them until it is gone: people press Ctrl-C more than once while workers
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
        _be_deaf()


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but not out of an import: that of PyTorch would abort. It is looked again until then."""
    _be_deaf()
    while frame:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            signal.signal(signal.SIGALRM, _interrupt)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def _be_deaf() -> None:
    for number in stop_signals():
        signal.signal(number, signal.SIG_IGN)
