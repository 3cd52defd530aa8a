"""What every command shares: output that cannot be written, names of any bytes, signals that ask to stop.

The work is done, one line says what is lost or that it was interrupted, and there is no traceback.
"""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from alexnet.shards.manifest import read_manifest
from alexnet.tools.console import Program, interruptible, tell
from alexnet.tools.run.ending import STOPPING, StopSignal, say_stopping, stop_at_once
from tests.conftest import encode_picture

# In pieces larger than a pipe's or a file's buffer, flushed and not; exit code 3 only says that it came to its end.
WORK = """
import sys
from alexnet.tools.console import Program, tell
def work():
    print("x" * 9000)
    tell("a line")
    open(sys.argv[1], "w").write("done")
    print("unflushed", end="")
    sys.exit(int(sys.argv[2]))
Program("work", callback=work).main([])
"""
FULL = "standard output: No space left on device; what else was to be printed there is lost\n"
CLOSED = "standard output is closed; what was to be printed there is lost\n"
PREP = ("-m", "alexnet.tools.prep")
NAME = os.fsdecode(b"m\xfcnchen\n\x1b[31m \xe4\xb8\xad.jpg")  # latin-1's ue, a new line, a terminal's escape, and UTF-8
ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(arguments: tuple[object, ...], redirected: str) -> tuple[int, str]:
    """Run Python as a shell would with its output redirected; return exit code and standard error."""
    command = ["sh", "-c", f'exec "$0" "$@" {redirected}', sys.executable, *map(str, arguments)]
    ended = subprocess.run(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize(
    ("ends", "redirected", "code", "said"),
    [
        (0, ">/dev/full", 1, FULL),
        (0, ">&-", 0, CLOSED),
        (0, ">/dev/full 2>&1", 1, ""),
        (0, ">&- 2>&-", 0, ""),
        (0, ">/dev/null", 0, ""),
        (3, ">/dev/full", 3, FULL),  # an exit code that says more stays
    ],
)
def test_the_work_is_done_and_one_line_says_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffered: str, ends: int, redirected: str, code: int, said: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", buffered)
    assert run(("-c", WORK, tmp_path / "file", ends), redirected) == (code, said)
    assert (tmp_path / "file").read_text() == "done", "nothing that was printed went into a file of the command's"


def test_processes_started_from_one_without_output_have_some_to_print_to() -> None:
    """Else the first file that they open would take what their libraries print."""
    child = "import os, sys; os.write(1, b'printed'); sys.exit(os.fstat(1).st_rdev != os.stat(os.devnull).st_rdev)"
    start = "import subprocess; sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]]))"
    code = f"import sys; from alexnet.tools.console import guard_output; guard_output(); {start}"
    assert run(("-c", code, child), ">&-") == (0, CLOSED)


def test_a_reader_that_leaves_is_told_nothing(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", WORK, str(tmp_path / "file"), "0"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")
    assert not (tmp_path / "file").exists(), "nobody waits for the rest"


def test_a_pipe_that_will_not_wait_is_waited_for(tmp_path: Path) -> None:
    """A terminal or pipe that another program has set so, as node does."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = os.write(writer, b"y" * 1_000_000)
    command = [sys.executable, "-c", WORK, str(tmp_path / "file"), "0"]
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True) as process:
        os.close(writer)
        with os.fdopen(reader, "rb") as opened:
            printed = opened.read()
        assert process.wait() == 0
    assert printed == b"y" * filled + b"x" * 9000 + b"\na line\nunflushed"


@pytest.mark.parametrize("json", [(), ("--json",)])
def test_a_converter_whose_log_is_full_converts(tmp_path: Path, json: tuple[str, ...]) -> None:
    for k in range(4):
        (tmp_path / "src" / f"class{k % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / f"class{k % 2}" / f"{k}.jpg").write_bytes(encode_picture(k))
    arguments = (*PREP, "shard", tmp_path / "src", "--out", tmp_path / "set", "--size", 32, "--workers", 1, *json)
    assert run(arguments, ">/dev/full") == (1, FULL)
    assert read_manifest(tmp_path / "set").counts["train"].written == 4
    if not json:
        for helps in (("--help",), ("--version",), ("shard", "--help")):
            assert run((*PREP, *helps), ">/dev/full") == (1, FULL)


def test_a_name_of_any_bytes_is_one_line_and_what_is_printed_as_it_is_ends_no_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a standard output as strict as Python makes it in a UTF-8 locale."""
    out = io.BytesIO()
    stream = io.TextIOWrapper(out, encoding="utf-8", errors="strict", write_through=True)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stream)
        tell(f"{NAME}: 3 images")
        Program("see", callback=lambda: click.echo("m\udcfcnchen")).main([], standalone_mode=False)
    assert out.getvalue().decode() == "m\\udcfcnchen\\n\\x1b[31m 中.jpg: 3 images\nm\\udcfcnchen\n"


@pytest.mark.parametrize("number", ASKING)
def test_a_signal_ends_a_command_with_its_line_and_130(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, interruptible("interrupted; the same command continues"):
        signal.raise_signal(number)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted; the same command continues\n"
    for again in ASKING:
        signal.raise_signal(again)


@pytest.mark.parametrize("number", [*ASKING, signal.SIGPIPE])
def test_training_is_asked_to_stop(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    """In silence where the reader of its output has left."""
    stop = StopSignal(say_stopping, stop_at_once)
    with stop.listening():
        assert not stop()
        signal.raise_signal(number)
    assert stop()
    assert capsys.readouterr().err == ("" if number == signal.SIGPIPE else STOPPING + "\n")


def test_a_terminal_that_closes_says_so_twice_and_does_not_stop_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with StopSignal(say_stopping, stop_at_once).listening():
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert capsys.readouterr().err.count(STOPPING) == 1


def test_under_nohup_a_terminal_may_close() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopSignal(say_stopping, stop_at_once)
    with stop.listening():
        signal.raise_signal(signal.SIGHUP)
    assert not stop()
    with interruptible("interrupted"):
        signal.raise_signal(signal.SIGHUP)
