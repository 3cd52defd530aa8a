"""The stream while a network trains on the other cores: in the same process, as `alexnet-train` does it, or in another.

The first against the stream alone is what feeding a trainer costs the stream. The second tells how much of that is the
cores' own doing, where they share caches, memory and clock: what is left is the price of one interpreter.
"""

import os
import signal
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import Any

from alexnet.shards.processes import leave_with_parent
from alexnet.tools.bench.measuring.stages_seam import CannotRunError, NetStageSettings, Stage, StageSettings, Work

_NETWORK: dict[str, Any] = {
    "arch": "alexnet-2012",
    "precision": "auto",
    "batch_images": 32,
    "gpus": 1,
    "parallel": "towers",
    "classes": 1000,
}
_STEPS_AHEAD = 2
_LOOK_SECONDS = 0.5


def beside(stream: Stage, settings: StageSettings, options: dict[str, Any]) -> Stage:
    """Return the stage of a stream with a trainer at work in every round, and at rest between them."""
    threads = settings.threads - int(options["threads"])
    trainer = _Here(threads) if options["trainer"] == "here" else _Elsewhere(threads)

    def work() -> Work:
        trainer.go_on()
        for done in stream.work():
            yield done
            trainer.go_on()

    where = "in this process" if options["trainer"] == "here" else "in another process"
    plural = "s" * (threads > 1)
    words = f"{stream.settings}; {_NETWORK['arch']} trains on {threads} thread{plural} {where}"
    return replace(stream, work=work, after_round=trainer.rest, settings=words)


class _Here:
    """A trainer in a thread of this process: told to take steps as long as batches are taken."""

    def __init__(self, threads: int) -> None:
        from alexnet.tools.bench.networks.net_run import NetRun

        self._source = NetRun(_NETWORK, NetStageSettings(device="cpu", threads=threads)).trainer.source
        self._ahead = 0

    def go_on(self) -> None:
        """Keep two steps wanted."""
        while self._ahead and self._source.done.acquire(blocking=False):
            self._ahead -= 1
        while self._ahead < _STEPS_AHEAD:
            self._source.allowed.release()
            self._ahead += 1

    def rest(self) -> None:
        """Wait until the steps that were wanted are taken."""
        while self._ahead:
            self._source.done.acquire()
            self._ahead -= 1


class _Elsewhere:
    """A trainer in a process of its own, which is halted between rounds."""

    def __init__(self, threads: int) -> None:
        context = get_context("spawn")
        ready = context.Event()
        process = context.Process(target=_train, args=(threads, ready), daemon=True)
        process.start()
        while not ready.wait(_LOOK_SECONDS):
            if not process.is_alive():
                raise CannotRunError("the process that was to train ended as it started")
        assert process.pid is not None  # it was started
        self._pid = process.pid
        self.rest()

    def go_on(self) -> None:
        """Let it run."""
        os.kill(self._pid, signal.SIGCONT)

    def rest(self) -> None:
        """Halt it."""
        os.kill(self._pid, signal.SIGSTOP)


def _train(threads: int, ready: Event) -> None:
    """Train until the parent is gone, which halted processes learn only from the kernel."""
    from alexnet.tools.bench.networks.net_run import NetRun

    leave_with_parent()
    trainer = NetRun(_NETWORK, NetStageSettings(device="cpu", threads=threads)).trainer
    trainer.run(1)
    ready.set()
    while True:
        trainer.run(1)
