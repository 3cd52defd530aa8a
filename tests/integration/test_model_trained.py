"""`alexnet-model evaluate`, `predict` and `export` on networks that `alexnet-train` made, as a user types them."""

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file

from alexnet.pipeline import ImageStream
from alexnet.shards.reader import SplitReader
from alexnet.tools.stored_jpeg import rgb_and_quality
from alexnet.tools.use.evaluate import evaluate_together
from alexnet.tools.use.predict import upright
from alexnet.tools.use.trained import Trained, open_trained
from tests.runs import model, newest, result_of, saved, train, trained

SMALL = ("--device", "cpu", "--set", "train.batch_images=8")
Floats = npt.NDArray[np.float64]


def small_run(data: Path, arch: str, out: Path, *more: object) -> Path:
    train(data, "--arch", arch, "--steps", 6, "--out", out, *SMALL, *more)
    return out


@pytest.fixture(scope="module")
def runs(images_32: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """LeNet-5 on windows of 28 px with unit variance, and cuda-convnet on 32 px less the mean image."""
    root = tmp_path_factory.mktemp("runs")
    lenet = small_run(images_32, "lenet-5", root / "lenet", "--checkpoint-every", 3, "--final-views", 10)
    return lenet, small_run(images_32, "cuda-convnet-cifar", root / "convnet", "--set", "optim.lr=0.003")


def reference(network: Trained, data: Path, views: int = 1) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Probabilities of the validation images, view by view, from the stream that trains and a plain softmax."""
    stream = ImageStream(
        data / "val", batch_images=3, augment=False, augmentation=network.augment, views=10 if views == 10 else 1
    )
    net, probabilities, labels = network.network(torch.device("cpu")), [], []
    with stream, torch.no_grad():
        for images, of_batch in stream:
            for image, label in zip(images, of_batch.tolist(), strict=True):
                scores = net(image if views == 10 else image[None]).double().numpy()
                each = np.exp(scores - scores.max(axis=1, keepdims=True))
                probabilities.append((each / each.sum(axis=1, keepdims=True)).mean(axis=0))
                labels.append(label)
    return np.array(probabilities), np.array(labels)


@pytest.fixture
def in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared with other arithmetic must not be rounded to 8 bits."""
    monkeypatch.setattr("alexnet.model.placement.cpu_has_bf16", lambda: False)


def test_one_network_has_the_errors_that_its_run_ended_with(images_32: Path, runs: tuple[Path, Path]) -> None:
    for path in runs:
        found = evaluate_together([open_trained(path)], images_32, device="cpu", batch_images=8)
        ended = result_of(path)["validation"]
        assert (found[0].top1, found[0].top5, found[0].images) == (ended["top1"], ended["top5"], 7)
        assert found[0].loss == pytest.approx(ended["loss"], rel=1e-6)
        assert found[1] == found[0]
    ended = result_of(runs[0])["final_validation"]
    ten = evaluate_together([open_trained(runs[0])], images_32, views=10, device="cpu", batch_images=8)[-1]
    assert (ten.top1, ten.top5, ten.images, ten.views) == (ended["top1"], ended["top5"], 7, ended["views"])
    assert ten.loss == pytest.approx(ended["loss"], rel=1e-6)


@pytest.mark.usefixtures("in_fp32")
@pytest.mark.parametrize("views", [1, 10])
def test_networks_of_different_kinds_are_averaged(images_32: Path, runs: tuple[Path, Path], views: int) -> None:
    networks = [open_trained(path) for path in runs]
    found = evaluate_together(networks, images_32, views=10 if views == 10 else 1, device="cpu", batch_images=4)
    expected = [reference(network, images_32, views) for network in networks]
    labels = expected[0][1]
    together = np.mean([probabilities for probabilities, _ in expected], axis=0)
    for evaluation, probabilities in zip(found, (*(p for p, _ in expected), together), strict=True):
        loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
        assert evaluation.loss == pytest.approx(loss, rel=1e-4)  # float32 there, and other groupings of sums
        assert evaluation.top1 == (probabilities.argmax(axis=1) == labels).mean()
        assert (evaluation.images, evaluation.of, evaluation.top5, evaluation.views) == (7, 7, 1.0, views)


def test_evaluate_prints_each_network_and_the_average(images_32: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    lenet, convnet = runs
    earlier = saved(lenet)[3]
    file = tmp_path / "convnet.safetensors"
    model("export", convnet, "--to", "safetensors", "--out", file)
    lines = model("evaluate", lenet, earlier, file, images_32, "--device", "cpu", "--views", 10).stdout.splitlines()
    assert lines[0] == f"{images_32}: 7 of 7 validation images, ten views"
    rows = [line.split() for line in lines[2:]]
    networks = [(lenet, "lenet-5", 6), (earlier, "lenet-5", 3), (file, "cuda-convnet-cifar", 6)]
    assert [row[:3] for row in rows] == [*(list(map(str, network)) for network in networks), ["average", "of", "3"]]
    opened = [open_trained(path) for path in (lenet, earlier, file)]
    found = evaluate_together(opened, images_32, views=10, device="cpu")
    for row, evaluation in zip(rows, found, strict=True):
        assert row[-2:] == [f"{1 - evaluation.top1:.2%}", f"{1 - evaluation.top5:.2%}"]


def test_an_exported_file_is_the_network(images_32: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    """The same settings, the same bits; of the convnet the mean image, too."""
    for path in runs:
        file = tmp_path / f"{path.name}.safetensors"
        printed = model("export", path, "--to", "safetensors", "--out", file).stdout
        assert "feed it: resize the shorter side to 32 px" in printed
        original, exported = open_trained(path), open_trained(file)
        assert original.about() == exported.about()
        assert original.weights.keys() == exported.weights.keys()
        assert all(torch.equal(original.weights[name], tensor) for name, tensor in exported.weights.items())
        one, other = original.normalization(), exported.normalization()
        assert np.array_equal(one.mean, other.mean)
        assert np.array_equal(one.scale, other.scale)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("start", ["file", "run", "checkpoint", pytest.param("divided", marks=pytest.mark.slow)])
def test_a_trained_network_is_where_a_run_begins(
    images_32: Path, runs: tuple[Path, Path], tmp_path: Path, start: str
) -> None:
    """--init takes the same weights, before --parallel owt divides them; a rate of 1e-30 changes no bit."""
    file = {"file": tmp_path / "lenet.safetensors", "checkpoint": newest(runs[0])}.get(start, runs[0])
    if start == "file":
        model("export", runs[0], "--to", "safetensors", "--out", file)
    still = ("--set", "optim.lr=1e-30", "--set", "optim.momentum=0", "--steps", 1)
    processes = ("--gpus", 2, "--parallel", "owt") if start == "divided" else ()
    begun = open_trained(small_run(images_32, "lenet-5", tmp_path / "run", "--init", file, *still, *processes))
    taken = open_trained(runs[0]).weights
    assert begun.weights.keys() == taken.keys()
    assert all(torch.equal(begun.weights[name], tensor) for name, tensor in taken.items())
    assert (tmp_path / "run" / "report.html").exists()


def test_a_run_begins_with_some_layers_of_another(images_32: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    file = newest(runs[0]) / "tensors.safetensors"
    options = ("--arch", "lenet-5", "--steps", 1, "--init", file, "--set", "init.up_to=c5", "--out", tmp_path / "run")
    assert f"initial values: c1, s2, c3, s4, c5 from {file}, others drawn" in train(images_32, *SMALL, *options)


def test_a_run_begins_with_a_state_dict_and_runs_no_pickle(
    images_32: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    file, out = tmp_path / "weights.pth", tmp_path / "run"
    torch.save(open_trained(runs[0]).weights, file)
    begun = open_trained(small_run(images_32, "lenet-5", out, "--init", file, "--set", "optim.lr=1e-30", "--steps", 1))
    assert torch.equal(begun.weights["towers.0.f6.weight"], open_trained(runs[0]).weights["towers.0.f6.weight"])
    torch.save({"weight": torch.zeros(2), "trap": tarfile.TarInfo("x")}, file)
    refused = trained(images_32, "--arch", "lenet-5", "--init", file, "--out", tmp_path / "other", *SMALL, code=2)
    assert refused.stderr.startswith(
        f"Error: --init {file}: is damaged, or holds more than tensors, and was not unpickled"
    )
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("in_fp32")
def test_predict_prepares_images_as_the_data_set_did(
    official: Path, images_32: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    """The files that the set was made from get the answers that its validation images get."""
    subprocess.run(["tar", "-xf", official / "ILSVRC2012_img_val.tar", "-C", tmp_path], check=True)
    files = sorted(tmp_path.glob("*.JPEG"))
    for path in runs:
        network = open_trained(path)
        probabilities, _ = reference(network, images_32)
        reader = SplitReader(images_32, "val")
        by_key = {reader.key(i): probabilities[i] for i in range(len(reader))}
        lines = model("predict", path, *files, "--device", "cpu").stdout.splitlines()
        for k, file in enumerate(files):
            expected = next(p for key, p in by_key.items() if file.stem in key)
            order = np.argsort(-expected)
            assert lines[4 * k] == str(file)
            for line, label in zip(lines[4 * k + 1 : 4 * k + 4], order, strict=True):
                share, name = line.split("%  ")
                assert float(share) == pytest.approx(100 * expected[label], abs=0.006)  # two decimals are printed
                assert name == network.data.classes[label].words


def test_predict_takes_every_format_and_names_what_it_cannot_take(
    runs: tuple[Path, Path], images_32: Path, tmp_path: Path
) -> None:
    reader = SplitReader(images_32, "val")
    pixels = rgb_and_quality(reader.stored(0).tobytes())[0]
    for name, kind in (("a.png", "PNG"), ("b.bmp", "BMP"), ("c.jpg", "TIFF")):  # what it is, is read from its bytes
        Image.fromarray(pixels).save(tmp_path / name, kind)
    (tmp_path / "text.jpg").write_text("no image")
    half = io.BytesIO()
    Image.effect_noise((90, 80), 60).save(half, "JPEG")
    (tmp_path / "half.jpg").write_bytes(half.getvalue()[: half.tell() // 2])
    names = ("a.png", "text.jpg", "b.bmp", "half.jpg", "nowhere.png", "c.jpg")
    result = model("predict", runs[0], *(tmp_path / name for name in names), "--device", "cpu", code=2)
    blocks = result.stdout.split(f"{tmp_path}/")[1:]
    assert [block.splitlines()[0] for block in blocks] == ["a.png", "b.bmp", "c.jpg"]
    assert len({tuple(block.splitlines()[1:]) for block in blocks}) == 1
    errors = result.stderr.splitlines()
    assert errors[0] == f"{tmp_path / 'text.jpg'}: not an image of any known format"
    assert errors[1].startswith(f"{tmp_path / 'half.jpg'}: ")
    assert errors[2] == f"{tmp_path / 'nowhere.png'}: No such file or directory"
    assert errors[3:] == ["Error: 3 of 6 images could not be used; the reasons are above"]


def test_predict_prints_any_name_and_turns_photographs(runs: tuple[Path, Path], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [tmp_path / name for name in ("m\udcfcnchen.jpg", "two\nlines.jpg", "\udcff", "upright.jpg")]
    for file in (files[0], files[1], files[3]):
        Image.linear_gradient("L").save(file, "JPEG", exif=exif if file == files[0] else b"")
    result = model("predict", runs[0], *files, "--device", "cpu", code=2)
    named = [line.removeprefix(f"{tmp_path}/") for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert named == [r"m\udcfcnchen.jpg (turned upright, as its EXIF data say)", r"two\nlines.jpg", "upright.jpg"]
    assert result.stderr.splitlines()[0] == f"{tmp_path}/\\udcff: No such file or directory"


@pytest.mark.parametrize("turn", range(10))
def test_a_square_is_turned_as_pillow_turns_it(turn: int) -> None:
    pixels = np.random.default_rng(turn).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = turn
    turned = upright(pixels, turn)
    assert np.array_equal(turned, np.asarray(ImageOps.exif_transpose(image)))
    assert turned.flags.c_contiguous


def test_networks_and_data_that_do_not_go_together(
    images_32: Path, data_set: Path, ci_100: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    lenet = runs[0]
    assert "was trained on other classes than" in model("evaluate", lenet, ci_100, code=2).stderr
    assert "stored at 32 px" in model("evaluate", lenet, data_set, code=2).stderr
    swapped = Path(shutil.copytree(lenet, tmp_path / "swapped"))
    record = json.loads((swapped / "data.json").read_text())
    record["classes"].reverse()
    (swapped / "data.json").write_text(json.dumps(record))
    assert "class 0 is n00000003, not n00000001" in model("evaluate", lenet, swapped, images_32, code=2).stderr
    refused = model("export", lenet, "--to", "torchvision", "--out", tmp_path / "x.pth", code=2)
    assert "torchvision has alexnet-owt only" in refused.stderr


def test_a_run_folder_means_the_checkpoint_that_it_would_continue_from(
    images_32: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    lenet = Path(shutil.copytree(runs[0], tmp_path / "lenet"))
    folder = lenet / "checkpoints"
    assert list(saved(lenet)) == [3, 6]
    (folder / "LATEST").write_text("step-000000003")
    assert open_trained(lenet).step == 3
    (folder / "LATEST").write_text("step-000000006")
    (folder / "step-000000006" / "tensors.safetensors").write_bytes(b"torn")
    result = model("evaluate", lenet, images_32, "--device", "cpu")
    assert result.stderr.startswith(f"passed over: {folder / 'step-000000006'}: not a whole checkpoint")
    assert result.stdout.splitlines()[-1].split()[:3] == [str(lenet), "lenet-5", "3"]


def test_what_is_no_trained_network(images_32: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "text").write_text("weights")
    (tmp_path / "empty").mkdir()
    (begun := tmp_path / "begun").mkdir()
    shutil.copy(runs[0] / "settings.json", begun)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    for path, said in (
        (images_32, "is no run folder"),
        (tmp_path / "nowhere", "there is no such file or folder"),
        (tmp_path / "text", "cannot be read as safetensors"),
        (tmp_path / "empty", "is no run folder, and no checkpoint inside of one"),
        (begun, "holds no checkpoint yet"),
        (foreign, "does not say what network it is and how its images are prepared"),
    ):
        result = model("evaluate", path, images_32, code=2)
        assert result.stderr.startswith(f"Error: {path}: {said}"), result.stderr
    refused = model("export", runs[0], "--to", "safetensors", "--out", tmp_path / "no" / "file", code=2)
    assert f"Error: --out {tmp_path / 'no' / 'file'}: " in refused.stderr
