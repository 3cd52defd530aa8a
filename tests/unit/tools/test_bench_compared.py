"""Comparing runs of any command, the page made of runs, guarded ratios, and which data are measured."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from alexnet.shards.errors import InputError
from alexnet.tools.bench import bench_data as bench_data_module
from alexnet.tools.bench import measurements
from alexnet.tools.bench.bench_data import bench_data
from alexnet.tools.bench.comparable import CPU, WALL, Compared, comparable
from alexnet.tools.bench.diff import changes, run_diff
from alexnet.tools.bench.guards import PREP_SHARE_OF_BOUND
from alexnet.tools.bench.measurements import page_of
from alexnet.tools.bench.ratios import judged, loader_rows, main
from alexnet.tools.bench.repeatability import report_lines, run_to_run
from alexnet.tools.bench.schema import faults
from alexnet.tools.console import StoppedError

DOCS = Path(__file__).parents[3] / "docs"


def prep_report(speed: float = 600.0, bound: float = 700.0) -> dict[str, Any]:
    def spread(value: float) -> dict[str, float]:
        return {"median": value, "min": 0.99 * value, "max": 1.01 * value}

    def rounds(value: float) -> list[float]:
        return [value, 0.99 * value, 1.01 * value]

    return {
        "schema": 1,
        "command": "prep",
        "conditions": {
            "source": "/images", "rounds": 3, "cores": 2, "load": 0.1, "pillow": "1", "libjpeg_turbo": "2",
            "python": "3", "images": 100, "entries": 100,
        },
        "bound_images_per_s_a_core": spread(bound),
        "bound_rounds": rounds(bound),
        "rows": [
            {
                "workers": n,
                "images_per_s": spread(n * speed),
                "share_of_bound_a_core": speed / bound,
                "rounds": rounds(n * speed),
            }
            for n in (1, 2)
        ],
        "resume": {
            "shards": 64, "done_shards": 32, "headers_s": spread(1), "index_s": spread(1), "resumed_s": spread(1),
            "complete_s": spread(1),
        },
        "largest_worker_mb": 100.0,
    }  # fmt: skip


def write(path: Path, report: dict[str, Any]) -> Path:
    path.write_text(json.dumps(report))
    return path


def test_converters_are_compared(tmp_path: Path) -> None:
    assert faults(prep_report()) == []
    a, b = write(tmp_path / "a.json", prep_report()), write(tmp_path / "b.json", prep_report(speed=500.0))
    with pytest.raises(StoppedError, match=r"1 workers -16\.7%; 2 workers -16\.7%"):
        run_diff(a, b, 0.05)
    run_diff(a, b, 0.2)
    run_diff(b, a, 0.05)
    slower_bound = write(tmp_path / "c.json", prep_report(bound=500.0))
    run_diff(a, slower_bound, 0.05)  # the machine is slower, not the converter


def test_reports_of_two_commands_are_not_compared(tmp_path: Path) -> None:
    prep = write(tmp_path / "prep.json", prep_report())
    model = next(file for file in sorted((DOCS / "measurements").glob("*.json")) if file.stem == "model")
    with pytest.raises(InputError, match="compare two of one command"):
        run_diff(prep, model, 0.05)


@pytest.mark.parametrize("name", ["dataloader", "model", "train", "prep"])
def test_a_run_of_each_command_equals_itself(name: str) -> None:
    file = DOCS / "measurements" / f"{name}.json"
    run_diff(file, file, 0.05)


def equal_runs(runs: int, rows: int, within: float, between: float, seed: int) -> list[list[Compared]]:
    """Make runs of equal rows up, whose rates differ from round to round and, as a whole, from run to run."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(runs):
        shifts = rng.normal(0, between, rows)
        rates = [(1_000 * np.exp(shift + rng.normal(0, within, 5))).tolist() for shift in shifts]
        found.append(
            [
                Compared(name=str(k), title=str(k), decides=True, disturbed=False, rates={WALL: r, CPU: r})
                for k, r in enumerate(rates)
            ]
        )
    return found


