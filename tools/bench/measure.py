"""Measure rows in turn: start each row's process, run it round by round among the others, and outlive those that fail.

A machine whose speed drifts, or whose other users come and go, then treats all rows alike. A process that does not
answer in time is killed, with its children; its row says so, and the rest goes on.

    case = Case(name="read", title="reading", group="row", make="package.module:function", options={...}, cores=1)
    measured = measure_rows([case], Timing(rounds=5, seconds=2.0), print)
    measured.rows                     # with shares of their limits
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import msgspec

from alexnet.shards.errors import one_line
from alexnet.tools.bench.report import (
    Group,
    Missing,
    Options,
    Round,
    Row,
    Unit,
    medians,
    rates_of,
    share_of,
    spread,
)
from alexnet.tools.bench.stage import Answer

_START = "from alexnet.tools.bench.stage import main; main()"  # with -m its classes would be there twice
_WARM_SECONDS = 0.25  # a warm round, of the seconds of a round
_LEAST_ROWS, _LEAST_ROUNDS = 2, 3  # whatever the budget
_ROUND_LIMIT_SECONDS = 30.0  # beyond ten times what a round should take
_WARM_STEPS = 8


@dataclass(frozen=True, kw_only=True)
class Case:
    """Describe a row before it is measured.

    `make`: MODULE:FUNCTION, called in the row's process with `options` as keyword arguments; returns a `Stage`.
    `cores`: how many it can keep busy. `limit`: name of the row that this one cannot beat. `on_gpu`: CPU time says
    nothing of it. `alone`: all its rounds are run before the rows after it are started. `start_seconds`: how long it
    may take to stand. `step_seconds`: how long its longest step may take, beyond the seconds of a round.
    """

    name: str
    title: str
    group: Group
    make: str
    options: Options = field(default_factory=dict)
    cores: int = 1
    unit: Unit = "images"
    limit: str = ""
    on_gpu: bool = False
    alone: bool = False
    start_seconds: float = 120.0
    step_seconds: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)

    def command(self) -> list[str]:
        """Return the command that starts the row's process."""
        return [sys.executable, "-c", _START, self.make, json.dumps(self.options)]  # ASCII: a path may be no UTF-8


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Settle how long is measured: `rounds` rounds in which each row runs for about `seconds`.

    `budget_seconds`: once half of it is spent no more rows are started, beyond two; once all of it is, no more rounds
    begin, beyond three.
    """

    rounds: int
    seconds: float
    budget_seconds: float = math.inf


class Measured(NamedTuple):
    """What was measured, what was not, and whether all rounds were run: False after Ctrl-C."""

    rows: tuple[Row, ...]
    missing: tuple[Missing, ...]
    complete: bool


def measure_rows(cases: Sequence[Case], timing: Timing, say: Callable[[str], None]) -> Measured:
    """Measure rows in interleaved rounds, telling `say` what goes on."""
    started: list[_Running] = []
    try:
        _measure(cases, started, timing, say)
        complete, why = True, "the time was up"
    except KeyboardInterrupt:
        complete, why = False, "the run was interrupted before it"
    finally:
        for one in started:
            one.close()
    rows = {one.case.name: one.row() for one in started if one.rounds}
    for one in started:
        if one.case.name in rows and one.case.limit in rows:
            shares = {one.case.limit: share_of(rows[one.case.name], rows[one.case.limit])}
            rows[one.case.name] = replace(rows[one.case.name], shares=shares)
    whys = dict.fromkeys((case.name for case in cases if case.name not in rows), why)
    whys |= {one.case.name: one.why for one in started if one.why}
    missing = (Missing(name=case.name, title=case.title, why=whys[case.name]) for case in cases if case.name in whys)
    return Measured(tuple(rows.values()), tuple(missing), complete)


def _measure(cases: Sequence[Case], started: list["_Running"], timing: Timing, say: Callable[[str], None]) -> None:
    begin = time.monotonic()
    for case in cases:
        if len(started) >= _LEAST_ROWS and time.monotonic() - begin > timing.budget_seconds / 2:
            break
        say(f"starting: {case.title}")
        started.append(_Running(case, timing))
        started[-1].start()
        for _ in range(timing.rounds if case.alone else 0):
            started[-1].round()
    for number in range(timing.rounds):
        if number >= _LEAST_ROUNDS and time.monotonic() - begin > timing.budget_seconds:
            break
        # Every other round backwards, so that no row always follows the same one.
        for one in started if number % 2 == 0 else started[::-1]:
            if not one.case.alone:
                say(f"round {number + 1} of {timing.rounds}: {one.case.title}")
                one.round()


class _Running:
    """The process of one row, and what it has said; `why` it says no more."""

    def __init__(self, case: Case, timing: Timing) -> None:
        self.case, self.why = case, ""
        self.rounds: list[Round] = []
        self._timing = timing
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `close`)
        # A process that is killed leaves what it wrote, and FFCV's files have 2 GB: they lie here, and go with it.
        self._scratch = tempfile.TemporaryDirectory(prefix="alexnet-bench-", ignore_cleanup_errors=True)
        self._popen = subprocess.Popen(
            self.case.command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | self.case.environment | {"TMPDIR": self._scratch.name},
            start_new_session=True,  # Ctrl-C is for the command; its children go with this one
        )

    def start(self) -> None:
        """Wait until the stage is made and warm."""
        limit = 10 * self._timing.seconds + self.case.start_seconds + _WARM_STEPS * self.case.step_seconds
        answer = self._ask(self._timing.seconds * _WARM_SECONDS, limit)
        self._ready, self.why = answer.ready, answer.why

    def round(self) -> None:
        """Run a round, unless the row has failed."""
        if not self.why:
            limit = 10 * self._timing.seconds + _ROUND_LIMIT_SECONDS + self.case.step_seconds
            answer = self._ask(self._timing.seconds, limit)
            self.rounds += [answer.round] if answer.round else []
            self.why = answer.why

    def row(self) -> Row:
        """Return what was measured."""
        assert self._ready is not None  # there are rounds
        case, ready, rounds = self.case, self._ready, tuple(self.rounds)
        return Row(
            name=case.name,
            title=case.title,
            group=case.group,
            unit=case.unit,
            cores=case.cores,
            options={k: one_line(v) if isinstance(v, str) else v for k, v in case.options.items()},
            settings=ready.settings,
            versions=ready.versions,
            before_bytes=ready.before_bytes,
            wall=spread(rates_of(rounds)),
            cpu=None if case.on_gpu else spread(rates_of(rounds, case.cores)),
            figures=medians(r.figures for r in rounds),
            shares={},
            rounds=rounds,
        )

    def close(self) -> None:
        """Kill the process and its children, and delete what they wrote; who measures has nothing to save."""
        self._kill()
        with contextlib.suppress(OSError), self._popen:  # closes its pipes; what was not read is no longer wanted
            pass
        self._errors.close()
        self._scratch.cleanup()

    def _ask(self, seconds: float, limit_seconds: float) -> Answer:
        """Have it run for so long and return what it says; where that is nothing, why."""
        late = threading.Event()
        timer = threading.Timer(limit_seconds, lambda: late.set() or self._kill())  # type: ignore[func-returns-value]
        timer.start()
        try:
            assert self._popen.stdin is not None
            assert self._popen.stdout is not None
            self._popen.stdin.write(f"{seconds}\n".encode())
            self._popen.stdin.flush()
            line = self._popen.stdout.readline()
        except OSError:  # it is gone
            line = b""
        finally:
            timer.cancel()
        if line.endswith(b"\n"):
            return msgspec.json.decode(line, type=Answer)
        stopped = f"did not answer within {limit_seconds:,.0f} seconds and was stopped"
        return Answer(why=stopped if late.is_set() else self._how_it_ended())

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def _how_it_ended(self) -> str:
        code = self._popen.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"
        self._errors.seek(0)
        said = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return f"{how}; its last words: {said[-1][:200]}" if said else how
