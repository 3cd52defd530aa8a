"""A run folder is one run's: a second one ends at once, in one line, and takes nothing from the first."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from alexnet.model.trainer import Trainer
from alexnet.tools.output_folder import locked
from tests.conftest import digests
from tests.runs import LENET, trained

FOUR_STEPS = (*LENET, "--steps", "4")
REFUSED = "another alexnet-train is writing there; wait for it, or give another --out\n"


def test_a_second_run_is_refused(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it asks for, under whatever name of the folder; and the first does not notice."""
    out, link = tmp_path / "run", tmp_path / "link"
    link.symlink_to(out)
    update = Trainer.train_step

    def meanwhile(self: Trainer, *batch: Any) -> Any:
        if self.step == 2:
            before = digests(out)
            for name in (out, link):
                for more in ((), ("--overwrite",), ("--resume",), ("--seed", 5, "--overwrite")):
                    second = trained(digits, *FOUR_STEPS, "--out", name, *more, code=2)
                    assert second.stderr == f"Error: {name}: {REFUSED}"
            assert digests(out) == before
        return update(self, *batch)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", meanwhile)
        trained(digits, *FOUR_STEPS, "--out", out)
    trained(digits, *FOUR_STEPS, "--out", tmp_path / "alone")
    checkpoint = "checkpoints/step-000000004/tensors.safetensors"
    assert (out / checkpoint).read_bytes() == (tmp_path / "alone" / checkpoint).read_bytes()
    trained(digits, *FOUR_STEPS, "--out", out, "--overwrite")  # it is free again


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--resume",), "holds no run"),
        (("--resume", "--overwrite"), "give one of them"),
        (("--init", "nowhere.pth"), "--init nowhere.pth"),
        (("--out", "/proc/run"), "/proc/run"),
        (("--init", "."), "cannot be read as safetensors"),
        (("--arch", "cuda-convnet-cifar"), "net.arch=cuda-convnet-cifar: takes images stored at 32 px, these"),
        (("--arch", "cuda-convnet-cifar-80s"), "`alexnet-prep shard SOURCE --size 32`"),
    ],
)
def test_a_refused_run_leaves_no_folder(digits: Path, tmp_path: Path, more: tuple[str, ...], words: str) -> None:
    more = tuple(str(digits / "manifest.json") if word == "." else word for word in more)
    assert words in trained(digits, *FOUR_STEPS, "--out", tmp_path / "run", *more, code=2).stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [".", "digits", "digits/train"])
def test_data_are_no_run_folder(digits: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(digits.parent)
    before = digests(digits.parent)
    for more in ((), ("--overwrite",)):
        assert "is no run folder" in trained(digits, *FOUR_STEPS, "--out", name, *more, code=2).stderr
    assert digests(digits.parent) == before


@pytest.mark.slow
def test_of_several_processes_none_waits_for_the_first_that_is_refused(digits: Path, tmp_path: Path) -> None:
    """Started by the command itself, and as torchrun starts them."""
    out = tmp_path / "run"
    command = [sys.executable, "-c", "from alexnet.tools.train import main; main()", str(digits), *FOUR_STEPS]
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
