"""Where the commands begin: Ctrl-C ends them in one line from here on, before all imports, until they handle it.

Python would raise KeyboardInterrupt wherever it is: a traceback of whatever is being imported, or, in the middle of
PyTorch's C++, an abort. A command that has something to put in order handles the signal from when it begins to; one
that is done ignores it.
"""

import os
import signal
from importlib import import_module

INTERRUPTED = 130
"""As a shell counts it; 1 would say that something is wrong."""


def prep() -> None:
    """Run `alexnet-prep`."""
    _run("prep")


def train() -> None:
    """Run `alexnet-train`."""
    _run("train")


def bench() -> None:
    """Run `alexnet-bench`."""
    _run("bench")


def model() -> None:
    """Run `alexnet-model`."""
    _run("model")


def end_when_interrupted(line: bytes = b"interrupted\n") -> None:
    """Have Ctrl-C end the process at once, with a line, and exit code 130."""

    def end(*_: object) -> None:
        try:
            os.write(2, line)
        finally:
            os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, end)


def _run(name: str) -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever started it wants it ignored
        end_when_interrupted()
    try:
        import_module(f"alexnet.tools.{name}").main()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
