"""The process of one row: make its stage, then run it for a while whenever told to.

Each row has a process of its own, so that rows share neither threads nor memory, a peer that crashes takes nothing
along, and peak memory is a row's own. Commands come as lines of JSON on standard input, answers go out the same way on
what was standard output; whatever libraries print goes to standard error.

It is started as `python -m alexnet.tools.bench.measuring.row_process SPECIFICATION`.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from alexnet.shards.errors import InputError
from alexnet.tools.bench.measuring.clock import descendants, foreign_load, read_clocks, wait_until_quiet
from alexnet.tools.bench.measuring.process_memory import peak_bytes
from alexnet.tools.bench.measuring.stages_seam import (
    AnySettings,
    CannotRunError,
    NetStageSettings,
    Stage,
    StageSettings,
    Work,
)

_WARM_ROUNDS = 5
_STABLE = 0.05  # two rounds in turn that differ by less
_QUIET_LIMIT_SECONDS = 1.0
_LONGEST = 3.0  # times the seconds asked for


@dataclass(frozen=True, kw_only=True)
class Round:
    """Hold what one round gave. `foreign_load`: share of all cores that others kept busy. `more`: told by the stage."""

    images: int
    amount: int
    seconds: float
    cpu_seconds: float
    foreign_load: float
    more: dict[str, Any]


class Runner:
    """Run a stage in rounds, taking up the pass where the round before left it, unless the stage wants a new one."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._pass: Work | None = None

    def round(self, seconds: float) -> Round:
        """Run for about so long and for some batches at least; then wait until what runs ahead has come to rest."""
        if self._stage.starts_over:
            self._pass = None
        self._skip_ready()
        images = amount = batches = 0
        least = self._stage.least_batches
        wall = cpu = busy = 0.0
        deadline = time.perf_counter() + _LONGEST * seconds
        while not batches or ((wall < seconds or batches < least) and time.perf_counter() < deadline):
            work = self._running()
            begin = read_clocks()
            until = begin.wall_seconds + seconds - wall
            for n, size in work:
                images, amount, batches = images + n, amount + size, batches + 1
                now = time.perf_counter()
                if now >= deadline or (now >= until and batches >= least):
                    break
            else:
                self._pass = None
            end = read_clocks()
            wall += end.wall_seconds - begin.wall_seconds
            cpu += end.cpu_seconds - begin.cpu_seconds
            busy += foreign_load(begin, end) * (end.wall_seconds - begin.wall_seconds)
        self._stage.after_round()
        more = self._stage.more()
        wait_until_quiet(_QUIET_LIMIT_SECONDS)
        return Round(images=images, amount=amount, seconds=wall, cpu_seconds=cpu, foreign_load=busy / wall, more=more)

    def warm_up(self, seconds: float) -> None:
        """Run until two rounds in turn need the same CPU time for the same work, within 5%, or for five rounds."""
        before = 0.0
        for _ in range(_WARM_ROUNDS):
            done = self.round(seconds)
            speed = done.amount / max(done.cpu_seconds, 1e-6)
            if abs(speed - before) < _STABLE * before:
                return
            before = speed

    def _running(self) -> Work:
        if self._pass is None:
            self._stage.before_pass()
            self._pass = self._stage.work()
        return self._pass

    def _skip_ready(self) -> None:
        for _ in range(self._stage.ready_batches):
            next(self._running(), None)


def answers(commands: Iterator[str], specification: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Obey commands: `build`, then `round` as often as wanted, then `end`."""
    runner: Runner | None = None
    for line in commands:
        command = json.loads(line)
        if command["do"] == "build":
            maker = import_module(f"alexnet.tools.bench.{specification['made_by']}")
            stage = maker.make_stage(specification["kind"], specification["options"], _settings(specification))
            before = _memory()
            runner = Runner(stage)
            runner.warm_up(command["seconds"])
            yield {"settings": stage.settings, "versions": stage.versions, "before_bytes": before}
        elif command["do"] == "round" and runner:
            yield vars(runner.round(command["seconds"])) | {"peak_bytes": _memory()}
        else:
            return


def main() -> None:
    """Read the specification, then answer until there is nothing more to answer."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        for answer in answers(iter(sys.stdin.readline, ""), json.loads(sys.argv[1])):
            out.write(json.dumps(answer) + "\n")
    except (CannotRunError, InputError) as error:
        out.write(json.dumps({"why": str(error)}) + "\n")
    except Exception as error:
        out.write(json.dumps({"why": _in_one_line(error)}) + "\n")
    out.flush()
    os._exit(0)  # whatever threads and worker processes a peer leaves behind must not keep this alive


def _settings(specification: dict[str, Any]) -> AnySettings:
    if specification["made_by"] == NetStageSettings.made_by:
        data = specification["data"]
        return NetStageSettings(
            device=specification["device"], threads=specification["threads"], data=Path(data) if data else None
        )
    return StageSettings(
        data=Path(specification["data"]),
        split="train" if specification["split"] == "train" else "val",
        batch_images=specification["batch_images"],
        threads=specification["threads"],
    )


def _memory() -> int:
    return sum(peak_bytes(pid) for pid in (os.getpid(), *descendants(os.getpid())))


def _in_one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'gives no reason'}"


if __name__ == "__main__":
    main()
