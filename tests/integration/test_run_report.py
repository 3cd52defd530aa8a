"""`report.html`: what a run leaves for people to look at, at its end and on demand, and never at the run's cost."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from alexnet.pipeline import ImageStream
from alexnet.shards.manifest import read_manifest
from alexnet.tools.model import main as model
from alexnet.tools.pages.network_images import judged
from alexnet.tools.pages.run import pairs
from alexnet.tools.use.predict import Predictor
from alexnet.tools.use.trained import open_trained
from tests.integration.test_show_command import Page, pixels_of
from tests.runs import LENET, records, result_of, trained

CHROMIUM = shutil.which("chromium")


def report(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(model, ["report", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def page_of(run: Path) -> Page:
    return Page(run / "report.html")


@pytest.fixture(scope="module")
def run(images_32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of the small network for CIFAR-10: its first layer has 32 kernels in colour."""
    out = tmp_path_factory.mktemp("runs") / "a run"
    options = ("--arch", "cuda-convnet-cifar", "--epochs", 2, "--set", "train.batch_images=8", "--device", "cpu")
    result = trained(images_32, *options, "--out", out)
    assert f"report: {out / 'report.html'}" in result.stdout
    assert "warning" not in result.output
    return out


def test_the_page_says_how_the_run_went(run: Path, images_32: Path) -> None:
    page, result, logged = page_of(run), result_of(run), records(run, "loss")
    for words in ("Learning", "Feeding", "The first layer", "What it sees", "In pairs of GTX 580", "Facts"):
        assert words in page.text
    assert "not finished" not in page.text
    assert f"{1 - result['validation']['top1']:.1%}top-1 error" in page.text
    assert "6steps, 2 epochs" in page.text
    assert read_manifest(images_32).digest() in page.text
    seconds = sum(line["seconds"] for line in logged)
    rate = sum(line["images_per_s"] * line["seconds"] for line in logged) / seconds
    assert rate == pytest.approx(result["images_per_s"])
    assert f"{rate:,.1f} images/s over all of training" in page.text
    worth = re.search(r"times ([\d.]+), as its network .*: it is worth ([\d.]+) to ([\d.]+) such pairs", page.text)
    assert worth is not None
    share, *found = map(float, worth.groups())
    assert found == pytest.approx(pairs(rate, share), abs=0.05)
    curves = [found for tag, found in page.tags if tag == "path" and found.get("class", "").startswith("line")]
    assert [curve["class"] for curve in curves] == ["line one", "line two"] * 3
    assert [len(re.findall(r"[ML]", curve["d"])) for curve in curves] == [6, 2, 2, 2, 6, 6]


def test_the_kernels_are_the_first_layers(run: Path) -> None:
    """Figure 3: each weight six pixels wide, each kernel from black to white."""
    weights = open_trained(run).weights["towers.0.conv1.weight"].numpy()
    image = next(image for image in page_of(run).images() if image.get("class") == "kernels")
    assert image["alt"] == "The first layer, all: 32 kernels of 5x5"
    shown = pixels_of(image["src"])
    assert shown.shape == (2 * 30 + 9, 16 * 39 - 9, 4)
    for k, kernel in enumerate(weights):
        y, x = k // 16 * 39, k % 16 * 39
        stretched = 255 * (kernel - kernel.min()) / (kernel.max() - kernel.min())
        drawn = shown[y + 2 : y + 30 : 6, x + 2 : x + 30 : 6, :3].transpose(2, 0, 1)
        assert np.abs(drawn - stretched).max() <= 0.5 + 1e-4
    assert (shown[:, 30:39, 3] == 0).all()


