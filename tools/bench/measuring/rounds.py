"""Measure rows in turn: start each row's process, run it round by round among the others, and outlive those that fail.

A machine whose speed drifts, or whose other users come and go, then treats all rows alike. A process that does not
answer in time is killed, with its children; its row says so, and the rest goes on.
"""

import contextlib
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from alexnet.tools.bench.measuring.row import Row
from alexnet.tools.bench.measuring.stages_seam import AnySettings, NetStageSettings

_WARM_SECONDS = 0.25  # a warm round, of the seconds of a round
_LEAST_ROWS, _LEAST_ROUNDS = 2, 3  # whatever the budget
_ROUND_LIMIT_SECONDS = 30.0  # beyond ten times what a round should take
_IMAGE_LIMIT_SECONDS = 0.3  # of a training step, beyond that: the naive network takes 0.06 on two cores
_WARM_STEPS = 8
_START_LIMIT_SECONDS, _PEER_START_LIMIT_SECONDS = 120.0, 300.0  # beyond that, too: FFCV writes its file first


@dataclass(kw_only=True)
class Measured:
    """Hold what became of a row: its rounds, or why there are none. `ready`: what its process said when it stood."""

    row: Row
    rounds: list[dict[str, Any]] = field(default_factory=list)
    ready: dict[str, Any] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Settle how long is measured: `rounds` rounds in which each row runs for about `seconds`.

    `budget_seconds`: once half of it is spent no more rows are started, beyond two; once all of it is, no more rounds
    begin, beyond three.
    """

    rounds: int
    seconds: float
    budget_seconds: float = math.inf


def measure_rows(
    rows: list[Row], settings: AnySettings, timing: Timing, say: Callable[[str], None]
) -> tuple[list[Measured], bool]:
    """Measure rows in interleaved rounds; return them, and whether all rounds were run: False after Ctrl-C."""
    measured = [Measured(row=row) for row in rows]
    processes: list[tuple[Measured, _Process]] = []
    begin = time.monotonic()
    try:
        for one in measured:
            if len(processes) >= _LEAST_ROWS and time.monotonic() - begin > timing.budget_seconds / 2:
                one.why = "the time was up"
                continue
            say(f"starting: {one.row.title}")
            processes.append((one, _Process(one.row, settings)))
            _build(*processes[-1], timing)
            for _ in range(timing.rounds if one.row.alone else 0):
                _run_round(*processes[-1], timing)
        for number in range(timing.rounds):
            if number >= _LEAST_ROUNDS and time.monotonic() - begin > timing.budget_seconds:
                break
            # Every other round backwards, so that no row always follows the same one.
            for one, process in processes if number % 2 == 0 else processes[::-1]:
                if not one.why and not one.row.alone:
                    say(f"round {number + 1} of {timing.rounds}: {one.row.title}")
                    _run_round(one, process, timing)
    except KeyboardInterrupt:
        return measured, False
    finally:
        for _, process in processes:
            process.close()
    return measured, True


def command_of(row: Row, settings: AnySettings) -> list[str]:
    """Return the command that starts a row's process."""
    specification = {"kind": row.kind, "options": row.options, "made_by": settings.made_by, **asdict(settings)}
    return [sys.executable, "-m", "alexnet.tools.bench.measuring.row_process", json.dumps(specification, default=str)]


def environment_of(row: Row, settings: AnySettings) -> dict[str, str]:
    """Return the environment of a row's process.

    A row that trains has its trainer in a thread, which would have a heap of its own in glibc, and that gives freed
    memory back whatever it is told: 37,000 page faults in a step of 32 images, of which the main thread has none.
    """
    trains = settings.made_by == NetStageSettings.made_by or row.kind == "beside"
    return os.environ | ({"MALLOC_ARENA_MAX": "1"} if trains else {})


def limit_of(row: Row, timing: Timing) -> float:
    """Return how many seconds a row's process may take to stand and be warm."""
    start = _PEER_START_LIMIT_SECONDS if row.group == "peer" else _START_LIMIT_SECONDS
    return 10 * timing.seconds + start + _WARM_STEPS * _step_limit(row)


def _step_limit(row: Row) -> float:
    """Return how long a training step may take on a slow machine; 0 for rows that train nothing."""
    return _IMAGE_LIMIT_SECONDS * int(row.options.get("batch_images", 0))


def _build(one: Measured, process: "_Process", timing: Timing) -> None:
    answer = process.ask({"do": "build", "seconds": timing.seconds * _WARM_SECONDS}, limit_of(one.row, timing))
    one.why, one.ready = answer.get("why", ""), answer


def _run_round(one: Measured, process: "_Process", timing: Timing) -> None:
    if one.why:
        return
    limit = 10 * timing.seconds + _ROUND_LIMIT_SECONDS + _step_limit(one.row)
    answer = process.ask({"do": "round", "seconds": timing.seconds}, limit)
    one.why = answer.get("why", "")
    if not one.why:
        one.rounds.append(answer)


class _Process:
    """Speak with the process of one row."""

    def __init__(self, row: Row, settings: AnySettings) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `close`)
        # A process that is killed leaves what it wrote, and FFCV's files have 2 GB: they lie here, and go with it.
        self._scratch = tempfile.TemporaryDirectory(prefix="alexnet-bench-", ignore_cleanup_errors=True)
        self._popen = subprocess.Popen(
            command_of(row, settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment_of(row, settings) | {"TMPDIR": self._scratch.name},
            start_new_session=True,  # Ctrl-C is for the command; its children go with this one
        )

    def ask(self, command: dict[str, Any], limit_seconds: float) -> dict[str, Any]:
        """Send a command and return the answer; one with `why` if there is none."""
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(json.dumps(command).encode() + b"\n")
            self._popen.stdin.flush()
        except OSError:  # it is gone
            return {"why": self._how_it_ended()}
        line = self._line(limit_seconds)
        if line is None:
            return {"why": f"did not answer within {limit_seconds:,.0f} seconds and was stopped"}
        if not line.endswith(b"\n"):
            return {"why": self._how_it_ended()}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Kill the process and its children, and delete what they wrote; who measures has nothing to save."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()
        self._errors.close()
        self._scratch.cleanup()

    def _line(self, limit_seconds: float) -> bytes | None:
        """Read a line; None if it does not come in time. What comes when the process ends has no end of line."""
        assert self._popen.stdout is not None
        descriptor, deadline, line = self._popen.stdout.fileno(), time.monotonic() + limit_seconds, b""
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(self._popen.pid, signal.SIGKILL)
                    return None
                part = os.read(descriptor, 1 << 16)
                if not part:
                    return line
                line += part
        return line

    def _how_it_ended(self) -> str:
        code = self._popen.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"
        self._errors.seek(0)
        said = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        return f"{how}; its last words: {said[-1][:200]}" if said else how
