"""The process of one row: make its stage, then run it for a while whenever told to.

A stage is something that can be run and counted. Each has a process of its own, so that rows share neither threads nor
memory, a loader that crashes takes nothing along, and peak memory is a row's own. `measure.py` starts it, and says on
standard input for how many seconds to run. Answers are lines of JSON on what was standard output; whatever libraries
print goes to standard error.
"""

import json
import os
import pkgutil
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

    `work`: begins it, untimed; a round ends where it ends. `settings`: what it was told, in words. `starts_over`: every
    round begins it anew, as what the round before left is no longer what it was. `ready_batches`: what it may have
    finished before it is asked. `least_batches`: of a round, however long they take. `after_round`: is not timed.
    `figures`: asked after a round for what else is to be told of it.
    """

    work: Callable[[], Work]
    settings: str
    versions: dict[str, str] = field(default_factory=dict)
    starts_over: bool = False
    ready_batches: int = 0
    least_batches: int = 16  # loaders with worker processes deliver in bursts
    after_round: Callable[[], None] = lambda: None
    figures: Callable[[], dict[str, float]] = dict


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Say that the stage is made and warm, or what a round gave, or why there is neither.

    `before_bytes`: of memory, before it ran.
    """

    settings: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    before_bytes: int = 0
    round: Round | None = None
    why: str = ""


class Runner:
    """Run a stage in rounds, going on where the round before ended, unless the stage wants to start over."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._work: Work | None = None

    def round(self, seconds: float) -> Round:
        """Run for about so long and for some batches at least; then wait until what runs ahead has come to rest."""
        stage = self._stage
        if self._work is None or stage.starts_over:
            self._work = stage.work()
        for _ in range(stage.ready_batches):
            next(self._work, None)
        amount, begin = 0.0, read_clocks()
        for batches, finished in enumerate(self._work, 1):
            amount, passed = amount + finished, time.perf_counter() - begin.wall
            if passed >= _LONGEST * seconds or (passed >= seconds and batches >= stage.least_batches):
                break
        end = read_clocks()
        stage.after_round()
        figures = stage.figures()
        wait_until_quiet()
        return Round(
            amount=amount,
            seconds=end.wall - begin.wall,
            cpu_seconds=end.cpu - begin.cpu,
            foreign_load=foreign_load(begin, end),
            peak_bytes=peak_bytes(),
            page_faults=end.faults - begin.faults,
            figures=figures,
        )

    def warm_up(self, seconds: float) -> None:
        """Run until two rounds in turn need the same CPU time for the same work, within 5%, or for five rounds."""
        before = 0.0
        for _ in range(_WARM_ROUNDS):
            done = self.round(seconds)
            speed = done.amount / max(done.cpu_seconds, 1e-6)
            if abs(speed - before) < _STABLE * before:
                return
            before = speed


def answers(commands: Iterator[str], factory: str, options: str) -> Iterator[Answer]:
    """Make the stage and warm it up, in rounds of the first number of seconds; then run a round for each other one."""
    stage: Stage = pkgutil.resolve_name(factory)(**json.loads(options))
    runner, before = Runner(stage), peak_bytes()
    runner.warm_up(float(next(commands)))
    yield Answer(settings=stage.settings, versions=stage.versions, before_bytes=before)
    for seconds in commands:
        yield Answer(round=runner.round(float(seconds)))


def main() -> None:
    """Answer until there is nothing more to answer."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        for answer in answers(iter(sys.stdin.readline, ""), *sys.argv[1:]):
            out.write(msgspec.json.encode(answer) + b"\n")
    except Exception as error:
        why = str(error)
        if not isinstance(error, CannotRunError | InputError):
            lines = [line.strip() for line in why.splitlines() if line.strip()] or ["gives no reason"]
            why = f"{type(error).__name__}: {lines[0][:200]}"
        out.write(msgspec.json.encode(Answer(why=why)) + b"\n")
    os._exit(0)  # whatever threads and worker processes a loader leaves behind must not keep this alive