def false_alarms(between: float, run_to_run: float) -> float:
    """Return the share of comparisons of equal runs that cry: ten rows, rounds that spread by 2%."""
    runs = equal_runs(400, 10, 0.02, between, seed=1)
    pairs = zip(runs[::2], runs[1::2], strict=True)
    return sum(any(c.slower for c in changes(a, b, 0.05, WALL, run_to_run)) for a, b in pairs) / 200


@pytest.mark.parametrize("between", [0.0, 0.01, 0.03])
def test_equal_runs_seldom_differ(between: float) -> None:
    """One comparison of twenty at most, if what equal runs differ by is known."""
    assert false_alarms(between, between) <= 0.05


def test_rounds_alone_do_not_know_what_changes_from_run_to_run() -> None:
    """Why it must be told: with 3% from run to run, the rounds alone would cry in every tenth comparison or more."""
    assert false_alarms(0.03, 0.0) > 0.1


def test_a_slowdown_of_three_times_what_is_let_pass_is_seen() -> None:
    runs = equal_runs(200, 1, 0.01, 0.02, seed=4)
    slower = [
        [dataclasses.replace(row, rates={WALL: [0.85 * r for r in row.rates[WALL]]}) for row in run] for run in runs
    ]
    pairs = zip(runs[::2], slower[1::2], strict=True)
    assert sum(c.slower for a, b in pairs for c in changes(a, b, 0.05, WALL)) / 100 > 0.9


@pytest.mark.parametrize("between", [0.0, 0.01, 0.03])
def test_the_deviation_from_run_to_run_is_found_again(between: float) -> None:
    runs = equal_runs(50, 20, 0.02, between, seed=3)
    rates = [[run[k].rates[WALL] for run in runs] for k in range(20)]
    assert run_to_run(rates)[0] == pytest.approx(between, abs=0.003)


def test_repeatability_wants_runs_of_one_command(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{k}.json", prep_report(speed=600.0 + k)) for k in range(3)]
    assert "3 rows, 3 runs" in report_lines(files)[0]
    with pytest.raises(InputError, match="must be at least 3 runs"):
        report_lines(files[:2])
    model = DOCS / "measurements" / "model.json"
    with pytest.raises(InputError, match="different commands"):
        report_lines([*files, model])


def test_the_page_of_measurements_is_up_to_date() -> None:
    assert (DOCS / "measurements.md").read_text() == page_of(DOCS), "run `make measurements-page`"


def test_a_page_needs_valid_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="holds no JSON files"):
        page_of(tmp_path)
    folder = tmp_path / "measurements"
    folder.mkdir()
    write(folder / "prep.json", prep_report())
    page = page_of(tmp_path)
    assert "| 1 worker | 600 (594-606) | 86% |" in page
    assert "Not yet measured: no file here is of a run on a GPU" in page
    monkeypatch.setattr("sys.argv", ["measurements", str(tmp_path)])
    measurements.main()
    assert (tmp_path / "measurements.md").read_text() == page
    (folder / "prep.json").write_text("{}")
    with pytest.raises(InputError, match="is no report"):
        page_of(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"complete": False}, "is of a run that was interrupted"), ({"repeated": True}, "from the CPU's cache")],
)
def test_a_page_quotes_whole_runs_of_enough_data_only(wrong: dict[str, bool], words: str, tmp_path: Path) -> None:
    report = json.loads((DOCS / "measurements" / "train.json").read_text())
    target = report if "complete" in wrong else report["conditions"]
    target.update(wrong)
    (tmp_path / "measurements").mkdir()
    write(tmp_path / "measurements" / "train.json", report)
    with pytest.raises(InputError, match=words):
        page_of(tmp_path)


def test_ratios_of_an_interrupted_run_are_not_judged(tmp_path: Path) -> None:
    report = json.loads((DOCS / "measurements" / "model.json").read_text())
    write(tmp_path / "model.json", report | {"complete": False})
    result = CliRunner().invoke(main, ["--from", str(tmp_path)])
    assert result.exit_code == 1
    assert "interrupted" in result.stderr


