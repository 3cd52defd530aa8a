"""Strike a command at its n-th call that changes files: kill it before or after, or have the disk be full from there.

Such a call is a rename, unlink, mkdir, rmdir, link, truncation, write, or opening for writing, as `crash.c` says.
"""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.crash.server import Forks

How = Literal["before", "after", "full", "once"]
"""Kill before (of a write: in its middle) or after a call; fail with ENOSPC from it on, or it alone."""

_STATE_BYTES = 4096


@dataclass(frozen=True)
class Strike:
    """Hold what became of a command: as `subprocess.run` gives it, the calls that it came to, and if it was struck."""

    run: subprocess.CompletedProcess[str]
    calls: tuple[str, ...]
    struck: bool

    def __str__(self) -> str:
        last = self.calls[-1] if self.calls else "no call"
        return f"at {last!r} (number {len(self.calls)}): exit code {self.run.returncode}\n{self.run.stderr}"


@dataclass(frozen=True)
class Crasher:
    """Run commands with `library` loaded into them; of their calls those below the folders `below` count.

    `children`: count the calls of all processes that the command starts, too. `forks`: call a program there with what
    is then its arguments alone, rather than start a command.
    """

    library: Path
    below: tuple[Path, ...]
    children: bool = True
    forks: Forks | None = None

    def calls(self, command: Sequence[str]) -> tuple[str, ...]:
        """Run a command undisturbed; return its calls, each as a function's name and a path."""
        strike = self.strike(command, 0, "before")
        assert strike.run.returncode == 0, strike
        return strike.calls

    def strike(self, command: Sequence[str], at: int, how: How, timeout: float = 300) -> Strike:
        """Run a command that is struck at its call number `at`, counted from 1; all its processes are gone afterwards.

        It is not struck, and runs to its end, where it makes fewer calls.
        """
        state, log = (self.library.with_name(name) for name in ("crash.state", "crash.log"))
        state.write_bytes(bytes(_STATE_BYTES))
        log.write_bytes(b"")
        told = {
            "LD_PRELOAD": str(self.library),
            "CRASH_STATE": str(state),
            "CRASH_LOG": str(log),
            "CRASH_BELOW": ":".join(str(folder) for folder in self.below),
            "CRASH_AT": str(at),
            "CRASH_HOW": how,
            "CRASH_IN": "all" if self.children else "main",
        }
        run = self.forks.run(command, told) if self.forks else _run(command, told, timeout)
        struck = bool(int.from_bytes(state.read_bytes()[12:16], "little"))
        return Strike(run=run, calls=tuple(log.read_text(errors="replace").splitlines()), struck=struck)


def _run(command: Sequence[str], told: dict[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a command; return when no process of it holds its pipes any more."""
    return subprocess.run(
        command,
        env={**os.environ, **told},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        start_new_session=True,  # all of its group, and nobody else, is killed
    )


def build_library(folder: Path) -> Path:
    """Compile what is loaded into commands; return it."""
    library = folder / "crash.so"
    source = Path(__file__).with_name("crash.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library
