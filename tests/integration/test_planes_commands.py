"""Every command takes a data set of planes; a run goes on from JPEGs to planes and back, the same run to the bit."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet.model.placement import choose_placement
from alexnet.model.trainer import Trainer, TrainSettings
from alexnet.pipeline import AugmentSettings
from alexnet.pipeline.host import available
from alexnet.shards.manifest import read_manifest
from alexnet.shards.planes import planes_bytes
from alexnet.shards.reader import SplitReader
from alexnet.tools.pages.data_set import survey
from alexnet.tools.run.assembly import Streams
from alexnet.tools.run.settings import RunSettings
from alexnet.tools.stored_jpeg import rgb_and_quality
from tests.conftest import list_anew, prep
from tests.integration.test_show_command import made, pixels_of
from tests.planes import write_planes_set
from tests.runs import at_step, model, outcome, saved, tensors_of, train, trained

pytestmark = [
    pytest.mark.skipif(available() is not None, reason=str(available())),
    pytest.mark.usefixtures("one_thread"),
]

OPTIONS = ("--arch", "cuda-convnet-cifar", "--device", "cpu", "--set", "train.batch_images=8", "--steps", 5)
"""Three steps are an epoch; the mean image is subtracted."""
SAVING = ("--checkpoint-every", 2, "--keep", 9)


@pytest.fixture(scope="module")
def sets(images_32: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same images as JPEGs and as planes."""
    planes = tmp_path_factory.mktemp("planes") / "small-planes"
    return {"jpegs": images_32, "planes": write_planes_set(images_32, planes)}


