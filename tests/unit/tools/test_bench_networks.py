"""Rows of `alexnet-bench model`, `train` and `prep`, and what is made of their figures: limits, ratios, sentences."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alexnet.model.networks.build import Network, parameter_count
from alexnet.model.networks.settings import NetSettings
from alexnet.tools.bench import gpu_steps, measure, model, prep, train
from alexnet.tools.bench.gpu_steps import WAYS
from alexnet.tools.bench.measure import Case, Measured, Timing
from alexnet.tools.bench.naive import naive_network
from alexnet.tools.bench.networks import Task, Training
from alexnet.tools.bench.report import Report, Row
from alexnet.tools.bench.rooflines import bounds, step_work
from alexnet.tools.bench.stage import CannotRunError
from alexnet.tools.bench.step_parts import summed
from tests.bench_reports import CONDITIONS, row_of, rows_of

PAPER = NetSettings(arch="alexnet-2012")
TIMING = Timing(rounds=3, seconds=1.0)
NAIVE_OVER = {"alexnet-2012-bf16-b64": 60.0, "alexnet-2012-bf16-b64-towers2": 66.0, "naive-b64": 20.0}
MACHINE = {"matmul-fp32": 4e11, "matmul-bf16": 1e12, "copy": 1e10}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Stand for the measuring: rows have the rates that are put in here, and who has none was not measured."""
    rates = dict(MACHINE)

    def measure_rows(cases: Sequence[Case], *_: object) -> Measured:
        return Measured(tuple(rows_of(cases, rates).values()), (), True)

    monkeypatch.setattr(measure, "measure_rows", measure_rows)
    monkeypatch.setattr(measure, "conditions_before", lambda *_: CONDITIONS)
    return rates


def model_report(monkeypatch: pytest.MonkeyPatch, *, bf16: bool = True, **asked: Any) -> Report:
    monkeypatch.setattr(model, "cpu_has_bf16", lambda: bf16)
    asked = {"archs": ("alexnet-2012",), "device": "cpu", "threads": 2, **asked}
    return model.measure_model(print, timing=TIMING, **asked)


