"""`alexnet-bench dataloader` and `diff` as a user types them, and rows whose process fails."""

import json
import signal
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from alexnet.tools.bench.command import main
from alexnet.tools.bench.loader.rows import rows_of
from alexnet.tools.bench.measuring import rounds
from alexnet.tools.bench.measuring.rounds import Measured, Timing, measure_rows
from alexnet.tools.bench.measuring.row import Row
from alexnet.tools.bench.measuring.stages_seam import StageSettings
from alexnet.tools.bench.schema import faults, read_report

SHORT = Timing(rounds=2, seconds=0.05)
READ = Row(name="read", title="reading", group="row", kind="read")


def settings_of(data: Path) -> StageSettings:
    return StageSettings(data=data, split="train", batch_images=16, threads=2)


def measure(data: Path, *rows: Row, timing: Timing = SHORT) -> list[Measured]:
    measured, complete = measure_rows(list(rows), settings_of(data), timing, lambda _: None)
    assert complete
    return measured


def test_quick_on_the_bundled_images_writes_a_valid_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALEXNET_DATA", raising=False)
    json_file, html_file = tmp_path / "bench.json", tmp_path / "bench.html"
    rows = "read,jpeg-window,stream-float32"
    options = ["--quick", "--rows", rows, "--seconds", "0.1", "--need", "1000000"]
    result = CliRunner().invoke(
        main, ["dataloader", *options, "--device", "cpu", "--json", str(json_file), "--html", str(html_file)]
    )
    assert result.exit_code == 0, result.output
    assert "the bundled 100 images" in result.output
    assert "do not quote" in result.output
    report = read_report(json_file)
    assert faults(report) == []
    assert report["complete"]
    assert report["missing"] == []
    assert report["conditions"]["repeated"] is True
    assert [[r["name"] for r in report[g]] for g in ("limits", "rows")] == [
        ["jpeg-window"],
        ["read", "stream-float32"],
    ]
    for row in (*report["limits"], *report["rows"]):
        assert len(row["rounds"]) == 3
        assert 0 < row["images_per_s"]["min"] <= row["images_per_s"]["median"] <= row["images_per_s"]["max"]
        assert row["memory_mb"]["peak"] >= row["memory_mb"]["before"] > 10
        assert 0 <= row["foreign_load"] <= 1
    assert "The trainer needs 1,000,000" in report["verdict"]
    assert html_file.read_text().startswith("<!doctype html>")
    same = CliRunner().invoke(main, ["diff", str(json_file), str(json_file)])
    assert same.exit_code == 0, same.output
    assert "no row is slower" in same.output


@pytest.mark.slow
def test_the_whole_quick_mode_takes_every_row_and_peer_along(tmp_path: Path) -> None:
    json_file = tmp_path / "bench.json"
    peers = ["--compare", "torch,webdataset,dali", "--seconds", "0.2"]
    result = CliRunner().invoke(main, ["dataloader", "--quick", "--device", "cpu", *peers, "--json", str(json_file)])
    assert result.exit_code == 0, result.output
    report = read_report(json_file)
    assert all(one["why"].endswith("is not installed") for one in report["missing"])
    assert {"torch-pil", "webdataset-pil", "dali"} <= {row["name"] for row in report["peers"]}
    assert {row["name"] for g in ("limits", "rows") for row in report[g]} == {
        row.name for row in rows_of(2, "cpu") if row.quick
    }


def test_storage_memory_and_parts_are_measured_without_torch(ci_100: Path) -> None:
    chosen = [row for row in rows_of(2, "cpu") if row.kind in ("storage", "memory-copy", "jpeg")]
    for one in measure(ci_100, *chosen, timing=Timing(rounds=1, seconds=0.02)):
        if one.row.name == "storage-cold" and one.why:
            assert "cache" in one.why or "cached" in one.why  # some file systems cannot forget
            continue
        assert not one.why, one.row.name
        assert one.rounds[0]["amount"] > 0
        if one.row.name != "memory-copy":
            assert one.rounds[0]["peak_bytes"] < 250e6, "a process with torch would take more"


