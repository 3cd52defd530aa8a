"""Runs of `alexnet-train` that tests make, and what they leave."""

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from alexnet.model.checkpoint import checkpoints
from alexnet.tools.train import main

LENET = ("--arch", "lenet-5", "--device", "cpu", "--set", "train.batch_images=4")
"""On the fixture `digits` an epoch has 6 steps of milliseconds."""


def trained(*arguments: object, code: int = 0) -> Result:
    """Train in this process; it must end with an exit code and without a traceback."""
    result = CliRunner().invoke(main, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def train(*arguments: object, code: int = 0) -> str:
    """Train in this process; return all that is printed."""
    return trained(*arguments, code=code).output


def records(out: Path, having: str = "step") -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl: all, or those of steps (`loss`) or validations (`val_loss`)."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if having in line]


def losses(out: Path) -> list[tuple[int, float]]:
    """Return what was logged of each step."""
    return [(record["step"], record["loss"]) for record in records(out, "loss")]


def result_of(out: Path) -> dict[str, Any]:
    """Return result.json."""
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return result


def newest(out: Path) -> Path:
    """Return the newest checkpoint."""
    return checkpoints(out / "checkpoints")[-1]