def test_the_images_are_judged_as_validation_judges_them(
    run: Path, images_32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figure 4: the same crops, classes and probabilities as the stream and the network give; in fp32."""
    network = open_trained(run)
    shown = judged(Predictor(network, "cpu"), images_32)
    page = page_of(run)
    rows = [attributes for tag, attributes in page.tags if tag == "li"]
    expected = [guess.label == one.label for one in shown for guess in one.guesses]
    assert [row.get("class") == "right" for row in rows] == expected
    assert [("the right class" in row["title"]) for row in rows] == expected
    first = sum(one.guesses[0].label == one.label for one in shown)
    assert f"first in {first} of 7, among the five in 7" in page.text
    monkeypatch.setattr("alexnet.model.placement.cpu_has_bf16", lambda: False)
    net, precise = network.network(torch.device("cpu")), network.data
    with ImageStream(images_32 / "val", batch_images=7, augment=False, augmentation=network.augment) as stream:
        images, labels = next(iter(stream))
        keys = [stream.sample(k).key for k in range(7)]
    with torch.no_grad():
        probabilities = net(images).double().softmax(dim=1)
    shown = judged(Predictor(network, "cpu"), images_32)
    assert sorted(one.key for one in shown) == sorted(keys)
    for one in shown:
        k = keys.index(one.key)
        assert one.label == int(labels[k])
        assert [guess.label for guess in one.guesses] == probabilities[k].argsort(descending=True).tolist()
        for guess in one.guesses:
            assert guess.probability == pytest.approx(float(probabilities[k, guess.label]), rel=1e-4)
            assert guess.name == precise.classes[guess.label].words


def test_the_page_is_the_same_every_time(run: Path) -> None:
    text = (run / "report.html").read_text()
    assert len(text) < 1_000_000
    assert report(run).stdout.startswith(f"{run / 'report.html'}: 0.")
    assert (run / "report.html").read_text() == text


def test_an_unfinished_run_has_a_page(run: Path, images_32: Path, tmp_path: Path) -> None:
    """Also one without a checkpoint, and one whose data are gone; the page says what is missing."""
    begun = Path(shutil.copytree(run, tmp_path / "begun"))
    (begun / "result.json").unlink()
    shutil.rmtree(begun / "checkpoints")
    with (begun / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 7, "loss": 0.1')  # torn by a crash
    report(begun)
    text = page_of(begun).text
    assert "The run is not finished" in text
    assert "6steps, 2 epochs" in text
    assert text.count("holds no checkpoint yet") == 2
    (begun / "metrics.jsonl").unlink()
    report(begun)
    assert page_of(begun).text.count("Nothing has been logged yet.") == 2

    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    record = json.loads((moved / "data.json").read_text())
    (moved / "data.json").write_text(json.dumps({**record, "path": str(tmp_path / "gone")}))
    report(moved)
    text = page_of(moved).text
    assert "32 kernels of 5x5" in text
    assert f"The data set cannot be read ({tmp_path / 'gone'}: there is no such folder" in text
    report(moved, "--data", images_32)
    assert "first in" in page_of(moved).text


def test_mistakes_are_one_line(run: Path, ci_100: Path, tmp_path: Path) -> None:
    assert "is not the data set that" in report(run, "--data", ci_100, code=2).stderr
    assert "is no run folder that can be read" in report(tmp_path, code=2).stderr
    assert "there is no such folder" in report(run, "--data", tmp_path / "nowhere", code=2).stderr


def test_a_report_that_fails_does_not_cost_the_run(
    images_32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no ink\nat all")

    monkeypatch.setattr("alexnet.tools.pages.run.page", broken)
    out = tmp_path / "run"
    result = trained(images_32, *LENET, "--steps", 1, "--out", out)
    assert (out / "result.json").exists()
    assert not (out / "report.html").exists()
    warning = f"warning: no report was written (no ink at all); `alexnet-model report {out}` tries again"
    assert result.stderr.splitlines()[-1] == warning


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
@pytest.mark.parametrize("width", [390, 1250])
def test_a_browser_draws_the_page(run: Path, tmp_path: Path, width: int) -> None:
    """From the disk, with the style sheet, the curves and the pictures in it, and nothing refused."""
    page, picture = shutil.copy(run / "report.html", tmp_path / "page.html"), tmp_path / "page.png"
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr")
    size = (f"--window-size={width},3000", f"--screenshot={picture}", f"--user-data-dir={tmp_path / 'profile'}")
    drawn = subprocess.run(
        [str(CHROMIUM), *options, *size, Path(page).as_uri()], capture_output=True, text=True, timeout=120
    )
    assert drawn.returncode == 0, drawn.stderr
    assert not re.search(r"Refused|CONSOLE|Content Security Policy", drawn.stderr), drawn.stderr
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    found = {tuple(colour) for colour in pixels.reshape(-1, 3)[::7].tolist()}
    assert {(0xFB, 0xFA, 0xF8), (0x4A, 0x6D, 0x8C), (0xB4, 0x55, 0x2D)} <= found, "paper, first and second curve"
    assert len(found) > 500, "there are pictures"
