"""`alexnet-prep verify` as a user types it: what it prints, its exit code, its receipt."""

import hashlib
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from alexnet import __version__
from alexnet.shards.writer import write_checksums
from alexnet.tools.verify import verify

verify_command = importlib.import_module("alexnet.tools.verify")  # the module: a command has its name

RECEIPT_FIELDS = {
    "schema",
    "alexnet",
    "data_set",
    "finished_utc",
    "deep",
    "passed",
    "findings",
    "files",
    "bytes",
    "shards",
    "images",
    "class_images",
    "decoded",
    "sha256",
    "colour",
    "seconds",
}


@pytest.fixture
def copy(data_set: Path, tmp_path: Path) -> Path:
    root = Path(shutil.copytree(data_set, tmp_path / "set"))
    write_checksums(root)
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(verify, [str(argument) for argument in arguments])


def test_all_is_well(copy: Path) -> None:
    result = run(copy)
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"{copy}: 24 train and 7 val images in 4 shards; ")
    assert line.endswith("pixels not looked at (--deep does): all is well")


def test_one_line_a_finding_and_exit_code_1(copy: Path) -> None:
    (copy / "train" / "000001.tar").unlink()
    (copy / "strange\nname").write_text("")
    result = run(copy, "--workers", 2)
    assert result.exit_code == 1
    *findings, summary = result.stdout.splitlines()
    assert "train/000001.tar: is missing" in findings
    assert "strange\\nname: is no file of this data set" in findings
    assert summary.endswith(f"{len(findings)} findings")


def test_deep_and_its_receipt(copy: Path, tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    result = run(copy, "--deep", "--receipt", file)
    assert result.exit_code == 0, result.output
    assert "31 images decoded: all is well" in result.stdout
    receipt = json.loads(file.read_text())
    assert set(receipt) == RECEIPT_FIELDS
    assert (receipt["schema"], receipt["alexnet"], receipt["data_set"]) == (1, __version__, "set")
    assert (receipt["deep"], receipt["passed"], receipt["findings"]) == (True, True, [])
    assert receipt["images"] == {"train": 24, "val": 7}
    assert receipt["decoded"] == 31
    for name in ("manifest.json", "SHA256SUMS"):
        assert receipt["sha256"][name] == hashlib.sha256((copy / name).read_bytes()).hexdigest()
    assert receipt["colour"]["mean_said"] == json.loads((copy / "manifest.json").read_text())["colour"]["mean"]
    assert not list(tmp_path.glob("*.partial"))


def test_the_receipt_alone_on_standard_output(copy: Path) -> None:
    rows = copy / "index.npy"
    rows.write_bytes(rows.read_bytes()[:-1] + b"\1")
    result = run(copy, "--receipt", "-")
    assert result.exit_code == 1
    receipt = json.loads(result.stdout)
    assert receipt["passed"] is False
    assert {finding["file"] for finding in receipt["findings"]} == {"index.npy"}
    assert any(finding["sample"] for finding in receipt["findings"])
    assert "index.npy" in result.stderr


def test_findings_do_not_depend_on_the_workers(copy: Path) -> None:
    for file in ("train/000000.tar", "train/000002.tar", "val/000000.idx"):
        data = (copy / file).read_bytes()
        (copy / file).write_bytes(data[: len(data) // 2])
    findings = [json.loads(run(copy, "--receipt", "-", "--workers", n).stdout)["findings"] for n in (1, 2, 3)]
    assert findings[0] == findings[1] == findings[2]
    assert len(findings[0]) >= 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere/at/all"], "there is no such folder"),
        (["{set}/train"], "this is one split; give the data set itself"),
        (["{tmp}"], "holds no manifest.json"),
        (["{set}", "--receipt", "{tmp}/no/such/folder.json"], "cannot be written"),
        (["{set}", "--receipt", "{tmp}"], "cannot be written"),
        (["{set}", "--receipt", "{set}/receipt.json"], "would be an extra file of the data set"),
        (["{set}", "--workers", "0"], "0 is not in the range"),
        ([], "Missing argument 'DIR'"),
    ],
)
def test_mistakes_end_in_one_line_and_exit_code_2(
    copy: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = run(*(argument.format(set=copy, tmp=tmp_path) for argument in arguments))
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in result.output


def test_what_may_not_be_read_is_told_apart(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(copy / "train"))

    monkeypatch.setattr(verify_command, "verify_data_set", denied)
    result = run(copy)
    assert result.exit_code == 2
    assert result.stderr == f"Error: {copy / 'train'}: Permission denied; all of {copy} must be readable\n"


def test_ctrl_c_is_told_apart_from_findings(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify_command, "verify_data_set", interrupted)
    result = run(copy)
    assert result.exit_code == 130
    assert (result.stdout, result.stderr) == ("", "interrupted; nothing was changed\n")


@pytest.mark.parametrize("arguments", [(), ("--deep",)])
def test_progress_goes_to_standard_error_in_plain_lines(
    copy: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr("alexnet.tools.progress.PLAIN_SECONDS", 0.0)
    result = run(copy, *arguments)
    assert re.search(r"^\d+ of \d+ MB \(\d+%\)", result.stderr, re.MULTILINE)
    assert " MB (100%), " in result.stderr.splitlines()[-1]
    assert len(result.stdout.splitlines()) == 1


def events(stdout: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.splitlines()]


def test_events_for_machines(copy: Path, tmp_path: Path) -> None:
    rows = copy / "index.npy"
    rows.write_bytes(rows.read_bytes()[:-1] + b"\1")
    result = run(copy, "--deep", "--json", "--receipt", tmp_path / "receipt.json")
    assert result.exit_code == 1
    assert result.stderr == ""
    found = events(result.stdout)
    kinds = [event["event"] for event in found]
    assert kinds == sorted(kinds, key=["progress", "finding", "complete"].index)
    progress = [event for event in found if event["event"] == "progress"]
    total = sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())
    assert {(event["total"], event["unit"]) for event in progress} == {(total, "bytes")}
    assert [event["done"] for event in progress] == sorted(event["done"] for event in progress)
    assert progress[-1]["done"] == total, "every byte is counted once, decoded or not"
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    told = [
        {key: event[key] for key in ("file", "problem", "sample")} for event in found if event["event"] == "finding"
    ]
    assert told == receipt["findings"]
    for key in ("data_set", "deep", "passed", "files", "bytes", "shards", "images", "decoded", "seconds"):
        assert found[-1][key] == receipt[key]
    assert found[-1]["findings"] == len(told)


def test_beside_a_receipt_on_standard_output_events_go_to_standard_error(copy: Path) -> None:
    result = run(copy, "--json", "--receipt", "-")
    assert json.loads(result.stdout)["passed"] is True
    assert events(result.stderr)[-1]["event"] == "complete"


def test_nothing_is_written(copy: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in copy.rglob("*")}
    assert run(copy, "--deep").exit_code == 0
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in copy.rglob("*")} == before


def test_neither_torch_nor_dali_is_loaded(copy: Path) -> None:
    code = (
        "import sys\n"
        "from alexnet.tools.verify import verify\n"
        f"verify.main([{str(copy)!r}, '--deep', '--workers', '1'], standalone_mode=False)\n"
        "print(sorted(name for name in ('torch', 'nvidia.dali') if name in sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
