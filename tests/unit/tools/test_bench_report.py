"""The arithmetic of the loader's benchmark, on rounds made up so that every figure is known beforehand."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.bench.comparable import WALL, comparable
from alexnet.tools.bench.diff import changes, run_diff, slowdown_p
from alexnet.tools.bench.loader.page import dataloader_page
from alexnet.tools.bench.loader.report import report_of
from alexnet.tools.bench.loader.rows import rows_of
from alexnet.tools.bench.loader.table import print_dataloader
from alexnet.tools.bench.loader.tune import candidates_of, recommendation
from alexnet.tools.bench.measuring.rounds import Measured
from alexnet.tools.bench.measuring.row import Row
from alexnet.tools.bench.schema import faults, read_report
from alexnet.tools.console import StoppedError

MACHINE = {
    "system": "Linux",
    "cpu": "X",
    "cores": 2,
    "memory_bytes": 2**34,
    "gpu": None,
    "gpu_why": "no GPU",
    "versions": {"torch": "2"},
}
CONDITIONS: dict[str, Any] = {
    "when": "2026-01-01T00:00:00+00:00",
    "machine": MACHINE,
    "governor": "performance",
    "load": {"before": 0.1, "after": 2.0, "foreign_before": 0.0},
    "data": "/data",
    "why": "given",
    "manifest": "0" * 64,
    "split": "train",
    "images": 10_000,
    "bytes_per_image": 20_000,
    "size_px": 256,
    "repeated": False,
    "cached": 1.0,
    "cores": 2,
    "batch_images": 128,
    "threads": 2,
    "device": "cpu",
    "rounds": 3,
    "seconds": 1.0,
}
RATES: dict[str, float] = {  # images/s of two busy cores
    "storage-cached": 100_000,
    "jpeg-full": 6_250,
    "jpeg-window": 8_000,
    "jpeg-entropy": 16_000,
    "jpeg-float32": 6_400,
    "read": 50_000,
    "stream-uint8": 7_200,
    "stream-float32": 5_000,
    "stream-dali-float32": 4_000,
    "stream-1-thread": 2_500,
    "dali-plain": 4_000,
}


def measured(rates: dict[str, float], foreign: float = 0.0, wall: float = 1.0) -> list[Measured]:
    """Make rounds up: in each, all cores of a row are busy for a second, of which `wall` is what the clock saw."""
    rows = [row for row in rows_of(2, "cpu") if row.name in rates]
    return [_measured(row, rates[row.name], foreign, wall) for row in rows]


def _measured(row: Row, rate: float, foreign: float, wall: float) -> Measured:
    cores = 1 if row.kind in ("storage", "read") or row.name == "stream-1-thread" else 2
    rounds = [
        {
            "images": round(rate * factor),
            "amount": round(rate * factor * 20_000),
            "seconds": 1 / wall,
            "cpu_seconds": float(cores),
            "foreign_load": foreign,
            "peak_bytes": 500_000_000,
        }
        for factor in (1.0, 0.99, 1.01)
    ]
    return Measured(row=row, rounds=rounds, ready={"settings": "so", "versions": {}, "before_bytes": 200_000_000})


def report(rates: dict[str, float] | None = None, need: float | None = None, **how: float) -> dict[str, Any]:
    conditions = copy.deepcopy(CONDITIONS)
    return report_of(measured(rates or RATES, **how), conditions, complete=True, need=need)


def row_of(report_: dict[str, Any], name: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [r for g in ("limits", "rows", "parts", "peers") for r in report_[g]]
    return next(row for row in rows if row["name"] == name)


def test_rates_shares_and_costs() -> None:
    full = report()
    assert faults(json.loads(json.dumps(full))) == []
    stream = row_of(full, "stream-float32")
    assert stream["images_per_s"] == {"median": 5_000, "min": 4_950, "max": 5_050}
    assert stream["share_of_limit"] == {"wall": pytest.approx(5_000 / 8_000), "cpu": pytest.approx(5_000 / 8_000)}
    assert stream["cpu_s_per_1000_images"] == pytest.approx(0.4)
    assert stream["cores_busy"] == pytest.approx(2)
    assert stream["mb_per_s"] == pytest.approx(100)
    assert row_of(full, "read")["share_of_limit"] == {"wall": pytest.approx(0.5), "cpu": None}


def test_cpu_time_does_not_see_what_others_do() -> None:
    alone, crowded = report(), report(foreign=0.6, wall=0.4)
    for name in RATES:
        busy = row_of(crowded, name)
        assert busy["disturbed"]
        assert busy["images_per_s_all_cores_busy"] == row_of(alone, name)["images_per_s_all_cores_busy"]
        assert busy["images_per_s"]["median"] == pytest.approx(0.4 * row_of(alone, name)["images_per_s"]["median"])
    assert "all cores busy" in crowded["verdict"]
    assert {ratio["by"] for ratio in crowded["ratios"]} == {"cpu"}
    by = {ratio["over"]: ratio["by"] for ratio in alone["ratios"]}
    assert by.pop("stream-1-thread") == "cpu", "beside one thread of decoding others read and plan"
    assert set(by.values()) == {"wall"}


def test_stages_are_differences_and_sum_up_to_the_stream() -> None:
    stages = {stage["name"]: stage for stage in report()["stages"]}
    assert stages["read"]["cpu_us"] == pytest.approx(20)
    assert stages["entropy decoding"]["cpu_us"] == pytest.approx(125)
    assert stages["inverse DCT, colour, mirror"]["cpu_us"] == pytest.approx(125)
    assert stages["to float32: mean, scale, write"]["cpu_us"] == pytest.approx(62.5)
    assert stages["plan, queues, Python"]["cpu_us"] == pytest.approx(400 - 312.5 - 20)
    assert sum(stage["share"] for stage in stages.values()) == pytest.approx(1)
    without = {name: rate for name, rate in RATES.items() if name != "jpeg-entropy"}
    assert report(without)["stages"] == []


def test_a_guarded_ratio_that_falls_is_said() -> None:
    holds = {ratio["row"] + "/" + ratio["over"]: ratio["holds"] for ratio in report()["ratios"]}
    assert holds == {
        "stream-uint8/dali-plain": True,
        "stream-float32/dali-plain": False,
        "stream-dali-float32/dali-plain": True,
        "stream-uint8/jpeg-window": True,
        "stream-float32/jpeg-window": False,
        "stream-float32/stream-1-thread": True,
    }


def test_more_threads_than_cores_are_not_asked_for_more() -> None:
    conditions = copy.deepcopy(CONDITIONS) | {"threads": 8}
    ratios = report_of(measured(RATES), conditions, complete=True, need=None)["ratios"]
    (gain,) = (ratio for ratio in ratios if ratio["over"] == "stream-1-thread")
    assert gain["at_least"] == pytest.approx(1.9), "two cores"


def test_the_verdict_on_a_gpu_takes_wall_time_whatever_others_do(capsys: pytest.CaptureFixture[str]) -> None:
    """CPU time says nothing of a GPU: a few CPU seconds would make a rate of hundreds of thousands."""
    rates = {"nvjpeg": 20_000, "stream-cuda": 15_000}
    rows = [row for row in rows_of(2, "cuda") if row.name in rates]
    told = [_measured(row, rates[row.name], 0.2, 1.0) for row in rows]
    for one in told:
        for round_ in one.rounds:
            round_ |= {"cpu_seconds": 0.1, "more": {"gpu_busy_percent": 90}}
    full = report_of(told, copy.deepcopy(CONDITIONS) | {"device": "cuda"}, complete=True, need=30_000)
    assert full["verdict"].startswith(
        "The pipeline to the GPU makes 15,000 images/s, 75% of what nvJPEG alone does with whole images. "
        "The trainer needs 30,000 and waits 50% of the time."
    )
    assert row_of(full, "stream-cuda")["share_of_limit"] == {"wall": pytest.approx(0.75), "cpu": None}
    print_dataloader(full)
    assert "gpu 90%" in (table := capsys.readouterr().out)
    assert "300,000" not in table, "15,000 images of 0.1 CPU seconds on two cores"


def test_the_verdict_names_what_bounds_and_what_is_needed() -> None:
    assert "Decoding on the CPU bounds this pipeline: 5,000 images/s, 62%" in report()["verdict"]
    short = report(need=40_000)["verdict"]
    assert "waits 88% of the time" in short
    assert "it takes 16 cores" in short
    assert "makes 2.5 times that" in report(need=2_000)["verdict"]
    assert "Storage bounds" in report({**RATES, "storage-cold": 900.0})["verdict"]
    assert "not measured" in report({"read": 50_000})["verdict"]
    small = report({**RATES, "stream-float32": 3_000})["verdict"]
    assert small.startswith("What lies around decoding bounds this pipeline: 3,000 images/s, 38%")


def test_schema_finds_what_is_wrong() -> None:
    good = report()
    for change, fault in (
        ({"verdict": None}, "report.verdict: is NoneType, must be str"),
        ({"extra": 1}, "report.extra: is not known"),
        ({"complete": 1}, "report.complete: is int, must be bool"),
        ({"schema": 1}, "report.schema: is 1"),
        ({"rows": [{"name": "x"}]}, "report.rows[0].title: is missing"),
    ):
        assert any(found.startswith(fault) for found in faults({**good, **change})), change
    broken = copy.deepcopy(good)
    broken["rows"][0]["mb_per_s"] = float("nan")
    assert faults(broken) == ["report.rows[0].mb_per_s: is nan"]


def test_page_and_table_show_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    full = report()
    page = dataloader_page(full)
    assert page == dataloader_page(report())
    print_dataloader(full)
    table = capsys.readouterr().out
    for group in ("limits", "rows", "parts"):
        for row in full[group]:
            assert row["title"].replace('"', "&quot;") in page or row["title"] in page
            assert row["title"] in table
    assert "src=" not in page
    assert "href=" not in page
    assert page.count("<circle") == 2 * 3 * 7, "two charts, three rounds, seven rows that count images"


def test_a_run_without_a_single_row_is_still_a_report() -> None:
    nothing = report_of([Measured(row=rows_of(2, "cpu")[0])], copy.deepcopy(CONDITIONS), complete=False, need=None)
    assert faults(nothing) == []
    assert nothing["missing"][0]["why"] == "the run was interrupted before it"
    assert "<svg" in dataloader_page(nothing)


@pytest.fixture
def reports(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "a.json", tmp_path / "b.json"


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))


def test_diff_finds_a_real_slowdown_only(reports: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    a, b = reports
    _write(a, report())
    _write(b, report({**RATES, "stream-float32": 4_000}))
    with pytest.raises(StoppedError, match=r"stream to float32 -20\.0%"):
        run_diff(a, b, 0.05)
    run_diff(a, b, 0.3)
    run_diff(b, a, 0.05)
    _write(b, report({**RATES, "jpeg-full": 3_000}))
    run_diff(a, b, 0.05)
    assert "slower, not counted" in capsys.readouterr().out, "a slower limit does not blame the pipeline"


def test_diff_lets_pass_what_the_spread_leaves_open() -> None:
    calm, slower = [100.0, 101.0, 99.0, 100.5, 99.5], [90.0, 91.0, 89.0, 90.5, 89.5]
    assert slowdown_p(calm, slower, 0.05) < 0.001
    wild = [60.0, 130.0, 88.0, 105.0, 67.0]
    assert slowdown_p(calm, wild, 0.05) > 0.1
    assert slowdown_p(calm, calm, 0.05) > 0.99
    assert slowdown_p([100.0] * 3, [90.0] * 3, 0.05) == 0
    assert slowdown_p([100.0] * 3, [96.0] * 3, 0.05) == 1


def test_diff_raises_few_false_alarms() -> None:
    """With nothing changed but noise of 5%, at most one run of twenty may say otherwise, over all rows together."""
    import numpy as np

    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        a, b = (report() for _ in range(2))
        for side in (a, b):
            for row in side["rows"]:
                for r in row["rounds"]:
                    r["images_per_s"] *= float(np.exp(rng.normal(0, 0.05)))
        alarms += any(c.slower and c.decides for c in changes(comparable(a), comparable(b), 0.0, WALL))
    assert alarms <= 20  # 10 expected at most; a faultless test passes with probability 0.998


def test_diff_refuses_what_cannot_be_compared(reports: tuple[Path, Path]) -> None:
    a, b = reports
    _write(a, report())
    other = report()
    other["conditions"]["manifest"] = "1" * 64
    _write(b, other)
    with pytest.raises(InputError, match="other data"):
        run_diff(a, b, 0.05)
    b.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_report(b)
    b.write_text("[]")
    with pytest.raises(InputError, match="is no report"):
        read_report(b)
    with pytest.raises(InputError, match="cannot be read"):
        read_report(b.parent / "nowhere")


def test_tuning_recommends_only_what_gains() -> None:
    rows = [Row(name=c.words, title=c.words, group="row", kind="stream") for c in candidates_of(2, "cpu")]
    rates = [1_000.0] * len(rows)
    same = [_measured(row, rate, 0.0, 1.0) for row, rate in zip(rows, rates, strict=True)]
    assert "use the defaults" in recommendation(same)[-1]
    rates[2] = 1_200.0
    faster = [_measured(row, rate, 0.0, 1.0) for row, rate in zip(rows, rates, strict=True)]
    assert recommendation(faster)[-1].startswith(f"use {rows[2].title}: +20%")
    assert "tuning failed" in recommendation([Measured(row=rows[0], why="it did not start")])[0]
