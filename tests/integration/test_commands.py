"""The commands as a user types them: help, tables, mistakes in one line and exit code 2, and what they never load."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet import __version__
from alexnet.model.networks.others import ARCHITECTURES
from alexnet.shards.manifest import read_manifest
from alexnet.tools.bench import main as bench
from alexnet.tools.model import main as model
from alexnet.tools.prep import main as prep
from alexnet.tools.train import main as train
from tests.runs import called
from tests.sources import write_mnist

COMMANDS = {"prep": prep, "train": train, "bench": bench, "model": model}

MISTAKES: list[tuple[str, str]] = [
    ("prep shard s3://bucket/source", "s3://bucket/source: SOURCE is read from a folder"),
    ("prep shard {source} --out https://host/set", "--out https://host/set: can only be read"),
    (f"prep shard {{source}} --out s3://bucket/{'x' * 300}", "is too long by 65 characters"),
    ("prep shard {source} --out s3://key:secret@bucket/set", "Error: s3://bucket/set: holds a name, a password"),
    ("prep shard {source} --out s3://bucket/set --engine ray", "--engine ray: its workers reach no staging folder"),
    ("prep shard {source} --storage-option secret", "--storage-option: must read key=value"),
    ("prep decode s3://bucket/set", "s3://bucket/set: nothing lies beside it; give --out"),
    ("prep decode s3://bucket/set --out s3://bucket/set/planes", "lies in s3://bucket/set, which is read"),
    ("prep show s3://bucket/set --cache ~nobody-at-all/cache", "cache=~nobody-at-all/cache: there is no such user"),
    ("prep adopt s3://bucket/set", "adopt looks into tars where they lie"),
    ("prep synth s3://bucket/set", "is written by `alexnet-prep shard` and `decode` only"),
    ("prep shard /nowhere/at/all", "there is no such folder"),
    ("prep shard {here}", "no known layout"),
    ("prep shard {source} --out {set}", "another data set"),
    ("prep shard {source} --out {here}/x --size 1", "size_px=1: must be between"),
    ("prep verify /nowhere/at/all", "there is no such folder"),
    ("prep verify {set}/train", "this is one split; give the data set itself"),
    ("prep verify {mnist}", "holds no manifest.json"),
    ("prep verify {set} --workers 0", "0 is not in the range"),
    ("prep verify", "Missing argument 'DATA'"),
    ("prep show /nowhere/at/all", "there is no such folder"),
    ("prep show {set}/train", "this is one split; give the data set itself"),
    ("prep show {set} --out {here}/no/such/page.html", "cannot be written"),
    ("prep show {set} --out {here}/page.png", "must end in .html"),
    ("prep show {set} --out {set}/page.html", "would be an extra file of the data set"),
    ("prep show {set} --images 0", "0 is not in the range"),
    ("bench dataloader /nowhere/at/all --quick", "no such folder"),
    ("bench dataloader --quick --device cuda", "--device cuda: this machine has no GPU"),
    ("bench dataloader --compare pytorch", "pytorch: must be one of webdataset, torch, dali, ffcv, spdl, "),
    ("bench dataloader --rows reed --device cpu", "--rows reed: must be of"),
    ("bench dataloader --quick --json /no/such/folder/x.json", "--json /no/such/folder/x.json: cannot be written"),
    ("bench dataloader --html /no/such/folder/x.html", "--html /no/such/folder/x.html: cannot be written"),
    ("bench dataloader --seconds nan", "nan is no number of this range"),
    ("bench dataloader --seconds 1e9", "'--seconds'"),
    ("bench diff /no/such/a.json /no/such/b.json", "/no/such/a.json: cannot be read"),
    ("bench model --arch alexnet-2013", "alexnet-2013: must be one of"),
    ("bench model --gpus none", "'none' is not a valid integer"),
    ("bench model --gpus 3 --device cpu", "--gpus 3: must be 1 or a multiple of 2"),
    ("bench model --batch 1 --gpus 2 --device cpu", "--batch 1: must be at least 2"),
    ("bench model --device cuda", "this machine has no GPU that PyTorch can use"),
    ("bench model --json /no/such/folder/x.json", "--json /no/such/folder/x.json: cannot be written"),
    ("bench train --batch 1000 --device cpu", "--batch 1000: must be at most 100"),
    ("bench train --arch lenet-5 --device cpu", "takes images stored at 28 or 32"),
    ("bench train --scaling 0", "0 is not in the range x>=1"),
    ("bench train /no/such/data", "/no/such/data"),
    ("bench prep /no/such/source", "/no/such/source"),
    ("bench prep {mnist}", "holds raw pixels (mnist)"),
    ("model show lenet5", "did you mean lenet-5?"),
    ("model show alexnet-owt --size 62", "images of 62 px: alexnet-owt takes 63 px or more"),
    ("model show alexnet-2012 --gpus 3", "must be 1 or a multiple of 2"),
    ("model show lenet-5 --gpus 2", "has one tower"),
    ("model show alexnet-2012 --gpus 4 --batch-images 3", "must be at least 4, one for each process"),
    ("model show alexnet-2012 --parallel data", "give --gpus as well"),
]


@pytest.mark.parametrize(("typed", "message"), MISTAKES)
def test_mistakes_end_in_one_line_and_exit_code_2(
    official: Path,
    data_set: Path,
    ci_100: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
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
    program, *arguments = typed.format(source=official, set=data_set, here=here, mnist=mnist).split()
    errors = called(COMMANDS[program], *arguments, code=2).stderr.splitlines()
    (line,) = [line for line in errors if line.startswith("Error: ")]
    assert message in line
    assert not list(here.iterdir())


def test_data_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path / "from-environment"))
    assert "from-environment" in called(bench, "dataloader", code=2).stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_version(name: str) -> None:
    assert called(COMMANDS[name], "--version").output == f"alexnet-{name}, version {__version__}\n"
    text = called(COMMANDS[name], "--help").output
    assert "Usage:" in text
    lines = text.split("Options:")[0].splitlines()[1:]
    assert [line for line in lines if line.strip().startswith("alexnet-")], "help shows lines to type, each on its own"


LIGHT = """
import sys
from click.testing import CliRunner
from alexnet.tools.{module} import main
import alexnet.tools.bench.prep, alexnet.tools.machine
from alexnet.pipeline import ImageStream
if __name__ == "__main__":  # worker processes import this
    stream = ImageStream({split!r}, batch_images=10)
    stream.plan(0, 0), stream.sample(3)
    for arguments in {calls!r}:
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
    heavy = [name for name in sys.modules if name.split(".")[0] in ("torch", "nvidia")]
    assert not heavy, heavy
