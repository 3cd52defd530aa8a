"""The training loop in docs/stream.md runs as it stands, on the bundled data and a CPU, and resumes."""

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs" / "stream.md"


def example(data: Path) -> str:
    """Take the code under its heading; put this machine's data and device into it, and one short epoch."""
    section = DOCS.read_text().split("## In your own training script")[1].split("|")[0]
    code = textwrap.dedent("\n".join(line for line in section.splitlines() if line.startswith("    ") or not line))
    for pattern, replacement, count in (
        (r"/data/ilsvrc-256", str(data), 2),
        (r'device="cuda"', 'device="cpu"', 2),
        (r"\.cuda\(\)", "", 1),
        (r", 90\)", ", 1)", 1),
        (r"batch_images=256", "batch_images=20", 2),
        (r"step % 1000 == 0", "step == 2", 1),
    ):
        code, found = re.subn(pattern, replacement, code)
        assert found == count, pattern
    return code


def test_the_documented_loop_runs_and_resumes(
    ci_100: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = example(ci_100)
    names: dict[str, Any] = {"resuming": False}
    exec(compile(code, "docs/stream.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "100 images in 1 shard, 5 steps of 20 an epoch" in printed
    assert re.search(r"epoch 0: \d+\.\d% of 20\n$", printed)
    assert torch.load("run.pt", weights_only=True)["stream"]["step"] == 3
    names = {"resuming": True}
    exec(compile(code, "docs/stream.md", "exec"), names)
    assert names["step"] == 1, "the two steps that were left"
