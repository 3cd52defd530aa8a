"""`alexnet-model evaluate`, `predict` and `export` on networks that `alexnet-train` made, as a user types them."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file

from alexnet.model.checkpoint import checkpoints
from alexnet.pipeline import ImageStream
from alexnet.shards.reader import SplitReader
from alexnet.tools.convert.build import build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source
from alexnet.tools.model import main as model
from alexnet.tools.stored_jpeg import rgb_and_quality
from alexnet.tools.use.evaluate import evaluate_together
from alexnet.tools.use.trained import Trained, open_trained
from tests.runs import newest, result_of, train
from tests.runs import trained as train_result

SMALL = ("--device", "cpu", "--set", "train.batch_images=8")
Floats = npt.NDArray[np.float64]


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(model, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def trained(data: Path, arch: str, out: Path, *more: object) -> Path:
    train(data, "--arch", arch, "--steps", 6, "--out", out, *SMALL, *more)
    return out


@pytest.fixture(scope="module")
def data(official: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training and 7 validation images of 3 classes, 32 px."""
    root = tmp_path_factory.mktemp("data") / "small"
    build(open_source(official), root, ConvertSettings(size_px=32, shard_images=10, seed=7))
    return root


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """LeNet-5 on windows of 28 px with unit variance, and cuda-convnet on 32 px less the mean image."""
    root = tmp_path_factory.mktemp("runs")
    lenet = trained(data, "lenet-5", root / "lenet", "--checkpoint-every", 3, "--final-views", 10)
    return lenet, trained(data, "cuda-convnet-cifar", root / "convnet", "--set", "optim.lr=0.003")


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


def test_one_network_has_the_errors_that_its_run_ended_with(data: Path, runs: tuple[Path, Path]) -> None:
    for path in runs:
        found = evaluate_together([open_trained(path)], data, device="cpu", batch_images=8)
        ended = result_of(path)["validation"]
        assert (found[0].top1, found[0].top5, found[0].images) == (ended["top1"], ended["top5"], 7)
        assert found[0].loss == pytest.approx(ended["loss"], rel=1e-6)
        assert found[1] == found[0]
    ended = result_of(runs[0])["final_validation"]
    ten = evaluate_together([open_trained(runs[0])], data, views=10, device="cpu", batch_images=8)[-1]
    assert (ten.top1, ten.top5, ten.images, ten.views) == (ended["top1"], ended["top5"], 7, ended["views"])
    assert ten.loss == pytest.approx(ended["loss"], rel=1e-6)


@pytest.mark.usefixtures("in_fp32")
@pytest.mark.parametrize("views", [1, 10])
def test_networks_of_different_kinds_are_averaged(data: Path, runs: tuple[Path, Path], views: int) -> None:
    networks = [open_trained(path) for path in runs]
    found = evaluate_together(networks, data, views=10 if views == 10 else 1, device="cpu", batch_images=4)
    expected = [reference(network, data, views) for network in networks]
    labels = expected[0][1]
    together = np.mean([probabilities for probabilities, _ in expected], axis=0)
    for evaluation, probabilities in zip(found, (*(p for p, _ in expected), together), strict=True):
        loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
        assert evaluation.loss == pytest.approx(loss, rel=1e-4)  # float32 there, and other groupings of sums
        assert evaluation.top1 == (probabilities.argmax(axis=1) == labels).mean()
        assert (evaluation.images, evaluation.of, evaluation.top5, evaluation.views) == (7, 7, 1.0, views)


