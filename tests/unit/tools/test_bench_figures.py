"""The rows of the data path, what is made of their figures, how two runs compare, and which data are taken."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import escape

from alexnet.pipeline.jpeg_engine import JpegEngine
from alexnet.shards.errors import InputError
from alexnet.tools.bench import bench_data as bench_data_module
from alexnet.tools.bench import dataloader, gpu_stages
from alexnet.tools.bench.bench_data import LoaderTask, bench_data
from alexnet.tools.bench.command import PEERS
from alexnet.tools.bench.dataloader import asked_of, candidates_of, recommendation, stages_of, tune, verdict_of
from alexnet.tools.bench.diff import changes, run_diff
from alexnet.tools.bench.loader_rows import BASELINES, cases_of
from alexnet.tools.bench.loader_stages import storage
from alexnet.tools.bench.measure import Measured
from alexnet.tools.bench.measurements import page_of as measurements_page
from alexnet.tools.bench.report import Ratio, Report, Row, ratios_of, read_report, to_json
from alexnet.tools.bench.stage import CannotRunError
from alexnet.tools.bench.tables import page_of, print_report
from alexnet.tools.console import StoppedError
from tests.bench_reports import CONDITIONS, DATA, DOCS, on_data, report_of, row_of, rows_of

TASK = LoaderTask(data="/data", split="train", batch_images=128, threads=2)
RATES: dict[str, float] = {  # images/s of two busy cores
    "storage-cached": 100_000, "jpeg-full": 6_250, "jpeg-window": 8_000, "jpeg-entropy": 16_000, "jpeg-float32": 6_400,
    "read": 50_000, "stream-uint8": 7_200, "stream-float32": 5_000, "stream-dali-float32": 4_000,
    "stream-1-thread": 2_500, "stream-beside-trainer-here": 2_300, "dali-plain": 4_000,
}  # fmt: skip
CROWDED: dict[str, Any] = {"foreign": 0.6, "wall": 0.4}  # others had a good half of the machine


def rows(rates: dict[str, float] = RATES, device: str = "cpu", **how: Any) -> dict[str, Row]:
    return rows_of(cases_of(TASK, 2, device), rates, **how)


def ratios(rates: dict[str, float] = RATES, **how: Any) -> tuple[Ratio, ...]:
    found = rows(rates, **how)
    return ratios_of(found, asked_of(found, 2))


def without(name: str) -> dict[str, float]:
    return {key: rate for key, rate in RATES.items() if key != name}


def test_rows_are_known_by_name_or_refused() -> None:
    assert tuple(BASELINES) == PEERS
    cases = cases_of(replace(TASK, threads=8), 4, "cuda", compare=PEERS)
    names = {case.name for case in cases}
    assert len(names) == len(cases)
    assert {case.cores for case in cases} == {1, 2, 4}, "threads beyond the cores keep none busy"
    assert {case.name for case in cases if case.on_gpu} >= {
        "nvjpeg", "to-device", "stream-cuda", "stream-cuda-resident", "nvimagecodec", "torchcodec-cuda",
    }  # fmt: skip
    assert {"stream-1-thread", "stream-2-threads", "stream-4-threads", "stream-beside-trainer-here"} <= names

    def chosen(**how: Any) -> set[str]:
        return {case.name for case in cases_of(TASK, 2, "cpu", **how)}

    spdl = {"spdl", "spdl-simplejpeg"}
    assert chosen(names=("read",), compare=("spdl",)) == {"read", *spdl}
    assert chosen(names=("read", "spdl"), compare=("spdl",)) == {"read", "spdl"}
    assert chosen(quick=True) < chosen()
    assert chosen(names=("guarded",)) == {
        "jpeg-window", "dali-plain", "stream-uint8", "stream-float32", "stream-dali-float32", "stream-1-thread",
        "stream-beside-trainer-here", "stream-bfloat16", "stream-planes-uint8", "stream-planes-bfloat16",
        "stream-planes-float32", "planes-traffic-uint8", "planes-traffic-float32",
    }  # fmt: skip
    with pytest.raises(InputError, match=r"--rows reed: must be of .*read"):
        chosen(names=("reed",))


def test_guarded_ratios_that_hold_and_that_fail() -> None:
    found = {f"{ratio.row}/{ratio.over}": ratio for ratio in ratios()}
    assert {name: ratio.holds for name, ratio in found.items()} == {
        "stream-uint8/dali-plain": True,
        "stream-float32/dali-plain": False,
        "stream-dali-float32/dali-plain": True,
        "stream-uint8/jpeg-window": True,
        "stream-float32/jpeg-window": False,
        "stream-float32/stream-1-thread": True,
        "stream-beside-trainer-here/stream-1-thread": True,
    }
    scaling = found["stream-float32/stream-1-thread"]
    assert scaling.by == "cpu"
    assert scaling.at_least == pytest.approx(1.9)
    assert [ratio.by for ratio in ratios(**CROWDED)] == ["cpu"] * 6 + ["wall"]
    assert ratios({"read": 1}) == ()


def test_stages_are_differences_and_sum_up_to_the_stream() -> None:
    stages = stages_of(rows())
    assert [stage.cpu_us for stage in stages] == pytest.approx([20, 125, 125, 62.5, 400 - 312.5 - 20])
    assert sum(stage.share for stage in stages) == pytest.approx(1)
    assert stages_of(rows(without("jpeg-entropy"))) == ()


@pytest.mark.parametrize(
    ("found", "data", "words"),
    [
        (rows(), DATA, "Decoding on the CPU bounds this pipeline: 5,000 images/s, 62%"),
        (rows(RATES | {"storage-cold": 900.0}), DATA, "Storage bounds"),
        (rows(RATES | {"stream-float32": 3_000.0}), DATA, "around decoding bounds this pipeline: 3,000 images/s, 38%"),
        (rows(without("jpeg-window")), DATA, "its limit was not measured"),
        (rows({"read": 50_000}), DATA, "No verdict"),
        (rows(RATES | {"stream-planes-float32": 20_000.0, "planes-traffic-float32": 25_000.0}), DATA,
         "From planes it makes 20,000 images/s, 4.0 times that, 80% of what memory allows."),
        (rows(), replace(DATA, repeated=True), "do not quote"),
        (rows(**CROWDED), DATA, "judge by the column for CPU time"),
        (rows({"nvjpeg": 20_000, "stream-cuda": 15_000}, "cuda", foreign=0.2), DATA,
         "The pipeline to the GPU makes 15,000 images/s, 75% of what nvJPEG alone does with whole images."),
    ],
)  # fmt: skip
def test_the_verdict_names_what_bounds(found: dict[str, Row], data: Any, words: str) -> None:
    assert words in verdict_of(found, data)


def test_page_and_table_show_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    report = report_of(rows(), ratios=ratios(), stages=stages_of(rows()))
    page = page_of(report)
    assert page == page_of(report)
    print_report(report)
    table = capsys.readouterr().out
    for row in report.rows:
        assert escape(row.title) in page
        assert row.title in table
    for words in ("FAILS by wall time", "62% / 62% of jpeg-window", "entropy decoding", "Fast."):
        assert words in page
        assert words in table
    assert "src=" not in page
    assert page.count("<circle") == 2 * 3 * 10, "two charts, three rounds, ten rows that are no parts"
    assert "<svg" in page_of(report_of({}))


def test_a_search_recommends_only_what_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = candidates_of(TASK, 2, "cpu")

    def advice(rate: float, factors: Sequence[float] = (1, 0.99, 1.01)) -> str:
        same = [row_of(case, 1_000.0) for case in cases]
        return recommendation([*same[:2], row_of(cases[2], rate, factors=factors), *same[3:]])

    assert advice(1_000) == "use the defaults: no candidate was 3% faster"
    assert advice(1_200) == f"use {cases[2].title}: +20% over the default, median of 3 rounds"
    assert advice(1_200, (1, 0.8, 0.8)).startswith("use the defaults"), "one round of three"
    assert "tuning failed" in recommendation([row_of(cases[1], 1_000)])
    monkeypatch.setattr(dataloader, "measure_rows", lambda *_: Measured((), (), False))
    assert tune(cases, 10.0, print) == (("tuning was interrupted: no options are recommended",), False)


def test_cold_storage_starts_over_and_an_engine_that_is_not_there_gets_no_figure(
    ci_100: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a round the shards are read in again: to go on in the middle would be to read them from the cache."""
    task = {"data": str(ci_100), "split": "train", "batch_images": 16, "threads": 1}
    assert [storage(cold=cold, **task).starts_over for cold in (True, False)] == [True, False]
    none = JpegEngine(engines=0, cores_per_engine=0, nvjpeg="no engine here")
    monkeypatch.setattr(gpu_stages, "query_jpeg_engine", lambda: none)
    with pytest.raises(CannotRunError, match="no engine here"):
        gpu_stages.nvjpeg(by="engine", **task)
    assert "no engine here" in gpu_stages.nvjpeg(by="kernels", **task).settings


