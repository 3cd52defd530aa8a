"""What earlier versions wrote is the same bytes today, and is read: data sets, batches, a run, an exported file.

`hashes.py` makes the list of digests anew. `run` is of version 0.1.0: LeNet-5, two of four steps on the synthetic MNIST
set of `hashes.py`; `lenet-5.safetensors` is what was exported after all four.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from alexnet.tools.prep import main as prep
from alexnet.tools.train import main as train
from tests.golden.hashes import sets, streams
from tests.sources import write_mnist

HERE = Path(__file__).parent


@pytest.mark.parametrize("made", [sets, streams])
def test_bytes_are_what_they_were(made: Callable[[Path], Iterator[tuple[str, str]]], tmp_path: Path) -> None:
    golden = json.loads((HERE / "hashes.json").read_text())
    assert dict(made(tmp_path)) == golden[made.__name__]


def test_a_run_that_an_earlier_version_began_goes_on_exactly(tmp_path: Path) -> None:
    """Sums differ between CPUs in their last bits, hence a tolerance; two steps moved biases by up to 1e-2."""
    write_mnist(tmp_path / "mnist", 23, 11)
    arguments = ["shard", tmp_path / "mnist", "--out", tmp_path / "set", "--shard-images", 10]
    assert CliRunner().invoke(prep, list(map(str, arguments))).exit_code == 0
    shutil.copytree(HERE / "run", tmp_path / "run")
    options = ["--recipe", "lenet-5", "--device", "cpu", "--steps", 4, "--checkpoint-every", 2]
    arguments = [tmp_path / "set", *options, "--set", "train.batch_images=8", "--out", tmp_path / "run"]
    result = CliRunner().invoke(train, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert "continued from step 2" in result.output
    trained = load_file(tmp_path / "run" / "checkpoints" / "step-000000004" / "tensors.safetensors")
    exported = load_file(HERE / "lenet-5.safetensors")
    assert exported
    for name, tensor in exported.items():
        torch.testing.assert_close(trained[f"net.{name}"], tensor, rtol=0, atol=1e-6)
