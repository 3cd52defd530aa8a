"""Measure rows in turn: start each row's process, run it round by round among the others, and outlive those that fail.

A machine whose speed drifts, or whose other users come and go, then treats all rows alike. A process that does not
answer in time is killed, with its children; its row says so, and the rest goes on.

    case = Case(name="read", title="reading", make=loader_stages.read, options={...})
    rows, missing, complete = measure_rows([case], Timing(rounds=5, seconds=2.0), print)
"""

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import msgspec

from alexnet.tools.bench.conditions import conditions_before, without_home
from alexnet.tools.bench.report import (
    Clock,
    Command,
    Data,
    Group,
    Missing,
    Options,
    Report,
    Round,
    Row,
    Unit,
    medians,
    rates_of,
    spread,
)
from alexnet.tools.bench.stage import Answer, Stage

Say = Callable[[str], None]
"""Tells the user what goes on."""
Bounds = Callable[[Mapping[str, Row], Clock], dict[str, float]]
"""Returns what a row cannot beat, by name, in its unit a second by a clock: of the rows that were measured."""

_START = "from alexnet.tools.bench.stage import main; main()"  # with -m its classes would be there twice
_WARM_SECONDS = 0.25  # a warm round, of the seconds of a round
_LEAST_ROWS, _LEAST_ROUNDS = 2, 3  # whatever the budget
_ROUND_LIMIT_SECONDS = 30.0  # beyond ten times what a round should take
_TERM_SECONDS = 2.0  # for what is asked to end; it takes milliseconds
_WARM_STEPS = 8


def limited_by(*names: str) -> Bounds:
    """Return the bounds of a row that cannot beat any of others: the slowest by wall time."""

    def bounds(rows: Mapping[str, Row], clock: Clock) -> dict[str, float]:
        slowest = min((rows[name] for name in names if name in rows), key=lambda row: row.wall.median, default=None)
        return {slowest.name: slowest.rate(clock)} if slowest else {}

    return bounds


@dataclass(frozen=True, kw_only=True)
class Case:
    """Describe a row before it is measured: what is timed, and what it cannot beat.

    `make`: called in the row's process with `options`, which are written as JSON. `cores`: how many it can keep busy.
    `on_gpu`: CPU time says nothing of it. `alone`: all its rounds are run, and its process ends, before the rows after
    it are started. `why`: what is known beforehand to keep it from being measured. `start_seconds`: how long it may
    take to stand. `step_seconds`: how long its longest step may take, beyond the seconds of a round.
    """

    name: str
    title: str
    make: Callable[..., Stage]
    group: Group = "row"
    options: Options = field(default_factory=dict)
    cores: int = 1
    unit: Unit = "images"
    bounds: Bounds = lambda rows, clock: {}
    on_gpu: bool = False
    alone: bool = False
    why: str = ""
    start_seconds: float = 120.0
    step_seconds: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)


class Timing(NamedTuple):
    """Settle how long is measured: `rounds` rounds in which each row runs for about `seconds`.

    `budget_seconds`: once half of it is spent no more rows are started, beyond two; once all of it is, no more rounds
    begin, beyond three. `journal`: a file that each round is appended to as a line of JSON when it ends, as on a
    machine lent for minutes nothing else may be left of a run.
    """

    rounds: int
    seconds: float
    budget_seconds: float = math.inf
    journal: Path | None = None


class Measured(NamedTuple):
    """What was measured, what was not, and whether all rounds were run: False after Ctrl-C."""

    rows: tuple[Row, ...]
    missing: tuple[Missing, ...]
    complete: bool


def measure_report(
    command: Command, cases: Sequence[Case], timing: Timing, say: Say,
    *, device: str, threads: int, data: Data | None = None,
) -> Report:  # fmt: skip
    """Look at the machine, measure rows, and return them as a command's report, without a verdict."""
    conditions = conditions_before(device, threads, timing.rounds, timing.seconds, data)
    rows, missing, complete = measure_rows(cases, timing, say)
    return Report(command=command, complete=complete, conditions=conditions, rows=rows, missing=missing)


def measure_rows(cases: Sequence[Case], timing: Timing, say: Say) -> Measured:
    """Measure rows in interleaved rounds."""
    started: list[_Running] = []
    try:
        _measure([case for case in cases if not case.why], started, timing, say)
        complete, why = True, "the time was up"
    except KeyboardInterrupt:
        complete, why = False, "the run was interrupted before it"
    finally:
        for one in started:
            one.close()
    rows = {one.case.name: one.row() for one in started if one.rounds}
    whys = {case.name: case.why or why for case in cases if case.name not in rows}
    whys |= {one.case.name: one.ready.why for one in started if one.ready.why}
    missing = (Missing(name=case.name, title=case.title, why=whys[case.name]) for case in cases if case.name in whys)
    return Measured(with_shares(cases, rows), tuple(missing), complete)


def with_shares(cases: Sequence[Case], rows: Mapping[str, Row]) -> tuple[Row, ...]:
    """Return the rows of cases with their shares of what they cannot beat."""
    found = []
    for case in cases:
        if row := rows.get(case.name):
            shares: dict[str, dict[Clock, float]] = {}
            clocks: tuple[Clock, ...] = ("wall", "cpu") if row.cpu else ("wall",)
            for clock in clocks:
                for name, bound in case.bounds(rows, clock).items():
                    shares.setdefault(name, {})[clock] = row.rate(clock) / bound
            found.append(replace(row, shares=shares))
    return tuple(found)