def test_a_row_that_cannot_run_says_why_and_the_rest_goes_on(ci_100: Path) -> None:
    missing = Row(name="ffcv", title="FFCV", group="peer", kind="ffcv", options={"stored": "jpg"})
    unknown = Row(name="x", title="X", group="peer", kind="no-such-kind")
    first, second, third = measure(ci_100, missing, unknown, READ)
    assert first.why == "ffcv is not installed"
    assert second.why.startswith("KeyError")
    assert len(third.rounds) == SHORT.rounds


def test_a_row_that_hangs_or_dies_is_told_from_the_others(ci_100: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = {
        "hang": "import threading; threading.Event().wait()",
        "die": "import os, sys; print('the disk is on fire', file=sys.stderr); sys.stderr.flush(); os.abort()",
        "leave": "raise SystemExit(3)",
    }
    real = rounds.command_of

    def command(row: Row, settings: StageSettings) -> list[str]:
        return [sys.executable, "-c", scripts[row.name]] if row.name in scripts else real(row, settings)

    monkeypatch.setattr(rounds, "command_of", command)
    monkeypatch.setattr(rounds, "limit_of", lambda row, timing: 0.2 if row.name == "hang" else 60.0)
    rows = [Row(name=name, title=name, group="peer", kind="read") for name in scripts]
    hung, died, left, fine = measure(ci_100, *rows, READ)
    assert "did not answer within" in hung.why
    assert died.why == "was killed by SIGABRT; its last words: the disk is on fire"
    assert left.why == "left with exit code 3"
    assert len(fine.rounds) == SHORT.rounds


def test_what_a_row_wrote_goes_with_it(ci_100: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed deletes nothing itself, and FFCV's file has 2 GB."""
    script = "import tempfile; open(tempfile.mkdtemp() + '/large', 'w').close(); raise SystemExit(3)"
    monkeypatch.setattr(rounds, "command_of", lambda row, settings: [sys.executable, "-c", script])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (left,) = measure(ci_100, READ)
    assert left.why == "left with exit code 3"
    assert list(tmp_path.iterdir()) == []


def test_images_smaller_than_a_window_are_taken_whole(data_set: Path) -> None:
    rows = [row for row in rows_of(2, "cpu") if row.name in ("jpeg-window", "stream-float32")]
    for one in measure(data_set, *rows, timing=Timing(rounds=1, seconds=0.05)):
        assert one.why == "", "40 px, where windows have 224"
        assert one.rounds[0]["images"] > 0


def test_ctrl_c_leaves_what_was_measured_until_then(ci_100: Path) -> None:
    def say(text: str) -> None:
        if text.startswith("round 2"):
            raise KeyboardInterrupt

    (one,), complete = measure_rows([READ], settings_of(ci_100), SHORT, say)
    assert not complete
    assert len(one.rounds) == 1


def test_ctrl_c_writes_partial_results(ci_100: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = measure_rows

    def interrupted(rows: list[Row], settings: StageSettings, timing: Timing, say: object) -> object:
        def say_once(text: str) -> None:
            if text.startswith("round 3"):
                signal.raise_signal(signal.SIGINT)

        return real(rows, settings, timing, say_once)

    assert threading.current_thread() is threading.main_thread()
    monkeypatch.setattr("alexnet.tools.bench.loader.dataloader.measure_rows", interrupted)
    json_file = tmp_path / "partial.json"
    options = ["--quick", "--rows", "read", "--seconds", "0.05", "--device", "cpu", "--json", str(json_file)]
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    try:
        result = CliRunner().invoke(main, ["dataloader", str(ci_100), *options])
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(
                number, handler
            )  # a command that was told to stop stays deaf, as it leaves; this one does not
    assert result.exit_code == 130, result.output
    report = json.loads(json_file.read_text())
    assert faults(report) == []
    assert report["complete"] is False
    assert len(report["rows"][0]["rounds"]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dataloader", "--compare", "pytorch"], "--compare pytorch: must be of webdataset, torch, dali, ffcv, spdl, "),
        (["dataloader", "--rows", "reed", "--device", "cpu"], "--rows reed: must be of"),
        (["dataloader", "--html", "/no/such/folder/x.html"], "--html /no/such/folder/x.html: cannot be written"),
        (["diff", "/no/such/a.json", "/no/such/b.json"], "/no/such/a.json: cannot be read"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: str, ci_100: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_DATA", str(ci_100))
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output