@pytest.fixture(scope="module")
def runs(sets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run on each of them."""
    root = tmp_path_factory.mktemp("runs")
    for name, data in sets.items():
        train(data, *OPTIONS, *SAVING, "--out", root / name / "run")
    return {name: root / name / "run" for name in sets}


def without_path(run: Path) -> dict[str, Any]:
    """Return all that a run leaves, but where its data were."""
    record = json.loads((run / "data.json").read_text())
    return {**outcome(run), "data.json": {**record, "path": ""}}


def test_a_run_on_planes_is_the_run_on_jpegs(runs: dict[str, Path]) -> None:
    assert without_path(runs["planes"]) == without_path(runs["jpegs"])
    assert list(saved(runs["planes"])) == [2, 4, 5]


@pytest.mark.parametrize(("first", "then"), [("jpegs", "planes"), ("planes", "jpegs")])
def test_a_run_goes_on_with_the_other_kind(
    sets: dict[str, Path], runs: dict[str, Path], tmp_path: Path, first: str, then: str
) -> None:
    out = Path(shutil.copytree(runs[first], tmp_path / "run"))
    (out / "result.json").unlink()
    for step in (4, 5):
        shutil.rmtree(saved(out)[step])
    assert "continued from step 2" in train(sets[then], *OPTIONS, *SAVING, "--out", out, "--resume")
    assert without_path(out) == without_path(runs[first])


def test_a_network_is_evaluated_and_shown_with_either(
    sets: dict[str, Path], runs: dict[str, Path], ci_100: Path
) -> None:
    said = {name: model("evaluate", runs["jpegs"], data, "--views", 10).output for name, data in sets.items()}
    assert said["planes"].replace(str(sets["planes"]), str(sets["jpegs"])) == said["jpegs"]
    page = (runs["jpegs"] / "report.html").read_bytes()
    assert page.count(b"<img") == 8  # the kernels, and the validation images
    model("report", runs["jpegs"], "--data", sets["planes"])
    assert (runs["jpegs"] / "report.html").read_bytes() == page
    refused = model("report", runs["planes"], "--data", ci_100, code=2).stderr
    assert refused.endswith(f"is not the data set that {runs['planes']} was trained on; that was {sets['planes']}\n")


def test_the_page_of_a_set_of_planes(sets: dict[str, Path], tmp_path: Path) -> None:
    jpegs, planes = (read_manifest(root) for root in sets.values())
    page = made(sets["planes"], tmp_path / "page.html", "--images", 3)
    assert "An alexnet data set of planes, decoded from one of JPEGs." in page.text
    assert "All 31 images are planes of 1.5 kB, 12 bits a pixel" in page.text
    assert page.text.count(jpegs.digest()) == 3  # of which the planes are, what names the images, the source
    assert planes.digest() in page.text
    assert "Quality is estimated" not in page.text
    reader = SplitReader(sets["jpegs"], "train")
    keys = [reader.key(i) for i in range(len(reader))]
    for k, picture in enumerate(survey(sets["planes"], 3).images):
        pixels, _ = rgb_and_quality(reader.stored(keys.index(picture.key)).tobytes())
        assert np.array_equal(pixels_of(page.images()[9 * k]["src"]), pixels)


def test_half_a_set(images_32: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    """The planes of one split: the run is the same without validation, and evaluated with the other split."""
    halves = {split: write_planes_set(images_32, tmp_path / split, [split]) for split in ("train", "val")}
    text = train(halves["train"], *OPTIONS, "--out", tmp_path / "run")
    assert "24 training and 0 validation images" in text
    assert tensors_of(tmp_path / "run") == tensors_of(runs["jpegs"])
    said = model("evaluate", tmp_path / "run", halves["val"]).output
    assert "7 of 7 validation images" in said
    assert "has no training images; give one that has them" in train(halves["val"], *OPTIONS, code=2)
    assert "holds no training images" in prep("show", halves["val"], "--out", tmp_path / "a.html", code=2).stderr
    assert "has no validation images" in model("evaluate", tmp_path / "run", halves["train"], code=2).output


def another_source(root: Path) -> None:
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["source"]["digest"] = "0" * 64
    (root / "manifest.json").write_text(json.dumps(manifest))


def another_order(root: Path) -> None:
    """Swap the first two samples of each tar."""
    sample = 3 * 512 + planes_bytes(32, 32)
    for tar in (root / "train").glob("*.tar"):
        content = tar.read_bytes()
        tar.write_bytes(content[sample : 2 * sample] + content[:sample] + content[2 * sample :])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (another_source, "holds a run with other settings (data.manifest '"),
        (another_order, "its place in the tar holds something else; the data were changed"),
    ],
)
def test_planes_of_something_else_do_not_go_on(
    sets: dict[str, Path], runs: dict[str, Path], tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    root, out = (Path(shutil.copytree(a, tmp_path / b)) for a, b in ((sets["planes"], "set"), (runs["jpegs"], "run")))
    (out / "result.json").unlink()
    shutil.rmtree(saved(out)[5])
    harm(root)
    said = trained(root, *OPTIONS, *SAVING, "--out", out, code=2)
    assert message in said.stderr
    assert said.stderr.count("\n") == 1


def test_what_another_decoder_began_does_not_go_on_with_planes(
    sets: dict[str, Path], runs: dict[str, Path], tmp_path: Path
) -> None:
    """As a run on a GPU, where DALI is the default."""
    out = Path(shutil.copytree(runs["jpegs"], tmp_path / "run"))
    (out / "result.json").unlink()
    for path in saved(out).values():
        file = path / "progress.json"
        progress = json.loads(file.read_text())
        progress["source"]["decode"] = "dali"
        file.write_text(json.dumps(progress))
        list_anew(path)
    said = trained(sets["planes"], *OPTIONS, *SAVING, "--out", out, code=2).stderr
    assert said.startswith("Error: decode: the state to resume from has 'dali', this stream 'host'; resume with")


@pytest.mark.dali
def test_validation_is_decoded_as_training_goes_on_to_be(sets: dict[str, Path]) -> None:
    settings = RunSettings(augment=AugmentSettings(crop_px=32), train=TrainSettings(batch_images=8))
    streams = Streams(sets["jpegs"], settings, choose_placement("cpu", 1, "fp32"))
    streams.train.resume(streams.train.state() | {"decode": "dali"})
    streams.decode_alike()
    decoders = [stream.state()["decode"] for stream in (streams.validation, streams.train_as_evaluated())]
    assert decoders == ["dali", "dali"]


def test_a_tar_that_is_cut_short_during_the_run_ends_it_in_a_line(
    sets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(sets["planes"], tmp_path / "set"))

    def cut() -> None:
        for tar in (root / "train").glob("*.tar"):
            os.truncate(tar, 5000)

    monkeypatch.setattr(Trainer, "train_step", at_step(1, cut))
    said = trained(root, *OPTIONS, "--steps", 30, "--out", tmp_path / "run", code=2)
    assert "inside it: it was cut short after this run began" in said.stderr
    assert said.stderr.count("Error") == 1
