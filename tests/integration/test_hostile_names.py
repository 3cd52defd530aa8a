"""Names that steer terminals, break lines or turn text around are escaped wherever they are printed; no file blocks."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from alexnet.tools.bench import main as bench
from alexnet.tools.model import main as model
from alexnet.tools.prep import main as prep
from alexnet.tools.train import main as train
from tests.conftest import encode_picture

pytestmark = pytest.mark.usefixtures("no_workers")
STEERING = "\x1b]0;owned\x07\x1b[31mred two\nlines back\r\x08\x7f \u202eover\u2066ride \x9bcsi \udcff"
CLASSES = [f"{i}{STEERING}" for i in range(3)]
PICTURE = f"picture{STEERING}.png"


def run(program: object, *arguments: object, code: int = 0) -> str:
    """Run a command and return what it printed, all of it fit to be shown."""
    result = CliRunner().invoke(program, list(map(os.fsdecode, map(str, arguments))))  # type: ignore[arg-type]
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit | None)
    odd = {c for c in result.output if not c.isprintable() and c != "\n"}
    assert not odd, result.output
    return result.output


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders whose names, and those of the files in them, are as bad as a file system allows."""
    root = tmp_path_factory.mktemp("source") / f"of{STEERING}"
    for i, name in enumerate(CLASSES):
        (root / "train" / name).mkdir(parents=True)
        (root / "val" / name).mkdir(parents=True)
        for j in range(8):
            (root / "train" / name / f"{j}{PICTURE}").write_bytes(encode_picture(10 * i + j))
        (root / "val" / name / f"{i}{PICTURE}").write_bytes(encode_picture(90 + i))
        (root / "train" / name / f"bad{PICTURE}").write_bytes(b"no picture")
    return root


def test_class_and_file_names_go_through_every_command_escaped(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / f"to{STEERING}"
    data, out, page, weights = (folder / name for name in ("set", "run", "page.html", "weights.safetensors"))
    shard = ("shard", source, "--out", data, "--size", 28, "--shard-images", 8, "--workers", 1)
    assert "3 classes" in run(prep, *shard)
    run(prep, *shard, "--classes", source / "none", code=2)
    run(prep, "verify", data)
    run(prep, "show", data, "--out", page)
    lenet = (data, "--arch", "lenet-5", "--device", "cpu", "--steps", 1, "--set", "train.batch_images=4", "--out")
    printed = run(train, *lenet, out, "--tensorboard")
    assert len([line for line in printed.splitlines() if line.startswith(("data: ", "run folder: "))]) == 2
    run(train, *lenet, out, "--dry-run")
    run(model, "evaluate", out, data)
    run(model, "export", out, "--to", "safetensors", "--out", weights)
    run(train, *lenet, folder / "second", "--init", weights)
    odd = tmp_path / PICTURE
    odd.write_bytes(encode_picture(1))
    found = run(model, "predict", out, odd)
    assert len(found.splitlines()) == 4, "a line for the picture, and one for each class"
    assert r"\x1b]0;owned\x07" in found
    assert r"\u202e" in found
    run(model, "predict", out, tmp_path / f"none{PICTURE}", code=2)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    (tmp_path / "film").touch()
    os.truncate(tmp_path / "film", 20 << 30)
    nothing = ("/dev/zero", *(tmp_path / name for name in ("fifo", "link", "film")), tmp_path)
    said = run(model, "predict", out, *nothing, odd, code=2)
    assert said.count("is no regular file") == 4
    assert "film: has 21,474,836,480 bytes, where at most 150,000,000 can be right" in said
    assert "5 of 6 images could not be used" in said
    run(model, "report", out)
    for html in (page, out / "report.html"):
        assert not set(html.read_text(encoding="utf-8")) & set("\x1b\x07\x08\x7f\x9b\u202e\u2066"), html
    for line in (data / "rejected.jsonl").read_text().splitlines():
        assert json.loads(line)["member"].startswith("bad")


def test_bench_reads_a_data_set_of_such_a_name(digits: Path, tmp_path: Path) -> None:
    data = shutil.copytree(digits, tmp_path / STEERING)
    run(bench, "dataloader", data, "--quick", "--seconds", 0.05, "--rows", "stream-uint8")


def test_names_in_tars_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with tarfile.open(tmp_path / "source" / "train.tar", "w") as tar:
        for i, name in enumerate(CLASSES):
            for j, data in enumerate((encode_picture(i), b"no picture")):
                member = tarfile.TarInfo(f"{name}/{j}{PICTURE}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo(f"{CLASSES[0]}/link{PICTURE}")
        link.type, link.linkname = tarfile.SYMTYPE, PICTURE
        tar.addfile(link)
    shard = ("shard", tmp_path / "source", "--out", tmp_path / "set", "--size", 28, "--workers", 1)
    assert "link in a tar leads to no file" in run(prep, *shard)
    run(prep, *shard, "--on-error", "fail", "--overwrite", code=1)
    (tmp_path / "source" / "train.tar").write_bytes((tmp_path / "source" / "train.tar").read_bytes()[:-9000])
    run(prep, *shard, "--overwrite", code=2)