def written(folder: Path, report: Report, name: str = "b.json") -> Path:
    (folder / name).write_bytes(to_json(report))
    return folder / name


def test_diff_finds_a_real_slowdown_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = written(tmp_path, report_of(rows()), "a.json")
    b = written(tmp_path, report_of(rows(RATES | {"stream-float32": 4_000})))
    with pytest.raises(StoppedError, match=r"slower by more than 5% .*: stream to float32 -20\.0%"):
        run_diff(a, b, 0.05)
    run_diff(a, b, 0.3)
    run_diff(b, a, 0.05)
    machine = replace(CONDITIONS.machine, versions={"torch": "3"})
    for report, words in (
        (report_of(rows(RATES | {"jpeg-full": 3_000})), "slower, not counted"),  # a limit does not blame the pipeline
        (report_of(rows(**CROWDED)), "by cpu time"),
        (report_of(rows(), conditions=replace(CONDITIONS, threads=1)), "differs: threads: 2 and 1"),
        (report_of(rows(), conditions=replace(CONDITIONS, machine=machine)), "and 3\n"),
    ):
        run_diff(a, written(tmp_path, report), 0.05)
        assert words in capsys.readouterr().out
    for report, words in (
        (report_of(rows(), conditions=on_data(manifest="1" * 64)), "other data"),
        (report_of(rows(), command="model"), "compare two of one command"),
        (report_of({}), "has no row with 3 rounds in common"),
    ):
        with pytest.raises(InputError, match=words):
            run_diff(a, written(tmp_path, report), 0.05)