"""
HELPS: dict[str, tuple[str, ...]] = {
    "prep": ("shard", "verify", "show", "synth"),
    "train": (),
    "bench": ("dataloader",),
    "model": ("show", "evaluate", "predict", "export", "report"),
}
WORK: dict[str, tuple[str, ...]] = {
    "prep": (
        "shard {source} --out {here}/set --size 40 --workers 1",
        "verify {here}/set --deep --workers 1",
        "show {here}/set --out {here}/page.html",
        "synth {here}/synth --classes 2 --images 4",
    ),
    "model": ("show alexnet-2012",),
}


@pytest.mark.parametrize("module", COMMANDS)
def test_neither_torch_nor_dali_is_loaded_where_nothing_needs_them(
    official: Path, ci_100: Path, tmp_path: Path, module: str
) -> None:
    """By all of `alexnet-prep`, any help, a machine's description, the converter's benchmark, and a stream's plan."""
    calls = [["--help"], ["--version"], *([name, "--help"] for name in HELPS[module])]
    calls += [work.format(source=official, here=tmp_path).split() for work in WORK.get(module, ())]
    (tmp_path / "script.py").write_text(LIGHT.format(module=module, calls=calls, split=str(ci_100 / "train")))
    subprocess.run([sys.executable, tmp_path / "script.py"], check=True)
    if module == "prep":
        assert read_manifest(tmp_path / "set").counts["train"].written == 24


def test_prep_prints_what_became_of_every_entry(official: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(official, tmp_path / "ilsvrc"))
    arguments = ("shard", source, "--size", 40, "--workers", 1)
    first = called(prep, *arguments).output
    assert "train: 27 in = 24 written + 3 rejected" in first
    assert "val: 7 in = 7 written + 0 rejected" in first
    assert (tmp_path / "ilsvrc-40" / "manifest.json").exists(), "--out defaults to SOURCE's name and the size"
    again = called(prep, *arguments, "--md5").output
    assert "ILSVRC2012_img_val.tar: md5" in again
    assert "published 29b22e2961454d5413ddabcf34fc5622" in again
    assert "already complete" in again


def show(*arguments: object) -> list[str]:
    return called(model, "show", *arguments).output.splitlines()


def test_show_prints_the_papers_network_in_plain_columns() -> None:
    lines = show("alexnet-2012")
    assert lines[2].split() == ["layer", "reads", "output", "parameters", "neurons", "multiply-adds"]
    rows = [line.split() for line in lines[3:]]
    assert rows[0] == ["conv1", "conv", "11x11/4", "image", "55x55x96", "34,944", "290,400", "105,415,200"]
    assert rows[-1] == ["total", "60,965,224", "659,272", "724,406,816"]
    assert len({len(line) for line in lines[3:]}) == 1, "numbers end in one column"


def test_show_knows_every_network_and_counts_for_other_images_and_classes() -> None:
    assert all(show(arch)[0].startswith(f"{arch}: ") for arch in ARCHITECTURES)
    assert "57,029,322" in show("alexnet-owt", "--size", 63, "--channels", 1, "--classes", 10)[-1]


@pytest.mark.parametrize(
    ("arguments", "holds", "images", "parameters"),
    [
        (("--gpus", 4), ["tower 1 of 2", "tower 2 of 2"] * 2, "64-127", 60_965_224 // 2),
        (("--gpus", 3, "--parallel", "data", "--batch-images", 9), ["all 2 towers"] * 3, "6-8", 60_965_224),
        (("--gpus", 2, "--parallel", "owt"), ["1/2 of fc6, fc7, fc8, all else"] * 2, "64-127", 31_649_652),
    ],
)
def test_show_says_who_holds_what(
    arguments: tuple[object, ...], holds: list[str], images: str, parameters: int
) -> None:
    """A pair's parameters are those of the whole network; with owt the fully connected layers are divided."""
    *lines, layout = show("alexnet-2012", *arguments)
    first = next(k for k, line in enumerate(lines) if line.startswith("process"))
    cells = [[cell.strip() for cell in line.split("  ") if cell] for line in lines[first + 1 :]]
    assert [row[:2] for row in cells] == [[f"rank {rank}", what] for rank, what in enumerate(holds)]
    assert cells[-1][2] == images
    assert sum(int(row[3].replace(",", "")) for row in cells) == parameters * len(holds)
    assert layout.startswith(f"layout: {len(holds)} processes over NCCL; ")
    if len(holds) == 4:  # 7.8 of values and 4.8 of images in a pair, 121.9 of gradients between them
        assert "134.6 MB a step" in layout
