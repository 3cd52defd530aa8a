"""Folders whose names are no UTF-8 or break lines, as old archives and Windows shares leave them: all commands work."""

import json
import os
import shutil
from pathlib import Path

from click.testing import CliRunner

from alexnet.tools.bench import main as bench
from alexnet.tools.convert.build import build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source
from alexnet.tools.model import main as model
from alexnet.tools.prep import main as prep
from alexnet.tools.train import main as train

NAME = "m\udcfcnchen, two\nlines, red\x1b[31m"


def run(program: object, *arguments: object) -> str:
    result = CliRunner().invoke(program, list(map(os.fsdecode, map(str, arguments))))  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    assert "Traceback" not in result.output
    assert "\x1b[31m" not in result.output
    return result.output


def test_a_data_set_and_a_run_of_such_a_name_go_through_every_command(official: Path, tmp_path: Path) -> None:
    folder = tmp_path / NAME
    data, out = folder / "set", folder / "run"
    build(open_source(official), data, ConvertSettings(size_px=28, shard_images=10, seed=7))
    run(prep, "verify", data)
    run(prep, "show", data, "--out", folder / "page.html")
    lenet = (data, "--arch", "lenet-5", "--device", "cpu", "--set", "train.batch_images=4", "--out", out)
    printed = run(train, *lenet, "--steps", 3, "--tensorboard")
    assert len([line for line in printed.splitlines() if line.startswith(("data: ", "run folder: "))]) == 2
    assert json.loads((out / "result.json").read_text())["steps"] == 3
    run(train, *lenet, "--dry-run")
    run(model, "evaluate", out, data)
    run(model, "report", out)
    run(model, "export", out, "--to", "safetensors", "--out", folder / "weights.safetensors")
    again = (data, "--arch", "lenet-5", "--device", "cpu", "--steps", 1, "--set", "train.batch_images=4")
    run(train, *again, "--init", folder / "weights.safetensors", "--out", folder / "second")
    shutil.rmtree(out / "checkpoints")
    run(bench, "dataloader", data, "--quick", "--seconds", 0.05, "--rows", "stream-uint8")