def test_evaluate_prints_each_network_and_the_average(data: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    lenet, convnet = runs
    earlier = checkpoints(lenet / "checkpoints")[0]
    file = tmp_path / "convnet.safetensors"
    run("export", convnet, "--to", "safetensors", "--out", file)
    lines = run("evaluate", lenet, earlier, file, data, "--device", "cpu", "--views", 10).stdout.splitlines()
    assert lines[0] == f"{data}: 7 of 7 validation images, ten views"
    rows = [line.split() for line in lines[2:]]
    assert [row[:-2] for row in rows[:3]] == [
        [str(lenet), "lenet-5", "6"],
        [str(earlier), "lenet-5", "3"],
        [str(file), "cuda-convnet-cifar", "6"],
    ]
    assert rows[3][:3] == ["average", "of", "3"]
    found = evaluate_together([open_trained(path) for path in (lenet, earlier, file)], data, views=10, device="cpu")
    for row, evaluation in zip(rows, found, strict=True):
        assert row[-2:] == [f"{1 - evaluation.top1:.2%}", f"{1 - evaluation.top5:.2%}"]


def test_an_exported_file_is_the_network(data: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    """The same settings, the same bits; of the convnet the mean image, too."""
    for path in runs:
        file = tmp_path / f"{path.name}.safetensors"
        assert (
            "feed it: resize the shorter side to 32 px"
            in run("export", path, "--to", "safetensors", "--out", file).stdout
        )
        original, exported = open_trained(path), open_trained(file)
        assert original.about() == exported.about()
        assert original.weights.keys() == exported.weights.keys()
        assert all(torch.equal(original.weights[name], tensor) for name, tensor in exported.weights.items())
        finish, other = original.finish(), exported.finish()
        assert np.array_equal(finish.mean, other.mean)
        assert np.array_equal(finish.scale, other.scale)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("start", ["file", "run", "checkpoint", pytest.param("divided", marks=pytest.mark.slow)])
def test_a_trained_network_is_where_a_run_begins(
    data: Path, runs: tuple[Path, Path], tmp_path: Path, start: str
) -> None:
    """--init takes the same weights, before --parallel owt divides them; a rate of 1e-30 changes no bit."""
    file = {"file": tmp_path / "lenet.safetensors", "checkpoint": newest(runs[0])}.get(start, runs[0])
    if start == "file":
        run("export", runs[0], "--to", "safetensors", "--out", file)
    still = ("--set", "optim.lr=1e-30", "--set", "optim.momentum=0", "--steps", 1)
    processes = ("--gpus", 2, "--parallel", "owt") if start == "divided" else ()
    begun = open_trained(trained(data, "lenet-5", tmp_path / "run", "--init", file, *still, *processes))
    assert begun.weights.keys() == open_trained(runs[0]).weights.keys()
    for name, tensor in open_trained(runs[0]).weights.items():
        assert torch.equal(begun.weights[name], tensor), name
    assert (tmp_path / "run" / "report.html").exists()


def test_a_run_begins_with_a_state_dict_and_runs_no_pickle(data: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    file, out = tmp_path / "weights.pth", tmp_path / "run"
    torch.save(open_trained(runs[0]).weights, file)
    begun = open_trained(trained(data, "lenet-5", out, "--init", file, "--set", "optim.lr=1e-30", "--steps", 1))
    assert torch.equal(begun.weights["towers.0.f6.weight"], open_trained(runs[0]).weights["towers.0.f6.weight"])
    torch.save({"weight": torch.zeros(2), "trap": tarfile.TarInfo("x")}, file)
    refused = train_result(data, "--arch", "lenet-5", "--init", file, "--out", tmp_path / "other", *SMALL, code=2)
    assert refused.stderr.startswith(
        f"Error: --init {file}: is damaged, or holds more than tensors, and was not unpickled"
    )
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("in_fp32")
def test_predict_prepares_images_as_the_data_set_did(
    official: Path, data: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    """The files that the set was made from get the answers that its validation images get."""
    with tarfile.open(official / "ILSVRC2012_img_val.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    files = sorted(tmp_path.glob("*.JPEG"))
    for path in runs:
        network = open_trained(path)
        probabilities, _ = reference(network, data)
        reader = SplitReader(data, "val")
        by_key = {reader.key(i): probabilities[i] for i in range(len(reader))}
        lines = run("predict", path, *files, "--device", "cpu").stdout.splitlines()
        for k, file in enumerate(files):
            expected = next(p for key, p in by_key.items() if file.stem in key)
            order = np.argsort(-expected)
            assert lines[4 * k] == str(file)
            for line, label in zip(lines[4 * k + 1 : 4 * k + 4], order, strict=True):
                share, name = line.split("%  ")
                assert float(share) == pytest.approx(100 * expected[label], abs=0.006)  # two decimals are printed
                assert name == network.data.classes[label].words


def test_predict_takes_every_format_and_names_what_it_cannot_take(
    runs: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    reader = SplitReader(data, "val")
    pixels = rgb_and_quality(reader.jpeg(0).tobytes())[0]
    for name, kind in (("a.png", "PNG"), ("b.bmp", "BMP"), ("c.jpg", "TIFF")):  # what it is, is read from its bytes
        Image.fromarray(pixels).save(tmp_path / name, kind)
    (tmp_path / "text.jpg").write_text("no image")
    half = io.BytesIO()
    Image.effect_noise((90, 80), 60).save(half, "JPEG")
    (tmp_path / "half.jpg").write_bytes(half.getvalue()[: half.tell() // 2])
    names = ("a.png", "text.jpg", "b.bmp", "half.jpg", "nowhere.png", "c.jpg")
    result = run("predict", runs[0], *(tmp_path / name for name in names), "--device", "cpu", code=2)
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
    result = run("predict", runs[0], *files, "--device", "cpu", code=2)
    named = [line.removeprefix(f"{tmp_path}/") for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert named == [r"m\udcfcnchen.jpg (turned upright, as its EXIF data say)", r"two\nlines.jpg", "upright.jpg"]
    assert result.stderr.splitlines()[0] == f"{tmp_path}/\\udcff: No such file or directory"


def test_networks_and_data_that_do_not_go_together(
    data: Path, data_set: Path, ci_100: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    lenet = runs[0]
    assert "was trained on other classes than" in run("evaluate", lenet, ci_100, code=2).stderr
    assert "stored at 32 px" in run("evaluate", lenet, data_set, code=2).stderr
    swapped = Path(shutil.copytree(lenet, tmp_path / "swapped"))
    record = json.loads((swapped / "data.json").read_text())
    record["classes"].reverse()
    (swapped / "data.json").write_text(json.dumps(record))
    assert "class 0 is n00000003, not n00000001" in run("evaluate", lenet, swapped, data, code=2).stderr
    refused = run("export", lenet, "--to", "torchvision", "--out", tmp_path / "x.pth", code=2)
    assert "torchvision has alexnet-owt only" in refused.stderr


def test_a_run_folder_means_the_checkpoint_that_it_would_continue_from(
    data: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    lenet = Path(shutil.copytree(runs[0], tmp_path / "lenet"))
    folder = lenet / "checkpoints"
    assert [path.name for path in checkpoints(folder)] == ["step-000000003", "step-000000006"]
    (folder / "LATEST").write_text("step-000000003")
    assert open_trained(lenet).step == 3
    (folder / "LATEST").write_text("step-000000006")
    (folder / "step-000000006" / "tensors.safetensors").write_bytes(b"torn")
    result = run("evaluate", lenet, data, "--device", "cpu")
    assert result.stderr.startswith(f"passed over: {folder / 'step-000000006'}: not a whole checkpoint")
    assert result.stdout.splitlines()[-1].split()[:3] == [str(lenet), "lenet-5", "3"]


def test_what_is_no_trained_network(data: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "text").write_text("weights")
    (tmp_path / "empty").mkdir()
    (begun := tmp_path / "begun").mkdir()
    shutil.copy(runs[0] / "settings.json", begun)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    for path, said in (
        (data, "is no run folder"),
        (tmp_path / "nowhere", "there is no such file or folder"),
        (tmp_path / "text", "cannot be read as safetensors"),
        (tmp_path / "empty", "is no run folder, and no checkpoint inside of one"),
        (begun, "holds no checkpoint yet"),
        (foreign, "does not say what network it is and how its images are prepared"),
    ):
        result = run("evaluate", path, data, code=2)
        assert result.stderr.startswith(f"Error: {path}: {said}"), result.stderr
    refused = run("export", runs[0], "--to", "safetensors", "--out", tmp_path / "no" / "file", code=2)
    assert f"Error: --out {tmp_path / 'no' / 'file'}: " in refused.stderr
