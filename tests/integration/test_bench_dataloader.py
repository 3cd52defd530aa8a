"""`alexnet-bench dataloader` and `diff` as a user types them."""

import re
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from alexnet.tools.bench import dataloader, loader_stages, measure
from alexnet.tools.bench.bench_data import LoaderTask
from alexnet.tools.bench.command import main
from alexnet.tools.bench.loader_rows import BASELINES, cases_of
from alexnet.tools.bench.measure import Case, Measured, Timing, measure_rows
from alexnet.tools.bench.report import Asked, read_report


def measured(data: Path, *names: str, **how: Any) -> Measured:
    task = LoaderTask(data=str(data), split="train", batch_images=16, threads=2)
    found = measure_rows(cases_of(task, 2, "cpu", names=names, **how), Timing(rounds=1, seconds=0.03), lambda _: None)
    assert found.complete
    return found


def test_quick_on_the_bundled_images_writes_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALEXNET_DATA", raising=False)
    impossible = Asked("stream-float32", "jpeg-window", "stream over its limit", 99.0)
    monkeypatch.setattr(dataloader, "GUARDED", [impossible])
    json_file, html_file = tmp_path / "bench.json", tmp_path / "bench.html"
    how = ["--rows", "read,jpeg-window,stream-float32", "--device", "cpu", "--seconds", "0.1", "--check"]
    result = CliRunner().invoke(
        main, ["dataloader", "--quick", *how, "--json", str(json_file), "--html", str(html_file)]
    )
    assert result.exit_code == 1, result.output
    assert "guarded ratios that fail: stream over its limit: " in result.stderr
    assert "the bundled 100 images" in result.output
    assert "do not quote" in result.output
    report = read_report(json_file)
    assert (report.complete, report.missing) == (True, ())
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


@pytest.mark.slow
def test_the_whole_quick_mode_takes_every_row_and_baseline_along(ci_100: Path) -> None:
    rows, missing, _ = measured(ci_100, quick=True, compare=("torch", "webdataset", "dali"))
    not_looked_for = "no data set of planes was looked for"
    assert all("is not installed" in one.why or one.why == not_looked_for for one in missing)
    assert {row.name for row in rows} >= {"torch-pil", "webdataset-pil", "dali", "dali-plain", "stream-dali-float32"}


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["ffcv", "spdl", "torchcodec", "grain", "litdata"])
def test_loaders_that_are_installed_do_the_work(ci_100: Path, peer: str) -> None:
    rows, missing, _ = measured(ci_100, *(row.name for row in BASELINES[peer]), compare=(peer,))
    asked = {row.name for row in BASELINES[peer]}
    assert {row.name for row in rows} | {one.name for one in missing} == asked
    reasons = r"is not installed: pip install|apt-get install ffmpeg|built for another torch|torch has none here"
    assert [one for one in missing if not re.search(reasons, one.why)] == []


def test_storage_memory_and_decoding_are_measured_without_torch(ci_100: Path) -> None:
    rows, missing, _ = measured(ci_100, "storage-cold", "memory-copy", "jpeg-entropy")
    assert {one.name: "cache" in one.why for one in missing} in ({}, {"storage-cold": True}), "some cannot forget"
    for row in rows:
        assert row.name == "memory-copy" or row.rounds[0].peak_bytes < 250e6, "a process with torch would take more"


def test_images_smaller_than_a_crop_are_taken_whole(data_set: Path) -> None:
    rows, missing, _ = measured(data_set, "torch-pil", compare=("torch",))
    assert (len(rows), missing) == (1, ()), "40 px, where crops have 224"
    task: dict[str, Any] = {"data": str(data_set), "split": "train", "batch_images": 8, "threads": 1}
    for stage in (
        loader_stages.jpeg(part="crop", output="uint8", **task),
        loader_stages.stream(output="float32", **task),
        loader_stages.read(by=2, **task),
        loader_stages.storage(cold=False, **task),
    ):
        work = stage.work()
        assert sum(next(work) for _ in range(8)) > 24, "it goes on after the 24 images"


def test_ctrl_c_writes_partial_results(ci_100: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(cases: list[Case], timing: Timing, say: object) -> Measured:
        def say_once(text: str) -> None:
            if text.startswith("round 3"):
                signal.raise_signal(signal.SIGINT)

        return measure_rows(cases, timing, say_once)

    monkeypatch.setattr(measure, "measure_rows", interrupted)
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