@pytest.mark.parametrize("within", [0.01, 0.03])
def test_equal_runs_seldom_differ_and_a_slowdown_of_a_fifth_is_seen(within: float) -> None:
    """Ten rows whose rounds spread by `within`, and whose runs differ by 2% besides, as measured."""
    rng, cases = np.random.default_rng(1), cases_of(TASK, 2, "cpu", names=tuple(RATES))

    def run(slower: float = 1.0) -> Report:
        factors = [slower * np.exp(rng.normal(0, 0.02) + rng.normal(0, within, 5)) for _ in cases]
        return report_of({c.name: row_of(c, 1_000, factors=f) for c, f in zip(cases, factors, strict=True)})

    runs = [run() for _ in range(100)]
    cried = sum(any(c.slower for c in changes(a, b, 0.05, "wall")) for a, b in zip(runs[1:], runs, strict=False))
    assert cried <= 5
    assert np.mean([c.slower for report in runs for c in changes(report, run(0.8), 0.05, "wall")]) > 0.9


def test_the_page_of_measurements_quotes_whole_runs_of_enough_data(tmp_path: Path) -> None:
    files = list((DOCS / "measurements").glob("*.json"))
    assert (DOCS / "measurements.md").read_text() == measurements_page(DOCS), "run `make measurements-page`"
    assert {file.name: read_report(file).failed() for file in files} == {file.name: [] for file in files}
    with pytest.raises(InputError, match="holds no JSON files"):
        measurements_page(tmp_path)
    folder = tmp_path / "measurements"
    folder.mkdir()
    written(folder, report_of(rows()))
    page = measurements_page(tmp_path)
    assert "| stream to float32 | 5,000 | 4,950-5,050 | 5,000 | 2.00 | 62% / 62% of jpeg-window | 500 |" in page
    assert "Not yet measured: no file here is of a run on a GPU" in page
    for wrong, words in (({"complete": False}, "was interrupted"), ({"conditions": on_data(repeated=True)}, "CPU's")):
        written(folder, report_of(rows(), **wrong))
        with pytest.raises(InputError, match=words):
            measurements_page(tmp_path)


def test_a_set_is_given_or_made_once_and_found_again(
    tmp_path: Path, ci_100: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, made = tmp_path / "alexnet", "made by `alexnet-prep synth` with seed 2012"
    monkeypatch.delenv("ALEXNET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("ALEXNET_BENCH_IMAGES", "many")
    with pytest.raises(InputError, match="ALEXNET_BENCH_IMAGES=many: must be a whole number"):
        bench_data(None, quick=False)
    monkeypatch.setenv("ALEXNET_BENCH_IMAGES", "12")
    assert bench_data(ci_100, quick=False) == (ci_100, "given")
    quick, why = bench_data(None, quick=True)
    assert (quick.name, "--quick makes none" in why) == ("ci-100", True)
    assert not cache.exists()
    folder, why = bench_data(None, quick=False)
    assert (folder.parent, why) == (cache, made)
    assert "making 12 images" in capfd.readouterr().err
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert bench_data(None, quick=False) == (folder, f"{made}, found in the cache")
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    assert capfd.readouterr().err == ""
    monkeypatch.setenv("ALEXNET_DATA", str(ci_100))
    assert bench_data(None, quick=False) == (ci_100, "from ALEXNET_DATA")


def test_where_no_set_can_be_made_the_bundled_images_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALEXNET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(bench_data_module, "_IMAGE_BYTES", 10**15)
    folder, why = bench_data(None, quick=False)
    assert (folder.name, "GB free, and" in why) == ("ci-100", True)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "cannot be written" in bench_data(None, quick=False)[1]

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(InputError, match="set XDG_CACHE_HOME"):
        bench_data(None, quick=False)
