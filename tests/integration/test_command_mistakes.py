"""Mistakes end every command in one line and exit code 2; and what the converter's commands load."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from alexnet.tools.bench.command import main as bench
from alexnet.tools.prep import main as prep
from tests.sources import write_mnist

PREP: list[tuple[str, str]] = [
    ("verify /nowhere/at/all", "there is no such folder"),
    ("verify {set}/train", "this is one split; give the data set itself"),
    ("verify {mnist}", "holds no manifest.json"),
    ("verify {set} --workers 0", "0 is not in the range"),
    ("verify", "Missing argument 'DIR'"),
    ("show /nowhere/at/all", "there is no such folder"),
    ("show {set}/train", "this is one split; give the data set itself"),
    ("show {set} --out {tmp}/no/such/page.html", "cannot be written"),
    ("show {set} --out {tmp}/page.png", "must end in .html"),
    ("show {set} --out {set}/page.html", "would be an extra file of the data set"),
    ("show {set} --images 0", "0 is not in the range"),
]
BENCH: list[tuple[str, str]] = [
    ("dataloader --compare pytorch", "pytorch: must be one of webdataset, torch, dali, ffcv, spdl, "),
    ("dataloader --rows reed --device cpu", "--rows reed: must be of"),
    ("dataloader --html /no/such/folder/x.html", "--html /no/such/folder/x.html: cannot be written"),
    ("dataloader --seconds nan", "nan is no number of this range"),
    ("dataloader --seconds 1e9", "'--seconds'"),
    ("diff /no/such/a.json /no/such/b.json", "/no/such/a.json: cannot be read"),
    ("model --arch alexnet-2013", "alexnet-2013: must be one of"),
    ("model --gpus none", "'none' is not a valid integer"),
    ("model --gpus 3 --device cpu", "--gpus 3: must be 1 or a multiple of 2"),
    ("model --batch 1 --gpus 2 --device cpu", "--batch 1: must be at least 2"),
    ("model --device cuda", "this machine has no GPU that PyTorch can use"),
    ("model --json /no/such/folder/x.json", "--json /no/such/folder/x.json: cannot be written"),
    ("train --batch 1000 --device cpu", "--batch 1000: must be at most 100"),
    ("train --arch lenet-5 --device cpu", "takes images stored at 28 or 32"),
    ("train --scaling 0", "0 is not in the range x>=1"),
    ("train /no/such/data", "/no/such/data"),
    ("prep /no/such/source", "/no/such/source"),
    ("prep {mnist}", "holds raw pixels (mnist)"),
]


@pytest.mark.parametrize(
    ("program", "typed", "message"), [*(("prep", *case) for case in PREP), *(("bench", *case) for case in BENCH)]
)
def test_mistakes_end_in_one_line_and_exit_code_2(
    data_set: Path,
    ci_100: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    typed: str,
    message: str,
) -> None:
    here, mnist = tmp_path / "here", tmp_path / "mnist"
    here.mkdir()
    mnist.mkdir()
    write_mnist(mnist, 5, 2)
    monkeypatch.chdir(here)
    monkeypatch.setenv("ALEXNET_DATA", str(ci_100))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    arguments = typed.format(set=data_set, tmp=here, mnist=mnist).split()
    result = CliRunner().invoke(bench if program == "bench" else prep, arguments)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert message in line
    assert "Traceback" not in result.output
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    "typed",
    [
        "verify {set} --deep --workers 1",
        "show {set} --out {tmp}/page.html",
        "synth {tmp}/set --classes 2 --images 4",
        "",  # no command, but the benchmark of the converter
    ],
)
def test_neither_torch_nor_dali_is_loaded(data_set: Path, tmp_path: Path, typed: str) -> None:
    arguments = typed.format(set=data_set, tmp=tmp_path).split()
    run = f"from alexnet.tools.prep import main; main({arguments!r}, standalone_mode=False)"
    code = run if typed else "import alexnet.tools.bench.prep"
    loaded = "import sys; print([name for name in sys.modules if name.split('.')[0] in ('torch', 'nvidia')])"
    ended = subprocess.run([sys.executable, "-c", f"{code}\n{loaded}"], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"
