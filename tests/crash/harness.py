"""Strike a program at its n-th call that changes files: kill it before or after, or have the disk be full from there.

Such a call is a rename, unlink, mkdir, rmdir, link, truncation, write, or opening for writing, as `crash.c` says. The
program runs again and again in forks of one process that has imported it: a strike costs no more than its work. As a
script, this is that process: it reads requests from standard input, one a line. The program must start no threads
before it is called.
"""

import ctypes
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

How = Literal["before", "after", "full", "once"]
"""Kill before (of a write: in its middle) or after a call; fail with ENOSPC from it on, or it alone."""

_STATE_BYTES = 4096


@dataclass(frozen=True)
class Strike:
    """Hold what became of a command: its exit code, what it said, the calls that it came to, and if it was struck."""

    code: int
    output: str
    errors: str
    calls: tuple[str, ...]
    struck: bool

    def __str__(self) -> str:
        last = self.calls[-1] if self.calls else "no call"
        return f"at {last!r} (number {len(self.calls)}): exit code {self.code}\n{self.output}{self.errors}"


class Crasher:
    """Call a program of `tests.crash.programs` in a process of its own each time; its calls below a folder count."""

    def __init__(self, folder: Path, program: str, below: Path) -> None:
        self.below, self._folder = below, folder
        library, source = folder / "crash.so", Path(__file__).with_name("crash.c")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        self._environment = {
            "CRASH_STATE": str(folder / "state"),
            "CRASH_LOG": str(folder / "log"),
            "CRASH_BELOW": str(below),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.harness", program],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "LD_PRELOAD": str(library), "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def calls(self, arguments: Sequence[str]) -> tuple[str, ...]:
        """Call the program undisturbed; return its calls, each as a function's name and a path."""
        strike = self.strike(arguments)
        assert strike.code == 0, strike
        return strike.calls

    def strike(self, arguments: Sequence[str], at: int = 0, how: How = "before") -> Strike:
        """Call the program, struck at its call number `at`, counted from 1; it is gone afterwards.

        It is not struck, and runs to its end, where it makes fewer calls, or `at` is 0.
        """
        state, log, output, errors = (self._folder / name for name in ("state", "log", "output", "errors"))
        state.write_bytes(bytes(_STATE_BYTES))
        log.write_bytes(b"")
        environment = {**self._environment, "CRASH_AT": str(at), "CRASH_HOW": how}
        request = {"arguments": list(arguments), "environment": environment, "output": [str(output), str(errors)]}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Strike(
            code=int(self._process.stdout.readline()),
            output=output.read_text(errors="replace"),
            errors=errors.read_text(errors="replace"),
            calls=tuple(log.read_text(errors="replace").splitlines()),
            struck=bool(int.from_bytes(state.read_bytes()[8:12], "little")),
        )


def _serve(program: Callable[[list[str]], object]) -> None:
    """Answer each request with the exit code of a fork that called the program."""
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _be(program, request)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _be(program: Callable[[list[str]], object], request: dict[str, Any]) -> None:
    """Become the command, which ends this process."""
    code: object = 70
    try:
        os.setpgid(0, 0)  # all of a group is killed
        for number, path in zip((1, 2), request["output"], strict=True):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.environ.update(request["environment"])
        ctypes.CDLL(None).crash_begin()
        code = program(request["arguments"])
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    from tests.crash import programs

    _serve(getattr(programs, sys.argv[1])())