def test_naive_is_the_same_network() -> None:
    torch.manual_seed(0)
    ours = Network(NetSettings(arch="alexnet-2012", classes=10, dropout=0.0))
    naive = naive_network(10, dropout=0.0)
    layers_of_naive = [module for module in naive if isinstance(module, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for theirs, towers in zip(layers_of_naive, ours.weighted().values(), strict=True):
            for name in ("weight", "bias"):
                getattr(theirs, name).copy_(torch.cat([getattr(tower, name) for tower in towers]))
        images = torch.randn(2, 3, 224, 224) * 50
        torch.testing.assert_close(naive(images), ours(images), rtol=1e-4, atol=1e-4)
    with torch.device("meta"):
        assert parameter_count(naive_network(1000)) == 60_965_224


def test_a_step_has_the_operations_known_from_the_literature() -> None:
    work = step_work(PAPER, batch_images=1, value_bytes=4)
    assert sum(layer.flop for layer in work) == pytest.approx(4.136e9, rel=1e-3)
    by_name = {layer.name: layer for layer in work}
    assert by_name["conv1"].flop == 4 * 105_415_200  # no gradient of the image
    assert by_name["conv2"].flop == 6 * 223_948_800
    assert by_name["update"].bytes == 20 * 60_965_224
    conv4 = 6 * 384 * 13 * 13  # input and output, three times each: forward, and in both products of backward
    assert by_name["conv4"].bytes == 4 * (conv4 + 3 * 663_936)


def test_rooflines_are_limits_of_one_machine() -> None:
    work = step_work(PAPER, batch_images=64, value_bytes=2)
    both = bounds(work, 64, 1e12, 1e10)
    assert both["arithmetic"] == pytest.approx(1e12 / 4.136e9, rel=1e-3)
    assert both["layers"] < both["arithmetic"] == pytest.approx(bounds(work, 64, 1e12, math.inf)["layers"])
    assert bounds(work, 64, math.inf, 1e10)["layers"] == pytest.approx(64e10 / sum(layer.bytes for layer in work))


def test_a_network_stands_beside_rooflines_naive_version_and_one_process(
    monkeypatch: pytest.MonkeyPatch, measured: dict[str, float]
) -> None:
    measured |= NAIVE_OVER
    report = model_report(monkeypatch)
    rows, ratios = report.named(), {ratio.about: ratio for ratio in report.ratios}
    assert [row.group for row in report.rows] == ["limit", "limit", "limit", "row", "row", "baseline"]
    allowed = bounds(step_work(PAPER, 64, 2), 64, 1e12, 1e10)
    shares = rows["alexnet-2012-bf16-b64"].shares
    assert shares["arithmetic"]["wall"] == shares["arithmetic"]["cpu"] == pytest.approx(60 / allowed["arithmetic"])
    assert shares["layers"]["wall"] == pytest.approx(60 / allowed["layers"])
    over_naive = ratios["alexnet-2012, bf16, batch 64 over the naive version"]
    assert over_naive.wall.median == pytest.approx(3.0)
    assert (over_naive.at_least, over_naive.holds) == (2.5, True)
    over_one = ratios["alexnet-2012, bf16, batch 64, 2 processes (towers) over one process"]
    assert over_one.wall.median == pytest.approx(1.1)
    assert (over_one.at_least, over_one.holds) == (1.0, True)
    assert report.verdict.startswith("The fastest is alexnet-2012, bf16, batch 64, 2 processes (towers): 66.0 images/s")
    measured |= {"naive-b64": 30.0, "alexnet-2012-bf16-b64-towers2": 59.9}
    assert [line.partition(": ")[2] for line in model_report(monkeypatch).failed()] == [
        "2.00 by wall time, at least 2.50: FAILS",
        "0.9983 by wall time, at least 1.00: FAILS",
    ]


def test_a_cpu_without_bf16_is_asked_for_nothing_in_it(
    monkeypatch: pytest.MonkeyPatch, measured: dict[str, float]
) -> None:
    nothing = model_report(monkeypatch, bf16=False)
    assert nothing.verdict == "No verdict: no network was measured."
    measured |= NAIVE_OVER
    report = model_report(monkeypatch, bf16=False, precisions=("bf16",))
    assert [ratio.at_least for ratio in report.ratios] == [None, None, None]


def test_rows_follow_from_what_was_asked_for(monkeypatch: pytest.MonkeyPatch, measured: dict[str, float]) -> None:
    tasks = model.tasks_of(["alexnet-2012", "alexnet-owt"], ["fp32"], [8, 16], [1, 2], ["towers", "data"])
    names = [task.name for task in tasks]
    assert len(names) == len(set(names))
    assert {"alexnet-2012-fp32-b8-towers2", "alexnet-owt-fp32-b16-data2"} < set(names)
    assert "alexnet-owt-fp32-b16-towers2" not in names, "one tower is not divided"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    ways = [f"alexnet-owt-bf16-b8-{way}" for way in WAYS]
    fp32 = ["alexnet-owt-fp32-b8", "alexnet-owt-fp32-b8-data2"]
    bf16 = ["alexnet-owt-bf16-b8", "alexnet-owt-bf16-b8-data2", *ways]
    kernels = [f"alexnet-owt-{of}-kernels" for of in ("fp32-b8", "bf16-b8", "bf16-b8-layers")]
    measured |= dict.fromkeys((*fp32, *bf16, *kernels, "naive-b8"), 1.0)
    asked = {"archs": ("alexnet-owt",), "precisions": ("fp32", "bf16"), "batches": (8,), "gpus": (1, 2)}
    report = model.measure_model(print, timing=TIMING, **asked)  # type: ignore[arg-type]
    names = [row.name for row in report.rows]
    assert names == ["matmul-fp32", "matmul-bf16", "copy", *fp32, *bf16[:2], *kernels, *ways]
    assert {row.group for row in report.rows if row.name in kernels} == {"part"}
    over = [ratio for ratio in report.ratios if ratio.row == "alexnet-owt-bf16-b8"]
    assert [ratio.over for ratio in over] == ways, "what each way is worth"


@pytest.mark.parametrize("way", WAYS)
def test_a_step_is_taken_in_the_way_that_its_row_says(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    how: dict[str, Any] = {"graph": False}

    class Fused:
        def __init__(self, *_: object, **options: bool) -> None:
            how.update(options)

        def capture(self, *_: Tensor) -> None:
            how["graph"] = True

        def __call__(self, images: Tensor, labels: Tensor, rate: float) -> None:
            clocks.append(trained.trainer.net.clock.now.tolist())

    clocks: list[list[int]] = []
    monkeypatch.setattr(gpu_steps, "FusedStep", Fused)
    task = Task(arch="lenet-5", precision="fp32", batch_images=2, way=way)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    trained = Training(task)
    trained.steps(2)
    by_layer = {"layers": True, "layers-untried": False}
    assert torch.backends.cudnn.benchmark == by_layer.get(way, True)
    assert trained.trainer.settings.capture == (way not in by_layer)
    assert (
        how
        == {
            "layers": {"graph": False},
            "layers-untried": {"graph": False},
            "layers-graph": {"graph": True, "fused": False, "blocks": True},
            "launches": {"graph": False, "fused": True, "blocks": True},
            "pixels": {"graph": True, "fused": True, "blocks": False},
        }[way]
    )
    assert len(clocks) == (0 if way in by_layer else 2)
    assert len(set(map(str, clocks))) == len(clocks), "each step drops units of its own"


def test_a_row_is_not_of_a_step_that_the_trainer_fell_back_to(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Training(Task(arch="lenet-5", precision="fp32", batch_images=2))
    assert run.taken_as() == "layer by layer"
    run.trainer.steps_taken = "layer by layer, as the fused step failed (no compiler)"
    monkeypatch.setattr(type(run.trainer), "wants_fused", True)
    with pytest.raises(CannotRunError, match="no compiler"):
        run.taken_as()


def test_a_profile_is_summed_by_step() -> None:
    rows = [
        SimpleNamespace(key="sgd", count=10, self_device_time_total=500.0),
        SimpleNamespace(key="convolution" + "<256>" * 20, count=40, self_device_time_total=12_000.0),
    ]
    figures, words = summed(rows, 10)
    assert figures == {"kernels": 5.0, "kernels ms": 1.25}
    assert words == f"us a step: 1200.0 {rows[1].key[:60]}; 50.0 sgd"


def training(device: str = "cpu", **rates: float) -> list[Row]:
    """Return training, loader and network, of which training waits a tenth of the time."""
    task = Task(arch="alexnet-2012", precision="bf16", batch_images=64, device=device, threads=2)
    rows = [row_of(model.case_of(task, name, name), rate) for name, rate in rates.items()]
    return [replace(rows[0], figures={"waits for data %": 10.0}), *rows[1:]]


@pytest.mark.parametrize(
    ("device", "rates", "words"),
    [
        ("cpu", (57.0, 1_200.0, 60.0), (
            "1 process, real data make 57.0 images/s by wall time, 95% of synthetic batches",
            "so the network bounds training at 60.0, and training waits for data 10% of the time",
            "decoding leaves 57.1, 4.8% less; training stays 5.0% below the bound, and what remains is less than",
        )),
        ("cpu", (66.0, 1_200.0, 60.0), ("decoding leaves 57.1, 4.8% less; training makes 15.5% more than that",)),
        ("cuda", (900.0, 1_000.0, 2_000.0), ("the loader bounds training", "10.0% remain for copies")),
    ],
)  # fmt: skip
def test_training_is_explained_by_loader_and_network(
    device: str, rates: tuple[float, ...], words: tuple[str, ...]
) -> None:
    said = train.explain(*training(device, **dict(zip(("train", "loader", "model"), rates, strict=True))))
    assert all(word in said for word in words), said


def test_training_without_its_limits_gets_no_verdict(measured: dict[str, float], ci_100: Path) -> None:
    measured |= {"loader": 900.0, "model-1": 60.0, "model-2": 66.0}
    report = train.measure_train(
        print, data=ci_100, why="given", batch_images=8, scaling=(1, 2), device="cpu", timing=TIMING
    )
    assert [row.name for row in report.rows] == ["loader", "model-1", "model-2"]
    assert (report.ratios, report.verdict) == ((), "No verdict: loader, network or training is missing.")


def test_the_converter_is_held_against_one_cores_bound(measured: dict[str, float], official: Path) -> None:
    measured |= {"bound": 600.0, "workers-1": 570.0, "workers-2": 1_140.0}
    report = prep.measure_prep(print, source=official, images=8, workers=(1, 2), timing=TIMING)
    assert [row.shares.get("the bound, a core", {}).get("wall") for row in report.rows] == [None, 0.95, 0.95]
    (ratio,) = report.ratios
    assert ratio.wall.median == pytest.approx(0.95)
    assert (ratio.at_least, ratio.holds) == (0.9, True)
    assert report.verdict == (
        "alexnet-prep shard, 1 worker makes 570 images/s, 95% of the bound a core; 2 workers 2.00 times that."
    )