def row_of(case: Case, ready: Answer, rounds: Sequence[Round]) -> Row:
    """Return what was measured of a case."""
    return Row(
        name=case.name,
        title=case.title,
        group=case.group,
        unit=case.unit,
        cores=case.cores,
        options={k: without_home(v) if isinstance(v, str) else v for k, v in case.options.items()},
        settings=ready.settings,
        versions=ready.versions,
        before_bytes=ready.before_bytes,
        wall=spread(rates_of(rounds)),
        cpu=None if case.on_gpu else spread(rates_of(rounds, case.cores)),
        figures=medians([r.figures for r in rounds]),
        shares={},
        rounds=tuple(rounds),
    )


def _measure(cases: Sequence[Case], started: list["_Running"], timing: Timing, say: Say) -> None:
    begin = time.monotonic()
    for case in cases:
        if len(started) >= _LEAST_ROWS and time.monotonic() - begin > timing.budget_seconds / 2:
            break
        say(f"starting: {case.title}")
        started.append(one := _Running(case, timing))
        one.start()
        for _ in range(timing.rounds if case.alone else 0):
            one.round()
        if case.alone:
            one.close()
    for number in range(timing.rounds):
        if number >= _LEAST_ROUNDS and time.monotonic() - begin > timing.budget_seconds:
            break
        # Every other round backwards, so that no row always follows the same one.
        for one in started if number % 2 == 0 else started[::-1]:
            if not one.case.alone:
                say(f"round {number + 1} of {timing.rounds}: {one.case.title}")
                one.round()


class _Running:
    """The process of one row, and what it has said; once `ready` says why, nothing more."""

    def __init__(self, case: Case, timing: Timing) -> None:
        self.case, self._seconds, self._journal, self.ready = case, timing.seconds, timing.journal, Answer()
        self.rounds: list[Round] = []
        self._closed = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `close`)
        # A process that is killed leaves what it wrote, and FFCV's files have 2 GB: they lie here, and go with it.
        self._scratch = tempfile.TemporaryDirectory(prefix="alexnet-bench-", ignore_cleanup_errors=True)
        make = f"{case.make.__module__}:{case.make.__qualname__}"
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _START, make, json.dumps(case.options)],  # ASCII: a path may be no UTF-8
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | case.environment | {"TMPDIR": self._scratch.name},
            start_new_session=True,  # Ctrl-C is for the command; its children go with this one
        )

    def start(self) -> None:
        """Wait until the stage is made and warm."""
        self.ready = self._ask(
            self._seconds * _WARM_SECONDS, self.case.start_seconds + _WARM_STEPS * self.case.step_seconds
        )
        if self.ready.why:
            self._keep(self.ready)

    def round(self) -> None:
        """Run a round, unless the row has failed."""
        if not self.ready.why:
            answer = self._ask(self._seconds, _ROUND_LIMIT_SECONDS + self.case.step_seconds)
            self.rounds += [answer.round] if answer.round else []
            self.ready = replace(self.ready, why=answer.why)
            self._keep(answer)

    def row(self) -> Row:
        """Return what was measured; one round at least."""
        return row_of(self.case, self.ready, self.rounds)

    def close(self) -> None:
        """Kill the process and its children, and delete what they wrote; who measures has nothing to save."""
        if self._closed:  # its number may be another process's by now
            return
        self._closed = True
        self._kill()
        with contextlib.suppress(OSError), self._popen:  # closes its pipes; what was not read is no longer wanted
            pass
        self._errors.close()
        self._scratch.cleanup()

    def _ask(self, seconds: float, limit_seconds: float) -> Answer:
        """Have it run for so long and return what it says; where that is nothing, why."""
        asks, says = self._popen.stdin, self._popen.stdout
        assert asks is not None
        assert says is not None
        with contextlib.suppress(OSError):  # it is gone
            asks.write(f"{seconds}\n".encode())
            asks.flush()
        limit_seconds += 10 * self._seconds
        if not select.select([says], [], [], limit_seconds)[0]:
            self._kill()
            return Answer(why=f"did not answer within {limit_seconds:,.0f} seconds and was stopped")
        line = says.readline()
        return msgspec.json.decode(line, type=Answer) if line.endswith(b"\n") else Answer(why=self._how_it_ended())

    def _keep(self, answer: Answer) -> None:
        if self._journal is not None:
            line = {"row": self.case.name, "title": self.case.title, "unit": self.case.unit, **asdict(answer)}
            with self._journal.open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")

    def _kill(self) -> None:
        """End the process and its children; first those that heed SIGTERM, so that shared memory is given back.

        Python's own tracker of it does not, and has unlinked what is left a moment after the others are gone.
        """
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGTERM)
            deadline = time.monotonic() + _TERM_SECONDS
            while time.monotonic() < deadline:
                self._popen.poll()  # a process that is not waited for stays in the group
                os.killpg(self._popen.pid, 0)
                time.sleep(0.01)
            os.killpg(self._popen.pid, signal.SIGKILL)

    def _how_it_ended(self) -> str:
        code = self._popen.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"
        self._errors.seek(0)
        said = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return f"{how}; its last words: {said[-1][:200]}" if said else how
