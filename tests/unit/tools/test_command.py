"""What every command shares: names of any bytes in what it prints, and how it ends."""

import io
import os
import sys
from collections.abc import Callable

import click
import pytest

from alexnet.tools.console import Program, tell

NAME = os.fsdecode(b"m\xfcnchen\n\x1b[31m \xe4\xb8\xad.jpg")  # latin-1's ue, a new line, a terminal's escape, and UTF-8


def printed(print_it: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what a function prints on a standard output as strict as Python makes it in a UTF-8 locale."""
    out = io.BytesIO()
    stream = io.TextIOWrapper(out, encoding="utf-8", errors="strict", write_through=True)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stream)
        print_it()
    stream.flush()
    return out.getvalue().decode()


def test_a_name_of_any_bytes_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    line = printed(lambda: tell(f"{NAME}: 3 images"), monkeypatch)
    assert line == "m\\udcfcnchen\\n\\x1b[31m 中.jpg: 3 images\n"


def test_what_a_command_prints_as_it_is_cannot_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    command = Program("see", callback=lambda: click.echo("m\udcfcnchen"))
    assert printed(lambda: command.main([], standalone_mode=False), monkeypatch) == "m\\udcfcnchen\n"
