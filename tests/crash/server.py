"""Run a program again and again in forks of one process that has imported it: a strike costs no more than its work.

The program must start no threads before it is called. As a script: reads requests from standard input, one a line.
"""

import ctypes
import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parent.parent.parent


class Forks:
    """Call a program, `module:function` of a list of arguments, in a process of its own each time."""

    def __init__(self, library: Path, program: str) -> None:
        self._output = library.with_name("output"), library.with_name("errors")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.server", program],
            cwd=ROOT,
            env={**os.environ, "LD_PRELOAD": str(library), "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, command: Sequence[str], told: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Call the program with these arguments and variables of the environment; it is gone afterwards."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"arguments": list(command), "environment": dict(told), "output": [str(p) for p in self._output]}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        output, errors = (path.read_text(errors="replace") for path in self._output)
        return subprocess.CompletedProcess(list(command), code, output, errors)


def serve(program: Callable[[list[str]], object]) -> None:
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
    module, _, function = sys.argv[1].partition(":")
    serve(getattr(importlib.import_module(module), function))
