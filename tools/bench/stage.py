"""The process of one row: make its stage, then run it for a while whenever told to.

A stage is something that can be run and counted. Each has a process of its own, so that rows share neither threads nor
memory, a loader that crashes takes nothing along, and peak memory is a row's own. `measure.py` starts it, and says on
standard input for how many seconds to run. Answers are lines of JSON on what was standard output; whatever libraries
print goes to standard error.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from alexnet.shards.errors import InputError
from alexnet.tools.bench.conditions import foreign_load, peak_bytes, read_clocks, wait_until_quiet
from alexnet.tools.bench.report import Round

Work = Iterator[float]
"""Yields an amount each time that something is finished, in the unit of the row."""

_WARM_ROUNDS = 5
_STABLE = 0.05  # two rounds in turn that differ by less
_LONGEST = 3.0  # times the seconds asked for


class CannotRunError(Exception):
    """Say in one line why a row cannot be measured here."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Hold a stage that can be run.

    `work`: begins a pass; most never end, and are then begun once. `settings`: what it was told, in words.
    `starts_over`: every round begins a pass, as what the round before left is no longer what it was.
    `ready_batches`: what it may have finished before it is asked. `least_batches`: of a round, however long they take.
    `before_pass`, `after_round`: are not timed. `figures`: asked after a round for what else is to be told of it.
    """

    work: Callable[[], Work]
    settings: str
    versions: dict[str, str] = field(default_factory=dict)
    starts_over: bool = False
    ready_batches: int = 0
    least_batches: int = 16  # loaders with worker processes deliver in bursts
    before_pass: Callable[[], None] = lambda: None
    after_round: Callable[[], None] = lambda: None
    figures: Callable[[], dict[str, float]] = dict


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Say that a stage is made and warm. `before_bytes`: of memory, before it ran."""

    settings: str
    versions: dict[str, str]
    before_bytes: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One of: the stage is ready, a round, or why there is neither."""

    ready: Ready | None = None
    round: Round | None = None
    why: str = ""


class Runner:
    """Run a stage in rounds, taking up the pass where the round before left it, unless the stage wants a new one."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._pass: Work | None = None

    def round(self, seconds: float) -> Round:
        """Run for about so long and for some batches at least; then wait until what runs ahead has come to rest."""
        if self._stage.starts_over:
            self._pass = None
        for _ in range(self._stage.ready_batches):
            next(self._running(), None)
        amount, batches = 0.0, 0
        wall = cpu = busy = 0.0
        deadline = time.perf_counter() + _LONGEST * seconds
        while not batches or (self._wants_more(wall, seconds, batches) and time.perf_counter() < deadline):
            work, begin = self._running(), read_clocks()
            for finished in work:
                amount, batches, now = amount + finished, batches + 1, time.perf_counter()
                if now >= deadline or not self._wants_more(wall + now - begin.wall, seconds, batches):
                    break
            else:
                self._pass = None
            end = read_clocks()
            busy += foreign_load(begin, end) * (end.wall - begin.wall)
            wall, cpu = wall + end.wall - begin.wall, cpu + end.cpu - begin.cpu
        self._stage.after_round()
        figures = self._stage.figures()
        wait_until_quiet()
        load, peak = busy / wall, peak_bytes()
        return Round(
            amount=amount, seconds=wall, cpu_seconds=cpu, foreign_load=load, peak_bytes=peak, figures=figures
        )  # fmt: skip

    def warm_up(self, seconds: float) -> None:
        """Run until two rounds in turn need the same CPU time for the same work, within 5%, or for five rounds."""
        before = 0.0
        for _ in range(_WARM_ROUNDS):
            done = self.round(seconds)
            speed = done.amount / max(done.cpu_seconds, 1e-6)
            if abs(speed - before) < _STABLE * before:
                return
            before = speed

    def _wants_more(self, wall: float, seconds: float, batches: int) -> bool:
        return wall < seconds or batches < self._stage.least_batches

    def _running(self) -> Work:
        if self._pass is None:
            self._stage.before_pass()
            self._pass = self._stage.work()
        return self._pass


def make(factory: str, options: dict[str, object]) -> Stage:
    """Return the stage that `factory`, as MODULE:FUNCTION, makes of these keyword arguments."""
    module, _, function = factory.partition(":")
    stage: Stage = getattr(importlib.import_module(module), function)(**options)
    return stage


def answers(commands: Iterator[str], factory: str, options: str) -> Iterator[Answer]:
    """Make the stage and warm it up, in rounds of the first number of seconds; then run a round for each other one."""
    stage = make(factory, json.loads(options))
    runner, before = Runner(stage), peak_bytes()
    runner.warm_up(float(next(commands)))
    yield Answer(ready=Ready(settings=stage.settings, versions=stage.versions, before_bytes=before))
    for seconds in commands:
        yield Answer(round=runner.round(float(seconds)))


def main() -> None:
    """Answer until there is nothing more to answer."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        for answer in answers(iter(sys.stdin.readline, ""), *sys.argv[1:]):
            out.write(msgspec.json.encode(answer) + b"\n")
    except (CannotRunError, InputError) as error:
        out.write(msgspec.json.encode(Answer(why=str(error))) + b"\n")
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["gives no reason"]
        out.write(msgspec.json.encode(Answer(why=f"{type(error).__name__}: {lines[0][:200]}")) + b"\n")
    os._exit(0)  # whatever threads and worker processes a loader leaves behind must not keep this alive
