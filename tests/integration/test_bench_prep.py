"""`alexnet-bench prep`: speed against the bound, what a second call costs, and what cannot be measured."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from alexnet.tools.bench.command import main
from alexnet.tools.bench.schema import faults
from alexnet.tools.convert.listing import Source
from alexnet.tools.samples.small_sets import write_mnist


def write_images(root: Path, images: int) -> None:
    for number in range(images):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
        file = root / f"class{number % 2}" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((400, 300)).save(file)


def test_speed_and_second_calls_beside_the_bound(tmp_path: Path) -> None:
    write_images(tmp_path / "pictures", 64)
    arguments = ["prep", str(tmp_path / "pictures"), "--images", "64", "--workers", "1,2", "--rounds", "1"]
    result = CliRunner().invoke(main, [*arguments, "--json", str(tmp_path / "prep.json")])
    assert result.exit_code == 0, result.output
    assert "beyond converting the rest" in result.output
    report = json.loads((tmp_path / "prep.json").read_text())
    assert [row["workers"] for row in report["rows"]] == [1, 2]
    assert report["conditions"]["images"] == report["conditions"]["entries"] == 64
    for row in report["rows"]:
        bound = report["bound_images_per_s_a_core"]["median"] * row["workers"]
        assert row["share_of_bound_a_core"] == pytest.approx(row["images_per_s"]["median"] / bound)
    resume = report["resume"]
    assert 0 < resume["done_shards"] < resume["shards"] == 64
    for key in ("headers_s", "index_s", "resumed_s", "complete_s"):
        assert 0 < resume[key]["min"] <= resume[key]["median"] <= resume[key]["max"]
    assert resume["resumed_s"]["median"] > resume["index_s"]["median"]
    assert 20 < report["largest_worker_mb"] < 300


def test_ctrl_c_writes_the_rounds_that_were_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "pictures", 32)
    bounds: Iterator[float | KeyboardInterrupt] = iter([100.0, KeyboardInterrupt()])

    def bound(_: Source) -> float:
        one = next(bounds)
        if isinstance(one, KeyboardInterrupt):
            raise one
        return one

    monkeypatch.setattr("alexnet.tools.bench.converter.prep._bound", bound)
    arguments = ["prep", str(tmp_path / "pictures"), "--images", "32", "--workers", "1", "--rounds", "3"]
    result = CliRunner().invoke(main, [*arguments, "--json", str(tmp_path / "prep.json")])
    assert result.exit_code == 130, result.output
    assert "interrupted: these are the rounds up to then" in result.stderr
    report = json.loads((tmp_path / "prep.json").read_text())
    assert faults(report) == []
    assert report["conditions"]["rounds"] == len(report["bound_rounds"]) == len(report["rows"][0]["rounds"]) == 1
    bounds = iter([KeyboardInterrupt()])
    nothing = CliRunner().invoke(main, arguments)
    assert nothing.exit_code == 130
    assert nothing.stderr.strip().endswith("interrupted before a round was over")


def test_figures_that_cannot_be_written_are_refused_first(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["prep", str(tmp_path), "--json", str(tmp_path / "nowhere" / "figures.json")])
    assert result.exit_code == 2
    assert "figures.json: cannot be written" in result.stderr


def test_pixels_that_need_no_decoding_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, 5, 2)
    result = CliRunner().invoke(main, ["prep", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds raw pixels (mnist)" in result.stderr


def test_neither_torch_nor_dali_is_loaded_for_the_converter() -> None:
    code = (
        "import sys\n"
        "import alexnet.tools.bench.converter.prep\n"
        "print(sorted(name for name in ('torch', 'nvidia.dali') if name in sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[]"]