def test_every_kept_file_holds_what_the_schema_says() -> None:
    files = sorted((DOCS / "measurements").glob("*.json"))
    assert {file.stem for file in files} >= {"dataloader", "model", "train", "prep"}
    for file in files:
        report = json.loads(file.read_text())
        assert faults(report) == [], file.name
        assert comparable(report), file.name


def test_ratios_that_hold_and_that_miss(tmp_path: Path) -> None:
    write(tmp_path / "prep.json", prep_report(speed=665.0))
    fine = CliRunner().invoke(main, ["--from", str(tmp_path)])
    assert fine.exit_code == 0, fine.output
    assert "holds: one worker of the converter over its bound: 0.95" in fine.output
    write(tmp_path / "prep.json", prep_report(speed=400.0))
    missed = CliRunner().invoke(main, ["--from", str(tmp_path)])
    assert missed.exit_code == 1
    assert "MISSED: one worker of the converter over its bound: 0.57" in missed.output
    assert f"1 of 1 ratios missed: one worker of the converter over its bound: 0.57 by wall time, must be at least " \
        f"{PREP_SHARE_OF_BOUND:.2f}" in missed.stderr  # fmt: skip


def test_the_loaders_ratios_are_of_rows_that_there_are() -> None:
    assert {"stream-1-thread", "stream-float32", "dali-plain", "stream-beside-trainer-here"} <= set(loader_rows(2))
    assert {"stream-2-threads", "stream-4-threads"} <= set(loader_rows(8))
    assert "stream-float32" in loader_rows(1)
    assert not any("thread" in name for name in loader_rows(1))


def test_no_ratio_is_no_success(tmp_path: Path) -> None:
    report = prep_report()
    report["rows"] = report["rows"][1:]
    assert judged(report) == []
    write(tmp_path / "prep.json", report)
    result = CliRunner().invoke(main, ["--from", str(tmp_path)])
    assert result.exit_code == 1
    assert "no guarded ratio was measured" in result.stderr
    empty = CliRunner().invoke(main, ["--from", str(tmp_path / "nowhere")])
    assert empty.exit_code == 2


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("ALEXNET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("ALEXNET_BENCH_IMAGES", "12")
    return tmp_path / "alexnet"


def test_a_set_is_drawn_once_and_found_again(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, why = bench_data(None, quick=False)
    assert folder.parent == cache
    assert why == "drawn by `alexnet-prep synth` with seed 2012"
    assert "drawing 12 images" in capfd.readouterr().err
    before = (folder / "manifest.json").stat().st_mtime_ns
    again, why = bench_data(None, quick=False)
    assert (again, why) == (folder, "drawn by `alexnet-prep synth` with seed 2012, found in the cache")
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    assert capfd.readouterr().err == ""


def test_what_is_given_is_taken(cache: Path, ci_100: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench_data(ci_100, quick=False) == (ci_100, "given")
    quick, why = bench_data(None, quick=True)
    assert quick.name == "ci-100"
    assert "--quick draws none" in why
    monkeypatch.setenv("ALEXNET_DATA", str(ci_100))
    assert bench_data(None, quick=False) == (ci_100, "from ALEXNET_DATA")
    assert not cache.exists()


def test_without_room_the_bundled_images_serve(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_data_module, "_IMAGE_BYTES", 10**15)
    folder, why = bench_data(None, quick=False)
    assert folder.name == "ci-100"
    assert "GB free, and" in why


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALEXNET_DATA", raising=False)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder, why = bench_data(None, quick=False)
    assert folder.name == "ci-100"
    assert "cannot be written" in why


def test_a_user_without_a_home_is_told_what_to_set(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert bench_data(None, quick=False)[0].parent == cache
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(InputError, match="set XDG_CACHE_HOME"):
        bench_data(None, quick=False)


def test_a_number_of_images_that_is_none_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_BENCH_IMAGES", "many")
    with pytest.raises(InputError, match="ALEXNET_BENCH_IMAGES=many: must be a whole number"):
        bench_data(None, quick=False)
