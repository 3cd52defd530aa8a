"""The harness itself: it counts what changes files and nothing else, and strikes where it is told."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.harness import Crasher, How, build_library

CHANGES = """
import os, shutil, sys
root = sys.argv[1]
os.mkdir(root + "/a")
with open(root + "/a/file.partial", "wb") as file:
    file.write(b"0123456789")
os.rename(root + "/a/file.partial", root + "/a/file")
open(root + "/a/file").close()
os.listdir(root + "/a")
open(root + "-beside", "w").close()
os.symlink("file", root + "/a/link")
shutil.rmtree(root + "/a")
os.rmdir(root)
"""
COUNTED = ("mkdir", "open64", "write", "rename", "symlink", "unlinkat", "unlinkat", "rmdir", "rmdir")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("crash"))


def test_calls_that_change_files_below_a_folder_are_counted_and_struck(library: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    command, crasher = [sys.executable, "-c", CHANGES, str(root)], Crasher(library, (root,))
    root.mkdir()
    calls = crasher.calls(command)
    assert tuple(call.split()[0] for call in calls) == COUNTED
    assert calls[3] == f"rename {root}/a/file"
    cases: tuple[tuple[int, How, list[str]], ...] = (
        (1, "before", []),
        (1, "after", ["a"]),
        (3, "before", ["a", "file.partial"]),
        (4, "after", ["a", "file"]),
    )
    for at, how, left in cases:
        root.mkdir()
        strike = crasher.strike(command, at, how)
        assert (strike.run.returncode, strike.struck, len(strike.calls)) == (-9, True, at)
        assert [path.name for path in sorted(root.rglob("*"))] == left
        if left[1:] == ["file.partial"]:
            assert (root / "a" / "file.partial").read_bytes() == b"01234", "a write is torn"
        subprocess.run(["rm", "-r", root], check=True)
    root.mkdir()
    strike = crasher.strike(command, 5, "full")
    assert strike.run.returncode == 1
    assert "No space left on device" in strike.run.stderr
    assert (root / "a" / "file").read_bytes() == b"0123456789"
