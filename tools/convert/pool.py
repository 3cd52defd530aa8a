"""Run shards in worker processes, with progress image by image and a clean stop."""

import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from ctypes import c_longlong
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.tools.convert.plan import ConvertSettings, ShardPlan
from alexnet.tools.convert.work import StoppedError, convert_shard

_POLL_SECONDS = 0.1
_WRITTEN, _REJECTED, _STOP = range(3)


@dataclass(frozen=True)
class Progress:
    """Count images handled by this call so far, and those an earlier call had done."""

    written: int
    rejected: int
    resumed: int


def convert_all(
    plans: list[ShardPlan],
    root: Path,
    source: Path,
    settings: ConvertSettings,
    workers: int,
    on_progress: Callable[[int, int], None],
) -> None:
    """Convert shards in worker processes; `on_progress(written, rejected)` is called ten times a second."""
    context = multiprocessing.get_context("spawn")
    counters = context.Array(c_longlong, 3)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(counters,))
    try:
        pending: set[Future[None]] = {pool.submit(_run, root, source, plan, settings) for plan in plans}
        while pending:
            done, pending = wait(pending, timeout=_POLL_SECONDS)
            for future in done:
                future.result()
            on_progress(counters[_WRITTEN], counters[_REJECTED])
    finally:
        counters[_STOP] = 1
        pool.shutdown(wait=True, cancel_futures=True)


_counters: Any  # a synchronised array of three counters, set in each worker when it starts


def _start_worker(counters: Any) -> None:
    global _counters
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells workers to stop, so that none prints a traceback
    _counters = counters


def _run(root: Path, source: Path, plan: ShardPlan, settings: ConvertSettings) -> None:
    def on_image(written: bool) -> None:
        if _counters[_STOP]:
            raise StoppedError
        with _counters.get_lock():
            _counters[_WRITTEN if written else _REJECTED] += 1

    convert_shard(root, source, plan, settings, on_image)
