"""A run whose newest checkpoint was damaged, in many ways, goes on from the one before: the same run, to the bit."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from alexnet.tools.train import main as train
from tests.conftest import digests
from tests.unit.model.test_checkpoint_damage import DAMAGES, NEWEST

RUN = ("--arch", "lenet-5", "--device", "cpu", "--set", "train.batch_images=10", "--steps", "6", "--keep", "3")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("whole") / "run"
    run(digits, out)
    return out


def run(data: Path, out: Path) -> Result:
    arguments = (data, *RUN, "--checkpoint-every", 2, "--out", out)
    result = CliRunner().invoke(train, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def outcome(out: Path) -> dict[str, Any]:
    """Return checkpoints and measurements, without what depends on the machine's mood."""
    told = ("step", "epoch", "loss", "lr", "grad_norm", "val_loss", "val_top1", "val_top5", "val_images")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {**digests(out / "checkpoints"), "lines": [{k: line[k] for k in told if k in line} for line in lines]}


@pytest.mark.slow
@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_run_goes_on(digits: Path, whole: Path, tmp_path: Path, what: str) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "result.json").unlink()
    DAMAGES[what](out / "checkpoints" / NEWEST)
    resumed = run(digits, out)
    passed = resumed.stderr.splitlines()
    assert [line.startswith("checkpoint passed over: ") and NEWEST in line for line in passed] == [True], passed
    assert "continued from step 4" in resumed.output
    assert outcome(out) == outcome(whole)
