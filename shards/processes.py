"""How worker processes are started: each computes on one thread, and neither Ctrl-C nor SIGHUP reaches any.

A terminal sends both to the workers, too. They ignore them, as it is their parent that ends them, but only once they
run: Python takes half a second to start, and would answer with a traceback.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


@contextmanager
def starting_workers() -> Iterator[None]:
    """Have processes that start meanwhile compute on one thread each, as they are the parallelism, and block both."""
    resource_tracker.ensure_running()  # multiprocessing starts it with the first worker, and unblocks SIGINT then
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})  # inherited; ours come later
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
