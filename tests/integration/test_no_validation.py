"""A run on a data set without validation images: nothing about validation is printed, recorded or drawn."""

import shutil
from pathlib import Path

import pytest

from alexnet.tools.convert.build import build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source
from tests.conftest import encode_picture
from tests.integration.test_show_command import Page
from tests.runs import LENET, model, records, result_of, scalars, train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training images of 2 classes, 28 px."""
    root = tmp_path_factory.mktemp("no validation")
    for label in range(2):
        (root / "source" / f"class {label}").mkdir(parents=True)
        for k in range(12):
            (root / "source" / f"class {label}" / f"{k}.jpg").write_bytes(encode_picture(100 * label + k))
    build(open_source(root / "source"), root / "set", ConvertSettings(size_px=28))
    return root / "set"


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """30 steps, of which 20 are logged; with ten views at the end, for which there are no images."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, train(data, *LENET, "--epochs", 5, "--final-views", 10, "--tensorboard", "--out", out)


def test_nothing_is_said_or_recorded_of_validation(trained: tuple[Path, str], data: Path) -> None:
    out, printed = trained
    assert [line for line in printed.splitlines() if "validation" in line] == [
        f"data: {data} (given); 2 classes, 24 training and 0 validation images of 28 px"
    ]
    logged = records(out)
    assert [record["step"] for record in logged] == list(range(1, 21))
    assert not [name for record in logged for name in record if name.startswith("val")]
    assert result_of(out).keys() == {"steps", "images_per_s"}
    assert not [name for name in scalars(next((out / "tensorboard").iterdir())) if name.startswith("validation")]


def test_the_page_has_no_error_but_the_steps_and_epochs_that_were(trained: tuple[Path, str], tmp_path: Path) -> None:
    """30 steps: 20 were logged. Unfinished, the checkpoint has the number; without one, the log is all there is."""
    out = Path(shutil.copytree(trained[0], tmp_path / "run"))
    assert "30steps, 5 epochs" in (text := Page(out / "report.html").text)
    assert "top-1 error" not in text
    assert "validation error" not in text
    for gone, said in (("result.json", "30steps"), ("checkpoints", "20steps")):
        shutil.rmtree(out / gone) if (out / gone).is_dir() else (out / gone).unlink()
        model("report", out)
        assert said in Page(out / "report.html").text


def test_what_needs_them_is_refused(trained: tuple[Path, str], data: Path, tmp_path: Path) -> None:
    printed = train(data, *LENET, "--set", "schedule.kind=plateau", "--out", tmp_path / "run", code=2)
    assert printed.startswith("Error: schedule.kind=plateau: the data set has no validation images")
    assert not (tmp_path / "run").exists()
    refused = model("evaluate", trained[0], data, code=2)
    assert refused.stderr == f"Error: {data}: has no validation images\n"
    assert "24 images from 1 shard; no validation images\n" in train(data, *LENET, "--epochs", 1, "--dry-run")


def test_validation_images_of_which_none_can_be_used_give_no_figures(digits: Path, tmp_path: Path) -> None:
    """Nor do they lower the rate, as an error of 100% would."""
    data, out = Path(shutil.copytree(digits, tmp_path / "set")), tmp_path / "run"
    for shard in (data / "val").glob("*.tar"):
        shard.write_bytes(shard.read_bytes().replace(b"\xff\xd8\xff", b"\0\0\0"))
    rule = ("--set", "stream.on_error=skip", "--set", "schedule.kind=plateau", "--set", "schedule.patience_epochs=1")
    printed = train(data, *LENET, *rule, "--epochs", 3, "--out", out)
    assert "\nvalidation: none of 7 images could be used\n" in printed
    assert "validation loss" not in printed
    logged = records(out)
    assert {record["lr"] for record in logged} == {logged[0]["lr"]}
    assert "val_loss" not in logged[-1]
    assert result_of(out).keys() == {"steps", "images_per_s"}
