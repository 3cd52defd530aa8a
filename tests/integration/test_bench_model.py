"""`alexnet-bench model` and `train` as a user types them: small networks, few steps, and what goes wrong."""

import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from alexnet.tools.bench.command import main
from alexnet.tools.bench.measuring.rounds import Measured, Timing, measure_rows
from alexnet.tools.bench.measuring.row import Row
from alexnet.tools.bench.measuring.stages_seam import AnySettings, CannotRunError, NetStageSettings
from alexnet.tools.bench.networks import model as model_bench
from alexnet.tools.bench.networks import train as train_bench
from alexnet.tools.bench.networks.net_stages import make_stage
from alexnet.tools.bench.schema import faults
from alexnet.tools.prep import main as prep

QUICK = ["--device", "cpu", "--rounds", "2", "--seconds", "0.1"]
LENET = ["--arch", "lenet-5", "--precision", "fp32", "--batch", "16"]


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def report_in(file: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(file.read_text())
    assert faults(report) == []
    return report


def test_a_small_network_beside_its_limits(tmp_path: Path) -> None:
    json_file = tmp_path / "model.json"
    html_file = tmp_path / "model.html"
    result = bench("model", *LENET, *QUICK, "--json", str(json_file), "--html", str(html_file))
    assert result.exit_code == 0, result.output
    assert html_file.read_text().startswith("<!doctype html>")
    report = report_in(json_file)
    assert report["complete"]
    assert report["missing"] == []
    (row,) = report["rows"]
    assert len(row["rounds"]) == 2
    parts = row["parts_ms"]
    assert parts["communication"] is None
    assert all(parts[name] > 0 for name in ("forward", "backward", "update"))
    assert sum(parts[name] for name in ("forward", "backward", "update")) < 1.5 * row["step_ms"]["max"]
    assert {limit["name"] for limit in report["limits"]} == {"matmul-fp32", "copy"}
    assert 0 < row["share_of_limit"]["arithmetic"] < row["share_of_limit"]["layers"]
    assert "arithmetic and memory allow layer by layer" in result.output
    same = bench("diff", str(json_file), str(json_file))
    assert same.exit_code == 2, "two rounds show nothing"
    assert "has no row with 3 rounds" in same.stderr


@pytest.mark.slow
def test_two_processes_train_together() -> None:
    only = measure_one(Row(name="pair", title="pair", group="row", kind="network", options=LENET_OPTIONS | {"gpus": 2}))
    assert only["images"] == 16 * only["amount"]
    assert only["more"]["communication_s"] > 0
    assert only["more"]["parts_s"]["backward"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["towers", "owt"])
def test_two_towers_train_together(parallel: str) -> None:
    options = PAPER_OPTIONS | {"gpus": 2, "parallel": parallel}
    only = measure_one(Row(name="pair", title="pair", group="row", kind="network", options=options))
    assert only["images"] == 2 * only["amount"]
    assert (only["more"]["communication_s"] is None) == (parallel == "owt")


@pytest.mark.slow
def test_the_naive_network_takes_steps() -> None:
    only = measure_one(Row(name="naive", title="naive", group="peer", kind="naive", options=PAPER_OPTIONS))
    assert only["images"] == 2 * only["amount"] > 0


def measure_one(row: Row) -> dict[str, Any]:
    settings = NetStageSettings(device="cpu", threads=2)
    ((one,), complete) = measure_rows([row], settings, Timing(rounds=1, seconds=0.05), lambda _: None)
    assert complete
    assert one.why == ""
    (only,) = one.rounds
    return only


PAPER_OPTIONS = {
    "arch": "alexnet-2012", "precision": "fp32", "batch_images": 2, "gpus": 1, "parallel": "towers", "classes": 10,
    "px": 224,
}  # fmt: skip
LENET_OPTIONS = PAPER_OPTIONS | {"arch": "lenet-5", "px": 28, "parallel": "data", "batch_images": 16}


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw a set of 32 px, for the networks of its day."""
    folder = tmp_path_factory.mktemp("bench") / "drawn-32"
    options = ["--classes", "10", "--images", "120", "--val-images", "10", "--size", "32", "--workers", "1"]
    result = CliRunner().invoke(prep, ["synth", str(folder), *options])
    assert result.exit_code == 0, result.output
    return folder


def test_training_beside_loader_and_made_up_batches(tmp_path: Path, small_set: Path) -> None:
    json_file = tmp_path / "train.json"
    options = ["--arch", "cuda-convnet-cifar", "--precision", "fp32", "--batch", "8"]
    result = bench("train", str(small_set), *options, *QUICK, "--json", str(json_file))
    assert result.exit_code == 0, result.output
    report = report_in(json_file)
    assert report["missing"] == []
    assert [row["name"] for row in report["limits"]] == ["loader", "model-1"]
    (row,) = report["rows"]
    assert row["real"] is True
    assert 0 <= row["data_wait"] < 1
    (explained,) = report["explained"]
    assert min(explained["loader"], explained["model"], explained["train"]) > 0
    assert explained["expected"] < explained["slower"] == min(explained["loader"], explained["model"])
    assert report["conditions"]["images"] == 120
    assert "bounds training at" in report["verdict"]
    assert "do not quote" not in result.output, "a hundred and twenty images are more than eight batches of eight"


@pytest.mark.slow
def test_scaling_to_two_processes(tmp_path: Path, small_set: Path) -> None:
    json_file = tmp_path / "train.json"
    options = ["--arch", "cuda-convnet-cifar", "--parallel", "data", "--batch", "8", "--scaling", "1,2"]
    result = bench("train", str(small_set), *options, *QUICK, "--json", str(json_file))
    assert result.exit_code == 0, result.output
    report = report_in(json_file)
    assert [row["gpus"] for row in report["rows"]] == [1, 2]
    assert "1 to 2 processes" in {r["about"] for r in report["ratios"]}


@pytest.mark.parametrize(
    ("command", "module"),
    [("model", model_bench), pytest.param("train", train_bench, marks=pytest.mark.slow)],
)
def test_ctrl_c_writes_partial_results(
    command: str, module: Any, tmp_path: Path, ci_100: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(rows: list[Row], settings: AnySettings, timing: Timing, say: object) -> tuple[list[Measured], bool]:
        def say_once(text: str) -> None:
            if text.startswith("round 2"):
                signal.raise_signal(signal.SIGINT)

        cheap = [row for row in rows if row.kind in ("copy", "loader")]
        return measure_rows(cheap, settings, timing, say_once)

    assert threading.current_thread() is threading.main_thread()
    monkeypatch.setattr(module, "measure_rows", interrupted)
    json_file = tmp_path / "partial.json"
    data = [str(ci_100), "--recipe", "small", "--batch", "4"] if command == "train" else LENET
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    try:
        result = bench(command, *data, *QUICK, "--json", str(json_file))
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)  # a command that was told to stop stays deaf as it leaves; this one does not
    assert result.exit_code == 130, result.output
    report = report_in(json_file)
    assert report["complete"] is False
    assert len(report["limits"][0]["rounds"]) == 1
    assert "interrupted: these are the rounds up to then" in result.output


@pytest.mark.slow
def test_a_network_that_cannot_be_built_says_why_and_the_rest_goes_on() -> None:
    wrong = LENET_OPTIONS | {"classes": 0}
    rows = [
        Row(name="wrong", title="wrong", group="row", kind="network", options=wrong),
        Row(name="copy", title="copy", group="limit", kind="copy"),
    ]
    settings = NetStageSettings(device="cpu", threads=1)
    (first, second), complete = measure_rows(rows, settings, Timing(rounds=1, seconds=0.05), lambda _: None)
    assert complete
    assert "net.classes=0: must be at least 1" in first.why
    assert len(second.rounds) == 1


def test_rows_of_a_gpu_say_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(CannotRunError, match="this machine has no GPU that PyTorch can use"):
        make_stage("copy", {}, NetStageSettings(device="cuda", threads=1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model", "--arch", "alexnet-2013"], "--arch alexnet-2013: must be of"),
        (["model", "--gpus", "none"], "--gpus none: must be numbers"),
        (["model", "--gpus", "3", "--device", "cpu"], "--gpus 3: must be 1 or a multiple of 2"),
        (["model", "--batch", "1", "--gpus", "2", "--device", "cpu"], "--batch 1: must be at least 2"),
        (["model", "--device", "cuda"], "this machine has no GPU that PyTorch can use"),
        (["model", "--json", "/no/such/folder/x.json"], "--json /no/such/folder/x.json: cannot be written"),
        (["train", "--batch", "1000", "--device", "cpu"], "--batch 1000: must be at most 100"),
        (["train", "--arch", "lenet-5", "--device", "cpu"], "takes images stored at 28 or 32"),
        (["train", "--scaling", "0"], "--scaling 0: every number must be at least 1"),
        (["train", "/no/such/data"], "/no/such/data"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: str, ci_100: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_DATA", str(ci_100))
    if "cuda" in arguments:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = bench(*arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output
