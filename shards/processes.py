"""How worker processes are started: each computes on one thread, and neither Ctrl-C nor SIGHUP reaches any of them.

A terminal sends Ctrl-C, and SIGHUP when it closes, to the workers, too. It is their parent that ends them. They are
deaf from the start: Python takes half a second until it can ignore a signal, and would answer with a traceback.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


@contextmanager
def starting_workers() -> Iterator[None]:
    """Have processes that start meanwhile compute on one thread each, as they are the parallelism, and be deaf."""
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    resource_tracker.ensure_running()  # multiprocessing starts it with the first worker, and unblocks SIGINT then
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited; ours comes when we unblock it
    threads = os.environ.get(_BLAS_THREADS)
    os.environ[_BLAS_THREADS] = "1"  # read when a process loads NumPy
    try:
        yield
    finally:
        if threads is None:
            del os.environ[_BLAS_THREADS]
        else:
            os.environ[_BLAS_THREADS] = threads
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
