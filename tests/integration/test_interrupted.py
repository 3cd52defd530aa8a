"""Ctrl-C at any moment, from a command's first line to its end: one line at most, and never a traceback or an abort."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMANDS = {
    "prep": ("verify", "DATA"),
    "train": ("DATA", "--recipe", "small", "--device", "cpu", "--steps", "2", "--overwrite", "--out", "OUT"),
    "bench": ("model", "--arch", "lenet-5", "--rounds", "1", "--seconds", "0.1", "--json", "OUT"),
    "model": ("show", "alexnet-2012", "--gpus", "2"),
}
BEGIN = """
import os
from alexnet.tools import start
start.end_when_interrupted()  # first of all, as the installed command does
os.write(1, b".")
start.{}()
"""
END_SECONDS = 300


def interrupted(name: str, arguments: list[str], after: float | None) -> tuple[int, str, float]:
    """Interrupt a command so many seconds after it began, if at all; return code, standard error and its seconds."""
    command = [sys.executable, "-c", BEGIN.format(name), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=-1, stderr=-1, env=environment, start_new_session=True)
    assert process.stdout is not None
    assert os.read(process.stdout.fileno(), 1) == b"."
    begun = time.monotonic()
    if after is not None:
        time.sleep(after)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does; nobody has waited for it, so it is still there
    said = process.communicate(timeout=END_SECONDS)[1].decode()
    return process.returncode, said, time.monotonic() - begun


@pytest.mark.parametrize("trials", [1, pytest.param(48, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_at_any_moment_ends_a_command_in_a_line(name: str, trials: int, ci_100: Path, tmp_path: Path) -> None:
    places = {"DATA": str(ci_100), "OUT": str(tmp_path / "out")}
    arguments = [places.get(argument, argument) for argument in COMMANDS[name]]
    seconds = 1.0  # of importing
    if trials > 1:
        code, said, seconds = interrupted(name, arguments, None)
        assert code == 0, said
    moments = random.Random(name)
    for _ in range(trials):
        after = seconds * moments.random()
        code, said, _ = interrupted(name, arguments, after)
        assert code in (0, 1, 130), (after, code, said)
        assert len(said.splitlines()) <= 1, (after, said)
        assert "Traceback" not in said
