"""`alexnet-bench model`, `train` and `prep` as a user types them: small networks, few steps, and what goes wrong."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from alexnet.tools.bench.command import main
from alexnet.tools.bench.measure import Timing, measure_rows
from alexnet.tools.bench.model import case_of
from alexnet.tools.bench.naive import naive
from alexnet.tools.bench.networks import Task
from alexnet.tools.bench.report import read_report

QUICK = ["--device", "cpu", "--threads", "1", "--rounds", "1", "--seconds", "0.05"]
LENET = ["--arch", "lenet-5", "--precision", "fp32", "--batch", "16"]


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_a_small_network_beside_its_limits(tmp_path: Path) -> None:
    result = bench("model", *LENET, *QUICK, "--json", str(tmp_path / "model.json"))
    assert result.exit_code == 0, result.output
    report = read_report(tmp_path / "model.json")
    assert report.complete
    assert report.missing == ()
    assert [row.name for row in report.rows] == ["matmul-fp32", "copy", "lenet-5-fp32-b16"]
    network = report.rows[2]
    assert len(network.rounds) == 1
    assert set(network.figures) == {"step ms", "forward ms", "backward ms", "update ms"}
    step_ms, *parts = network.figures.values()
    assert all(part > 0 for part in parts)
    assert sum(parts) < 1.5 * step_ms
    assert 0 < network.shares["arithmetic"]["wall"] < network.shares["layers"]["wall"]
    assert "arithmetic and memory allow layer by layer" in result.output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "parallel", "batch"), [("lenet-5", "data", 16), ("alexnet-2012", "towers", 2), ("alexnet-2012", "owt", 2)]
)
def test_two_processes_train_together(arch: str, parallel: str, batch: int) -> None:
    task = Task(arch=arch, precision="fp32", batch_images=batch, gpus=2, parallel=parallel, threads=2)  # type: ignore[arg-type]
    (row,), missing, _ = measure_rows([case_of(task, "pair", "pair")], Timing(1, 0.05), lambda _: None)
    assert missing == ()
    assert row.rounds[0].amount % batch == 0
    assert row.figures["communication ms"] > 0
    assert row.figures["backward ms"] > 0


@pytest.mark.slow
def test_the_naive_network_takes_steps_beside_one_that_cannot_be_built(ci_100: Path) -> None:
    wrong = Task(arch="lenet-5", precision="fp32", batch_images=16, data=str(ci_100))
    task = Task(arch="alexnet-2012", precision="fp32", batch_images=2)
    cases = [case_of(wrong, "w", "w"), case_of(task, "naive", "naive", "baseline", make=naive)]
    rows, missing, _ = measure_rows(cases, Timing(1, 0.05), lambda _: None)
    assert "takes images stored at 28 or 32" in missing[0].why
    assert [row.name for row in rows] == ["naive"]


@pytest.mark.parametrize("scaling", ["1", pytest.param("1,2", marks=pytest.mark.slow)])
def test_training_beside_loader_and_synthetic_batches(digits: Path, tmp_path: Path, scaling: str) -> None:
    options = ["--arch", "lenet-5", "--batch", "2", "--parallel", "data", "--scaling", scaling]
    result = bench("train", str(digits), *options, *QUICK, "--json", str(tmp_path / "train.json"))
    assert result.exit_code == 0, result.output
    report = read_report(tmp_path / "train.json")
    assert report.missing == ()
    counts = scaling.split(",")
    assert set(report.named()) == {"loader", *(f"{kind}-{n}" for kind in ("model", "train") for n in counts)}
    assert all(0 <= row.figures["waits for data %"] <= 100 for row in report.rows if row.name.startswith("train"))
    assert "bounds training at" in report.verdict
    assert ("1 to 2 processes" in {ratio.about for ratio in report.ratios}) == (scaling == "1,2")
    assert "do not quote" not in result.output, "24 images are more than eight batches of two"


def test_the_converter_beside_its_bound(tmp_path: Path) -> None:
    for number in range(32):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
        folder = tmp_path / "images" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((400, 300)).save(folder / f"{number}.jpg")
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    options = ["--images", "33", "--workers", "1,2", "--rounds", "1", "--seconds", "0.1"]
    result = bench("prep", str(tmp_path / "images"), *options, "--json", str(tmp_path / "prep.json"))
    assert result.exit_code == 0, result.output
    report = read_report(tmp_path / "prep.json")
    assert [row.name for row in report.rows] == ["bound", "workers-1", "workers-2"]
    assert report.rows[0].settings == "32 images from memory"
    assert all(row.rounds[0].amount > 0 for row in report.rows)
