"""A run folder is one run's: a second one ends at once, in one line, and takes nothing from the first."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from alexnet.model.trainer import Trainer
from alexnet.tools.convert.build import build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source
from alexnet.tools.output_folder import locked
from alexnet.tools.train import main as train
from tests.conftest import digests

LENET = ("--arch", "lenet-5", "--device", "cpu", "--set", "train.batch_images=4", "--steps", "4")
REFUSED = "another alexnet-train is writing there; wait for it, or give another --out\n"


@pytest.fixture(scope="module")
def tiny(official: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training images and 7 for validation, of 3 classes and 28 px."""
    root = tmp_path_factory.mktemp("tiny") / "set"
    build(open_source(official), root, ConvertSettings(size_px=28, shard_images=30, seed=7))
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(train, list(map(str, arguments)), catch_exceptions=False)


def test_a_second_run_is_refused_and_the_first_does_not_notice(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it asks for, and under whatever name of the folder."""
    out, link = tmp_path / "run", tmp_path / "link"
    link.symlink_to(out)
    update = Trainer.train_step

    def meanwhile(self: Trainer, *batch: Any) -> Any:
        if self.step == 2:
            before = digests(out)
            for name in (out, link):
                for more in ((), ("--overwrite",), ("--resume",), ("--seed", 5, "--overwrite")):
                    second = run(tiny, *LENET, "--out", name, *more)
                    assert (second.exit_code, second.stderr) == (2, f"Error: {name}: {REFUSED}")
            assert digests(out) == before
        return update(self, *batch)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", meanwhile)
        assert run(tiny, *LENET, "--out", out).exit_code == 0
    assert run(tiny, *LENET, "--out", tmp_path / "alone").exit_code == 0
    checkpoint = "checkpoints/step-000000004/tensors.safetensors"
    assert (out / checkpoint).read_bytes() == (tmp_path / "alone" / checkpoint).read_bytes()
    assert run(tiny, *LENET, "--out", out, "--overwrite").exit_code == 0, "it is free again"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--resume",), "holds no run"),
        (("--resume", "--overwrite"), "give one of them"),
        (("--init", "nowhere.pth"), "--init nowhere.pth"),
        (("--out", "/proc/run"), "/proc/run"),
    ],
)
def test_a_refused_run_leaves_no_folder(tiny: Path, tmp_path: Path, more: tuple[str, ...], words: str) -> None:
    refused = run(tiny, *LENET, "--out", tmp_path / "run", *more)
    assert refused.exit_code == 2
    assert words in refused.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [".", "set", "set/train"])
def test_a_folder_of_data_is_no_run_folder(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tiny.parent)
    before = digests(tiny.parent)
    for more in ((), ("--overwrite",)):
        refused = run(tiny, *LENET, "--out", name, *more)
        assert (refused.exit_code, "is no run folder" in refused.stderr) == (2, True), refused.output
    assert digests(tiny.parent) == before


@pytest.mark.slow
def test_of_several_processes_none_waits_for_the_first_that_is_refused(tiny: Path, tmp_path: Path) -> None:
    """Started by the command itself, and as torchrun starts them."""
    out = tmp_path / "run"
    command = [sys.executable, "-c", "from alexnet.tools.train import main; main()", str(tiny), *LENET]
    command += ["--out", str(out), "--parallel", "data"]
    with locked(out, "alexnet-train"):
        whole = subprocess.run([*command, "--gpus", "2"], capture_output=True, text=True, timeout=120, check=False)
        assert (whole.returncode, whole.stderr) == (2, f"Error: {out}: {REFUSED}")
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
        told |= {"WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
        pair = [
            subprocess.Popen(command, env={**os.environ, **told, "RANK": rank}, stderr=subprocess.PIPE, text=True)
            for rank in ("0", "1")
        ]
        for process in pair:
            assert (process.communicate(timeout=120)[1], process.returncode) == (f"Error: {out}: {REFUSED}", 2)
    assert not out.exists()
