"""The reports of `alexnet-bench model` and `train`, on rounds made up so that every figure is known beforehand."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from alexnet.model.networks.settings import NetSettings
from alexnet.shards.errors import InputError
from alexnet.tools.bench.guards import missed
from alexnet.tools.bench.measuring.rounds import Measured
from alexnet.tools.bench.measuring.row import Row
from alexnet.tools.bench.names import numbers, words
from alexnet.tools.bench.networks.model_report import model_report_of
from alexnet.tools.bench.networks.model_rows import captured_rows, layer_rows, limit_rows, naive_rows, network_rows
from alexnet.tools.bench.networks.model_table import print_model
from alexnet.tools.bench.networks.networks_page import networks_page
from alexnet.tools.bench.networks.roofline import arithmetic_bound, step_work
from alexnet.tools.bench.networks.train_report import print_train, train_report_of
from alexnet.tools.bench.schema import faults

PAPER = NetSettings(arch="alexnet-2012")
MACHINE_CONDITIONS: dict[str, Any] = {
    "when": "2026-01-01T00:00:00+00:00",
    "machine": {
        "system": "Linux",
        "cpu": "X",
        "cores": 2,
        "memory_bytes": 2**34,
        "gpu": None,
        "gpu_why": "no GPU",
        "versions": {"torch": "2"},
    },
    "governor": "performance",
    "load": {"before": 0.1, "after": 2.0, "foreign_before": 0.0},
    "cores": 2,
    "device": "cpu",
    "threads": 2,
    "rounds": 3,
    "seconds": 1.0,
}
MODEL_CONDITIONS = {**MACHINE_CONDITIONS, "cpu_has_bf16": True}
DATA_CONDITIONS = {
    **MACHINE_CONDITIONS,
    "data": "/data",
    "why": "given",
    "manifest": "0" * 64,
    "split": "train",
    "images": 10_000,
    "bytes_per_image": 20_000,
    "size_px": 256,
    "repeated": False,
    "cached": 1.0,
    "batch_images": 64,
}
PARTS = {"forward": 0.2, "backward": 0.4, "update": 0.1}


def measured(row: Row, rate: float, amount: float = 1, waited_s: float = 0.0, **more: Any) -> Measured:
    """Make three rounds of a second up, in which both cores are busy."""
    told = {"parts_s": PARTS, "communication_s": 0.05, "waited_s": waited_s, **more} if row.kind == "network" else more
    rounds = [
        {
            "images": round(1_000 * rate * factor) / 1_000,
            "amount": amount * factor,
            "seconds": 1.0,
            "cpu_seconds": 2.0,
            "foreign_load": 0.0,
            "peak_bytes": 10**9,
            "more": told,
        }
        for factor in (1.0, 0.98, 1.02)
    ]
    return Measured(row=row, rounds=rounds, ready={"settings": "so", "versions": {}, "before_bytes": 10**8})


def as_read(report: dict[str, Any]) -> dict[str, Any]:
    """Round the images, which are whole numbers in a real run."""
    report = copy.deepcopy(report)
    for group in ("limits", "rows", "peers"):
        for row in report[group]:
            for one in row["rounds"]:
                one["images"] = round(one["images"])
    read: dict[str, Any] = json.loads(json.dumps(report))
    return read


def model_report(rates: dict[str, float]) -> dict[str, Any]:
    rows = network_rows(["alexnet-2012"], ["fp32", "bf16"], [64], [1, 2], ["towers"])
    rows += naive_rows(["alexnet-2012"], [64])
    limits = [measured(row, 0, 10**12 if row.kind == "matmul" else 10**10) for row in limit_rows(["fp32", "bf16"])]
    own = [measured(row, rates[row.name]) for row in rows if row.name in rates]
    return model_report_of([*limits, *own], copy.deepcopy(MODEL_CONDITIONS), complete=True)


RATES = {"alexnet-2012-bf16-b64": 60.0, "alexnet-2012-bf16-b64-towers2": 66.0, "naive-b64": 20.0}


def test_parts_limits_and_ratios_of_a_run() -> None:
    report = model_report(RATES)
    assert faults(as_read(report)) == []
    one, pair = report["rows"]
    assert one["step_ms"]["median"] == pytest.approx(1e3 * 64 / 60)
    assert one["parts_ms"] == pytest.approx(
        {"forward": 200, "backward": 400, "update": 100, "rest": 64e3 / 60 - 700, "communication": 50}
    )
    bound = arithmetic_bound(step_work(PAPER, 64, 2), 64, 1e12)
    assert one["share_of_limit"]["arithmetic"] == pytest.approx(60 / bound)
    assert one["share_of_limit"]["layers"] > one["share_of_limit"]["arithmetic"]
    assert pair["gpus"] == 2
    found = {r["about"]: (r["wall"]["median"], r["at_least"], r["holds"]) for r in report["ratios"]}
    assert found["alexnet-2012, bf16, batch 64 over the naive version"] == (pytest.approx(3.0), 2.5, True)
    assert found["alexnet-2012, bf16, batch 64, 2 processes (towers) over one process"] == (
        pytest.approx(1.1),
        1.0,
        True,
    )


def test_the_best_way_of_each_layer_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    (network,) = network_rows(["alexnet-2012"], ["bf16"], [64], [1], ["towers"])
    (part,) = layer_rows([network])
    ways = {"conv1": {"slow": 0.5, "fast": 0.3}, "update": {"fused": 0.1}}
    rows = [measured(network, 80.0), measured(part, 1.0, layers_s=ways)]
    report = model_report_of(rows, copy.deepcopy(MODEL_CONDITIONS), complete=True)
    assert faults(as_read(report)) == []
    (layers_of_row,) = report["layers"]
    assert layers_of_row["sum_ms"] == pytest.approx(400)
    assert list(layers_of_row["layers"][0]["ways_ms"]) == ["fast", "slow"], "the best first"
    (row,) = report["rows"]
    assert row["limits"]["best_kernels"] == pytest.approx(160)
    assert row["share_of_limit"] == {"arithmetic": None, "layers": None, "best_kernels": pytest.approx(0.5)}
    print_model(report)
    assert "conv1: fast" in capsys.readouterr().out


def test_the_page_has_a_bar_a_row_and_fetches_nothing() -> None:
    page = networks_page(model_report(RATES))
    assert page == networks_page(model_report(RATES))
    for title in ("alexnet-2012, bf16, batch 64", "naive alexnet-2012, fp32, batch 64", "matrix product, bf16"):
        assert title in page
    assert page.count('class="bar"') == 6, "three rows by two clocks"
    assert page.count('class="median"') == 2, "the naive version has no roofline of its own"
    real = networks_page(train_report(real=57.0, model=60.0, loader=1_200.0))
    assert "The stream alone" in real
    assert "the network bounds training" in real


def test_ratios_that_are_missed_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    report = model_report(RATES | {"naive-b64": 30.0, "alexnet-2012-bf16-b64-towers2": 50.0})
    lines = missed(report["ratios"])
    assert len(lines) == 2
    assert "2.00 by wall time, must be at least 2.50" in lines[0]
    print_model(report)
    assert "FAILS" in capsys.readouterr().out
    near = model_report(RATES | {"alexnet-2012-bf16-b64-towers2": 59.9})
    assert "0.9983 by wall time, must be at least 1.00" in missed(near["ratios"])[0]


def test_a_cpu_without_bf16_is_asked_for_nothing() -> None:
    conditions = copy.deepcopy(MODEL_CONDITIONS) | {"cpu_has_bf16": False}
    rows = [*network_rows(["alexnet-2012"], ["bf16"], [64], [1], ["towers"]), *naive_rows(["alexnet-2012"], [64])]
    report = model_report_of([measured(row, 20.0) for row in rows], conditions, complete=True)
    assert [r["at_least"] for r in report["ratios"]] == [None]


def train_report(real: float, model: float, loader: float, device: str = "cpu") -> dict[str, Any]:
    (network,) = network_rows(["alexnet-2012"], ["bf16"], [64], [1], ["towers"])
    options = network.options
    rows = [
        measured(Row(name="loader", title="the stream", group="limit", kind="loader", options=options), loader),
        measured(Row(name="model-1", title="made up", group="limit", kind="network", options=options), model),
        measured(
            Row(name="train-1", title="real", group="row", kind="network", options=options | {"real": True}),
            real,
            waited_s=0.1,
        ),
    ]
    return train_report_of(rows, copy.deepcopy(DATA_CONDITIONS) | {"device": device}, complete=True)


def test_on_a_cpu_decoding_takes_the_networks_cores(capsys: pytest.CaptureFixture[str]) -> None:
    report = train_report(real=57.0, model=60.0, loader=1_200.0)
    assert faults(as_read(report)) == []
    (x,) = report["explained"]
    assert x["expected"] == pytest.approx(1 / (1 / 60 + 1 / 1_200))
    assert x["real_over_made_up"] == pytest.approx(0.95)
    assert x["data_wait"] == pytest.approx(0.1)
    assert "the network bounds training at 60.0" in x["sentence"]
    assert x["sentence"].endswith(
        "Both share the cores, and decoding leaves 57.1, 4.8% less; training stays 5.0% below the bound, and what "
        "remains is less than was measured."
    )
    print_train(report)
    assert "waits for data 10%" in capsys.readouterr().out


def test_on_a_gpu_the_slower_of_the_two_is_expected() -> None:
    (x,) = train_report(real=900.0, model=2_000.0, loader=1_000.0, device="cuda")["explained"]
    assert x["expected"] == x["slower"] == 1_000
    assert "the loader bounds training" in x["sentence"]
    assert "10.0% remain for copies" in x["sentence"]


def test_what_rounds_cannot_tell_is_not_explained() -> None:
    (x,) = train_report(real=66.0, model=60.0, loader=1_200.0)["explained"]
    assert "decoding leaves 57.1, 4.8% less; training makes 15.5% more than that" in x["sentence"]


def test_training_without_its_limits_gets_no_verdict() -> None:
    report = train_report(real=57.0, model=60.0, loader=1_200.0)
    (network,) = network_rows(["alexnet-2012"], ["bf16"], [64], [1], ["towers"])
    row = Row(name="train-1", title="real", group="row", kind="network", options=network.options | {"real": True})
    alone = train_report_of([measured(row, 57.0)], report["conditions"], complete=False)
    assert alone["explained"] == []
    assert alone["verdict"].startswith("No verdict")
    assert faults(as_read(alone)) == []


def test_rows_follow_from_what_was_asked_for() -> None:
    rows = network_rows(["alexnet-2012", "alexnet-owt"], ["fp32"], [8, 16], [1, 2], ["towers", "data"])
    names = [row.name for row in rows]
    assert len(names) == len(set(names))
    assert "alexnet-2012-fp32-b8-towers2" in names
    assert "alexnet-owt-fp32-b16-data2" in names
    assert "alexnet-owt-fp32-b16-towers2" not in names, "one tower is not divided"
    assert names.count("alexnet-2012-fp32-b8") == 1
    assert naive_rows(["lenet-5"], [8]) == []
    assert [row.options["gpus"] for row in layer_rows(rows)] == [1, 1, 1, 1]


def test_options_name_what_there_is() -> None:
    assert numbers("--gpus", "1,2,2") == (1, 2)
    assert words("--precision", "bf16, fp32", ("fp32", "bf16")) == ("bf16", "fp32")
    for text, option in (("0", "--gpus 0"), ("a", "--gpus a")):
        with pytest.raises(InputError, match=option):
            numbers("--gpus", text)
    with pytest.raises(InputError, match=r"--arch alexnet-2013: must be of .*alexnet-2012"):
        words("--arch", "alexnet-2013", ("alexnet-2012", "lenet-5"))


def test_reports_of_other_shapes_are_told(tmp_path: Path) -> None:
    report = as_read(model_report(RATES))
    del report["rows"][0]["step_ms"]
    report["limits"][0]["per_s"]["median"] = "fast"
    assert faults(report) == [
        "report.limits[0].per_s.median: is str, must be float or int",
        "report.rows[0].step_ms: is missing",
    ]
    assert faults({**report, "command": "made-up"}) == [
        "report.command: is 'made-up', must be one of dataloader, model, train, prep"
    ]
    assert faults({**report, "schema": 1}) == ["report.schema: is 1, this version reads 2"]


def test_on_a_gpu_rows_of_one_process_are_captured_too() -> None:
    rows = network_rows(["alexnet-2012"], ["bf16"], [128, 512], [1, 2], ["towers"])
    captured = captured_rows(rows)
    assert [row.name for row in captured] == ["alexnet-2012-bf16-b128-graph", "alexnet-2012-bf16-b512-graph"]
    assert all(row.options["capture"] and row.options["gpus"] == 1 for row in captured)
    assert {row.name for row in rows}.isdisjoint(row.name for row in captured)
