"""The commands as a user types them: what they print, where they stop, and what they never load."""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from alexnet import __version__
from alexnet.shards.manifest import read_manifest
from alexnet.tools.bench import main as bench
from alexnet.tools.model import main as model
from alexnet.tools.prep import main as prep
from alexnet.tools.train import main as train

COMMANDS = {"alexnet-prep": prep, "alexnet-train": train, "alexnet-bench": bench, "alexnet-model": model}

USES = ("show", "evaluate", "predict", "export", "report")


def mistake(result: Result) -> str:
    """Assert that a command ended as a user's mistake must, and return its line."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_version(name: str) -> None:
    runner = CliRunner()
    assert runner.invoke(COMMANDS[name], ["--version"]).output == f"{name}, version {__version__}\n"
    text = runner.invoke(COMMANDS[name], ["--help"]).output
    assert "Usage:" in text
    lines = text.split("Options:")[0].splitlines()[1:]
    assert [line for line in lines if line.strip().startswith("alexnet-")], "help shows lines to type, each on its own"


LIGHT = """
import sys
from click.testing import CliRunner
from alexnet.tools.{module} import main
for arguments in {calls!r}:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
heavy = {{"torch", "nvidia.dali"}} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    ("module", "calls"),
    [
        ("train", [["--help"], ["--version"]]),
        ("bench", [["--help"], ["--version"], ["dataloader", "--help"]]),
        ("prep", [["--help"], ["--version"], ["shard", "--help"]]),
        ("model", [["--help"], *([name, "--help"] for name in USES), ["show", "alexnet-2012"]]),
    ],
)
def test_help_loads_neither_torch_nor_dali(module: str, calls: list[list[str]]) -> None:
    subprocess.run([sys.executable, "-c", LIGHT.format(module=module, calls=calls)], check=True)


def test_prep_loads_neither_torch_nor_dali_while_it_works(official: Path, tmp_path: Path) -> None:
    calls = [["shard", str(official), "--out", str(tmp_path / "set"), "--size", "40", "--workers", "1"]]
    script = tmp_path / "script.py"  # which the workers import
    work = textwrap.indent(LIGHT.format(module="prep", calls=calls), "    ")
    script.write_text(f"if __name__ == '__main__':\n{work}")
    subprocess.run([sys.executable, script], check=True)
    assert read_manifest(tmp_path / "set").counts["train"].written == 24


def test_prep_prints_what_became_of_every_entry(official: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(official, tmp_path / "ilsvrc"))
    arguments = ["shard", str(source), "--size", "40", "--workers", "1"]
    first = CliRunner().invoke(prep, arguments)
    assert first.exit_code == 0, first.output
    assert "train: 27 in = 24 written + 3 rejected" in first.output
    assert "val: 7 in = 7 written + 0 rejected" in first.output
    assert (tmp_path / "ilsvrc-40" / "manifest.json").exists(), "--out defaults to SOURCE's name and the size"
    again = CliRunner().invoke(prep, [*arguments, "--md5"])
    assert again.exit_code == 0
    assert "ILSVRC2012_img_val.tar: md5" in again.output
    assert "published 29b22e2961454d5413ddabcf34fc5622" in again.output
    assert "already complete" in again.output


def test_prep_mistakes(official: Path, data_set: Path, tmp_path: Path) -> None:
    def shard(*arguments: object) -> str:
        return mistake(CliRunner().invoke(prep, ["shard", *map(str, arguments)]))

    assert "there is no such folder" in shard(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no known layout" in shard(tmp_path / "empty")
    assert "another data set" in shard(official, "--out", data_set)
    assert "size_px=1: must be between" in shard(official, "--out", tmp_path / "x", "--size", 1)
    assert not (tmp_path / "x").exists()


def test_train_mistakes(ci_100: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> str:
        out = tmp_path / "run"
        line = mistake(CliRunner().invoke(train, [*map(str, arguments), "--out", str(out), "--device", "cpu"]))
        assert not out.exists(), "a refused run leaves nothing behind"
        return line

    assert "there is no such folder" in run(tmp_path / "nowhere")
    assert "--gpus 3" in run("--recipe", "small", "--gpus", 3)
    assert "batch_images=101: the data set has only 100" in run("--recipe", "small", "--set", "train.batch_images=101")
    assert "did you mean optim.lr?" in run("--set", "optim.rate=1")
    assert "holds no run" in run("--resume", "--recipe", "small")
    newer = Path(shutil.copytree(ci_100, tmp_path / "newer"))
    fields = json.loads((newer / "manifest.json").read_text())
    (newer / "manifest.json").write_text(json.dumps({**fields, "schema": 2}))
    assert "upgrade alexnet" in run(newer)
    cut = Path(shutil.copytree(ci_100, tmp_path / "cut"))
    tar = cut / "train" / "000000.tar"
    tar.write_bytes(tar.read_bytes()[:-1])
    assert "bytes where the manifest says" in run(cut)


def test_bench_mistakes(tmp_path: Path) -> None:
    def run(*arguments: object) -> str:
        return mistake(CliRunner().invoke(bench, ["dataloader", "--quick", *map(str, arguments)]))

    assert "no such folder" in run(tmp_path / "nowhere")
    assert "cannot be written" in run("--json", tmp_path / "nowhere" / "bench.json")
    if not torch.cuda.is_available():
        assert "--device cuda: this machine has no GPU" in run("--device", "cuda")


def test_data_come_from_the_environment(ci_100: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path / "from-environment"))
    assert "from-environment" in mistake(CliRunner().invoke(bench, ["dataloader"]))
