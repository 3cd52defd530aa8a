"""`alexnet-bench dataloader` and `diff` as a user types them."""

import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from alexnet.tools.bench import dataloader
from alexnet.tools.bench import measure as measure_module
from alexnet.tools.bench.bench_data import LoaderTask
from alexnet.tools.bench.command import main
from alexnet.tools.bench.loader_rows import cases_of
from alexnet.tools.bench.measure import Case, Measured, Timing, measure_rows
from alexnet.tools.bench.report import Asked, read_report


def task_of(data: Path) -> LoaderTask:
    return LoaderTask(data=str(data), split="train", batch_images=16, threads=2)


def measure(cases: list[Case]) -> Measured:
    measured = measure_rows(cases, Timing(rounds=1, seconds=0.03), lambda _: None)
    assert measured.complete
    return measured


def test_quick_on_the_bundled_images_writes_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALEXNET_DATA", raising=False)
    json_file, html_file = tmp_path / "bench.json", tmp_path / "bench.html"
    rows = ["--rows", "read,jpeg-window,stream-float32", "--device", "cpu", "--seconds", "0.1"]
    files = ["--json", str(json_file), "--html", str(html_file)]
    result = CliRunner().invoke(main, ["dataloader", "--quick", *rows, *files])
    assert result.exit_code == 0, result.output
    assert "the bundled 100 images" in result.output
    assert "do not quote" in result.output
    report = read_report(json_file)
    assert report.complete
    assert report.missing == ()
    assert report.conditions.data
    assert report.conditions.data.repeated
    assert [(row.name, row.group) for row in report.rows] == [
        ("jpeg-window", "limit"), ("read", "row"), ("stream-float32", "row"),
    ]  # fmt: skip
    for row in report.rows:
        assert len(row.rounds) == 3
        assert 0 < row.wall.min <= row.wall.median <= row.wall.max
        assert all(r.peak_bytes >= row.before_bytes > 10e6 for r in row.rounds)
        assert 0 <= row.foreign_load <= 1
    assert html_file.read_text().startswith("<!doctype html>")
    same = CliRunner().invoke(main, ["diff", str(json_file), str(json_file)])
    assert same.exit_code == 0, same.output
    assert "no row is slower" in same.output
    limit_only = ["dataloader", "--quick", "--rows", "stream-float32,jpeg-window", *rows[2:], "--check"]
    impossible = Asked("stream-float32", "jpeg-window", "stream over its limit", 99.0)
    monkeypatch.setattr(dataloader, "GUARDED", [impossible])
    failed = CliRunner().invoke(main, limit_only)
    assert failed.exit_code == 1, failed.output
    assert "guarded ratios that fail: stream over its limit: " in failed.stderr


@pytest.mark.slow
def test_the_whole_quick_mode_takes_every_row_and_baseline_along(tmp_path: Path) -> None:
    json_file = tmp_path / "bench.json"
    compare = ["--compare", "torch,webdataset,dali", "--seconds", "0.2"]
    result = CliRunner().invoke(main, ["dataloader", "--quick", "--device", "cpu", *compare, "--json", str(json_file)])
    assert result.exit_code == 0, result.output
    report = read_report(json_file)
    assert all(one.why.endswith("is not installed") for one in report.missing)
    asked = cases_of(task_of(tmp_path), 2, "cpu", quick=True, compare=("torch", "webdataset", "dali"))
    assert {row.name for row in report.rows} | {one.name for one in report.missing} == {case.name for case in asked}
    assert {"torch-pil", "webdataset-pil", "dali"} <= {row.name for row in report.rows}


def test_storage_memory_and_decoding_are_measured_without_torch(ci_100: Path) -> None:
    cases = [case for case in cases_of(task_of(ci_100), 2, "cpu") if case.name.startswith(("stor", "mem", "jpeg"))]
    measured = measure(cases)
    for one in measured.missing:
        assert one.name == "storage-cold"
        assert "cache" in one.why  # some file systems cannot forget
    for row in measured.rows:
        assert row.name == "memory-copy" or row.rounds[0].peak_bytes < 250e6, "a process with torch would take more"


def test_images_smaller_than_a_crop_are_taken_whole(data_set: Path) -> None:
    names = ("jpeg-window", "stream-float32", "ffcv-jpeg", "torch-pil")
    rows, missing, _ = measure(cases_of(task_of(data_set), 2, "cpu", names=names, compare=("ffcv", "torch")))
    assert {row.name for row in rows} >= {"jpeg-window", "stream-float32", "torch-pil"}, "40 px, where crops have 224"
    assert {one.why for one in missing} <= {"ffcv is not installed"}


def test_ctrl_c_writes_partial_results(ci_100: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(cases: list[Case], timing: Timing, say: object) -> Measured:
        def say_once(text: str) -> None:
            if text.startswith("round 3"):
                signal.raise_signal(signal.SIGINT)

        return measure_rows(cases, timing, say_once)

    monkeypatch.setattr(measure_module, "measure_rows", interrupted)
    json_file = tmp_path / "partial.json"
    options = ["--quick", "--rows", "read", "--seconds", "0.05", "--device", "cpu", "--json", str(json_file)]
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        result = CliRunner().invoke(main, ["dataloader", str(ci_100), *options])
    finally:
        for number, handler in before.items():  # a command that was told to stop stays deaf; this process does not
            signal.signal(number, handler)
    assert result.exit_code == 130, result.output
    report = read_report(json_file)
    assert not report.complete
    assert len(report.rows[0].rounds) == 2
