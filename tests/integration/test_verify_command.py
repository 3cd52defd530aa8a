"""`alexnet-prep verify` as a user types it: what it prints, its events, its exit code."""

import importlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from alexnet.shards.writer import write_checksums
from tests.conftest import prep

verify_command = importlib.import_module("alexnet.tools.verify")  # the module: a command has its name


@pytest.fixture
def copy(data_set: Path, tmp_path: Path) -> Path:
    root = Path(shutil.copytree(data_set, tmp_path / "set"))
    write_checksums(root)
    return root


def events(*arguments: object) -> list[dict[str, Any]]:
    result = prep("verify", "--json", *arguments, code=1)
    assert result.stderr == ""
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize(("deep", "looked"), [((), "pixels not looked at (--deep does)"), (["--deep"], "31 images")])
def test_all_is_well_and_nothing_is_written(copy: Path, deep: list[str], looked: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    (line,) = prep("verify", copy, *deep).stdout.splitlines()
    assert line.startswith(f"{copy}: 24 train and 7 val images in 4 shards; ")
    assert looked in line
    assert line.endswith(": all is well")
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def test_one_line_a_finding_and_exit_code_1(copy: Path) -> None:
    (copy / "train" / "000001.tar").unlink()
    (copy / "strange\nname").write_text("")
    *findings, summary = prep("verify", copy, "--workers", 2, code=1).stdout.splitlines()
    assert "train/000001.tar: is missing" in findings
    assert "strange\\nname: is no file of this data set" in findings
    assert summary.endswith(f"{len(findings)} findings")


def test_without_a_manifest_it_does_not_count_what_it_did_not_look_into(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    finding, last = prep("verify", copy, code=1).stdout.splitlines()
    assert finding == "manifest.json: is missing"
    assert last.startswith(f"{copy}: shards not looked into; ")


def test_events_do_not_depend_on_the_workers(copy: Path) -> None:
    for file in ("train/000000.tar", "train/000002.tar", "val/000000.idx"):
        data = (copy / file).read_bytes()
        (copy / file).write_bytes(data[: len(data) // 2])
    rows = copy / "index.npy"
    rows.write_bytes(rows.read_bytes()[:-1] + b"\1")
    total = sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())
    told = []
    for workers in (1, 2, 3):
        found = events(copy, "--deep", "--workers", workers)
        kinds = [event["event"] for event in found]
        assert kinds == sorted(kinds, key=["progress", "finding", "complete"].index)
        progress = [event for event in found if event["event"] == "progress"]
        assert {(event["total"], event["unit"]) for event in progress} == {(total, "bytes")}
        assert [event["done"] for event in progress] == sorted(event["done"] for event in progress)
        assert progress[-1]["done"] == total, "every byte is counted once, decoded or not"
        assert found[-1].pop("seconds") >= 0
        told.append([event for event in found if event["event"] != "progress"])
    assert told[0] == told[1] == told[2]
    *findings, complete = told[0]
    assert {event["file"] for event in findings} >= {"train/000000.tar", "train/000002.tar", "index.npy"}
    assert any(event["sample"] for event in findings)
    assert (complete["data_set"], complete["deep"], complete["passed"]) == ("set", True, False)
    assert (complete["findings"], complete["files"], complete["shards"]) == (len(findings), 14, 4)
    assert set(complete) >= {"images", "decoded", "bytes"}


@pytest.mark.parametrize(
    ("raised", "exit_code", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted; nothing was changed"),
        (PermissionError(13, "Permission denied", "x"), 2, "Error: x: Permission denied; all of {} must be readable"),
    ],
)
def test_what_ends_it_is_told_apart_from_findings(
    copy: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException, exit_code: int, line: str
) -> None:
    def end(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(verify_command, "verify_data_set", end)
    result = prep("verify", copy, code=exit_code)
    assert (result.stdout, result.stderr) == ("", line.format(copy) + "\n")


def test_progress_goes_to_standard_error_in_plain_lines(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.tools.progress.PLAIN_SECONDS", 0.0)
    result = prep("verify", copy, "--deep")
    assert re.search(r"^\d+ of \d+ MB \(\d+%\)", result.stderr, re.MULTILINE)
    assert " MB (100%), " in result.stderr.splitlines()[-1]
    assert len(result.stdout.splitlines()) == 1
