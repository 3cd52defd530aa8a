"""`alexnet-train` as a user types it: what it plans, refuses, records and leaves."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from alexnet.model.placement import make_deterministic
from alexnet.model.trainer import Trainer
from tests.conftest import digests
from tests.runs import (
    LENET,
    REFUSED,
    at_step,
    events,
    failing,
    measured,
    records,
    result_of,
    saved,
    scalars,
    tensors_of,
    train,
    trained,
)

TORCHRUNS = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
FIGURES = {
    *("step", "epoch", "loss", "grad_norm", "lr", "images_per_s", "images_per_s_median", "data_wait", "memory_mb"),
    "seconds",
}


def test_a_dry_run_prints_every_setting_and_the_plan_and_writes_nothing(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = train(digits, *LENET, "--epochs", 3, "--set", "schedule.warmup_steps=2", "--dry-run")
    lines = printed.splitlines()
    expected = ("schedule.warmup_steps = 2", "train.epochs = 3", "net.classes = 3", "augment.mirror = false")
    assert {*expected} <= {*lines}
    train(digits, *LENET, "--steps", 1, "--out", tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    sections = ("net", "init", "optim", "schedule", "train", "augment", "stream")
    keys = [f"{section}.{key}" for section in sections for key in settings[section]]
    assert [line.split(" = ")[0] for line in lines[: len(keys)]] == keys, "all that a run would write down"
    assert "plan: 18 steps of 4 images, 6 an epoch: 3 epochs, 72 images from 3 shards; validation of 7" in printed
    assert "layout: one process holds the network" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_dry_run_counts_what_each_of_several_processes_needs_and_sends(ci_100: Path) -> None:
    options = ("--recipe", "small", "--device", "cpu", "--dry-run", "--set", "train.precision=fp32", "--gpus", 2)
    printed = train(ci_100, *options)
    half = 4 * (56_909_194 // 2) / 1e6
    towers = "rank 0 tower 1, rank 1 tower 2 (1/2 of conv1 to fc8, meeting at conv3, fc6, fc7, fc8)"
    memory = f"in each process: parameters {half:,.0f}, their gradients"
    assert all(said in printed for said in ("2 processes over gloo; ", towers, "each sends", memory))


def test_every_option_that_is_a_setting_sets_it(digits: Path) -> None:
    """Under its shorter name; `--set` comes after it."""
    options = {
        "--epochs": ("train.epochs", 3),
        "--steps": ("train.steps", 7),
        "--seed": ("train.seed", 5),
        "--checkpoint-every": ("train.checkpoint_every", 2),
        "--keep": ("train.keep_checkpoints", 4),
        "--final-views": ("train.final_views", 10),
        "--decode": ("stream.decode", "host"),
        "--lighting": ("augment.lighting", "off"),
    }
    given = [part for option, (_, value) in options.items() for part in (option, value)]
    lines = train(digits, *LENET, *given, "--deterministic", "--set", "train.seed=6", "--dry-run").splitlines()
    settings = {**dict(options.values()), "net.arch": "lenet-5", "train.deterministic": "true", "train.seed": 6}
    assert {f"{key} = {value}" for key, value in settings.items()} <= {*lines}


@pytest.fixture(scope="module")
def run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Two epochs of six steps, and what was printed."""
    out = tmp_path_factory.mktemp("two epochs") / "run"
    more = ("--final-views", 10, "--tensorboard", "--set", "train.train_accuracy=true")
    return out, train(digits, *LENET, "--epochs", 2, *more, "--out", out)


def test_every_epoch_is_recorded_validated_and_saved(digits: Path, run: tuple[Path, str]) -> None:
    """The stored images have the crop's size: ten views are five copies of the image and five of its mirror image."""
    out, printed = run
    logged = records(out, "loss")
    assert [record["step"] for record in logged] == list(range(1, 13)), "each of the first 20 steps is there"
    assert all(record.keys() == FIGURES and 0 <= record["data_wait"] <= 1 for record in logged)
    assert [record["step"] for record in records(out, "val_top1")] == list(saved(out)) == [6, 12]
    result = result_of(out)
    for name, images, views in (("validation", 7, 1), ("final_validation", 7, 10), ("training", 24, 1)):
        assert (result[name]["images"], result[name]["views"]) == (images, views)
    assert "validation at the end: top-1" in printed
    assert "training images, without augmentation and dropout: top-1" in printed
    for said in ("(7/7 images, each once, 10 views)", "3 classes, 24 training and 7 validation images", "device: cpu"):
        assert said in printed
    assert "finished run" in train(digits, *LENET, "--out", out, code=2)


def test_tensorboard_draws_what_is_recorded(run: tuple[Path, str]) -> None:
    drawn = scalars(next((run[0] / "tensorboard").iterdir()))
    assert drawn["train/loss"] == pytest.approx({record["step"]: record["loss"] for record in records(run[0], "loss")})
    assert drawn["train/grad_norm"].keys() == drawn["train/loss"].keys()
    assert drawn["validation/top1"].keys() == {6, 12}


def test_tensorboard_hides_what_a_resumed_run_does_again(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after step 8, it goes on from the checkpoint of step 6."""
    from tensorboardX.proto.event_pb2 import SessionLog

    arguments = (digits, *LENET, "--epochs", 2, "--tensorboard", "--out", tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", at_step(8, failing(KeyboardInterrupt())))
        assert "not saved" in train(*arguments, code=130)
    assert "continued from step 6" in train(*arguments)
    first, second = sorted((tmp_path / "run" / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert scalars(first)["train/loss"].keys() == set(range(1, 9))
    assert scalars(second)["train/loss"].keys() == set(range(7, 13))
    starts = [event.step for event in events(second) if event.session_log.status == SessionLog.START]
    assert starts == [7], "what TensorBoard takes for the step from which older events do not count"


def test_a_second_run_in_a_folder_is_refused(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it asks for, under whatever name of the folder; and the first does not notice."""
    out, link, options = tmp_path / "run", tmp_path / "link", (digits, *LENET, "--steps", 4)
    link.symlink_to(out)

    def second() -> None:
        before = digests(out)
        for name in (out, link):
            for more in ((), ("--overwrite",), ("--resume",), ("--seed", 5, "--overwrite")):
                assert trained(*options, "--out", name, *more, code=2).stderr == f"Error: {name}: {REFUSED}"
        assert digests(out) == before

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", at_step(2, second))
        trained(*options, "--out", out)
    trained(*options, "--out", tmp_path / "alone")
    assert tensors_of(out) == tensors_of(tmp_path / "alone")
    trained(*options, "--out", out, "--overwrite")  # it is free again


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("{digits} --resume", "holds no run"),
        ("{digits} --resume --overwrite", "give one of them"),
        ("{digits} --init nowhere.pth", "--init nowhere.pth"),
        ("{digits} --init {digits}/manifest.json", "cannot be read as safetensors"),
        ("{digits} --out /proc/run", "/proc/run"),
        ("{digits} --arch lenet", "did you mean lenet-5?"),
        ("{digits} --recipe papr", "did you mean paper?"),
        ("{digits} --arch cuda-convnet-cifar", "net.arch=cuda-convnet-cifar: takes images stored at 32 px, these"),
        ("{digits} --arch cuda-convnet-cifar-80s", "`alexnet-prep shard SOURCE --size 32` makes them"),
        ("", "`alexnet-prep shard SOURCE --size 28` makes them"),  # of the bundled images
        ("{digits} --decode auto", "decode='auto': went by speed"),
        ("{digits} --keep 0", "must be at least 1"),
        ("{digits} --set optim.rate=1", "did you mean optim.lr?"),
        ("{digits} --set train.batch_images=25", "batch_images=25: the data set has only 24"),
        ("{tmp}/nowhere", "there is no such folder"),
        ("{tmp}/newer", "upgrade alexnet"),
        ("{tmp}/cut", "bytes where the manifest says"),
    ],
)
def test_a_refused_run_says_why_in_a_line_and_leaves_no_folder(
    digits: Path, tmp_path: Path, arguments: str, words: str
) -> None:
    for name in ("newer", "cut"):
        shutil.copytree(digits, tmp_path / name)
    fields = json.loads((tmp_path / "newer" / "manifest.json").read_text())
    (tmp_path / "newer" / "manifest.json").write_text(json.dumps({**fields, "schema": 2}))
    tar = tmp_path / "cut" / "train" / "000000.tar"
    tar.write_bytes(tar.read_bytes()[:-1])
    given = arguments.format(digits=digits, tmp=tmp_path).split()
    error = trained(*LENET, "--out", tmp_path / "run", *given, code=2).stderr
    (line,) = [line for line in error.splitlines() if line.startswith("Error: ")]
    assert words in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "newer"]


@pytest.mark.parametrize("name", [".", "digits", "digits/train"])
def test_data_are_no_run_folder(digits: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(digits.parent)
    before = digests(digits.parent)
    for more in ((), ("--overwrite",)):
        assert "is no run folder" in trained(digits, *LENET, "--out", name, *more, code=2).stderr
    assert digests(digits.parent) == before


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "the environment has no MASTER_ADDR"),
        ({"WORLD_SIZE": "2", "RANK": "first", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, "RANK=first: must be a number"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE=two: must be a number"),
        ({"RANK": "1"}, "RANK=1: the environment has no WORLD_SIZE, MASTER_ADDR, MASTER_PORT; start the processes"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2: the environment has no RANK, MASTER_ADDR, MASTER_PORT; start"),
        ({**TORCHRUNS, "RANK": "2"}, "RANK=2: must be at least 0 and below WORLD_SIZE=2"),
        ({**TORCHRUNS, "RANK": "-1"}, "RANK=-1: must be a number from 0"),
        ({**TORCHRUNS, "RANK": "1", "WORLD_SIZE": "1"}, "RANK=1: must be at least 0 and below WORLD_SIZE=1"),
        ({**TORCHRUNS, "LOCAL_RANK": "2"}, "LOCAL_RANK=2: must be at least 0 and below LOCAL_WORLD_SIZE=2"),
        ({**TORCHRUNS, "LOCAL_RANK": "one"}, "LOCAL_RANK=one: must be a number"),
        *((alone, "") for alone in ({"RANK": "0"}, {"WORLD_SIZE": "1"}, {"MASTER_ADDR": "x"}, {"LOCAL_RANK": "3"})),
    ],
)
def test_half_of_torchruns_environment_is_refused_and_one_process_needs_nothing_of_it(
    digits: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: str
) -> None:
    for name in (*TORCHRUNS, "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    printed = train(digits, *LENET, "--parallel", "data", "--dry-run", code=2 if words else 0)
    assert (words or "one process holds the network") in printed


def test_deterministic_runs_are_equal_and_leave_a_users_own_choice(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        for name in ("one", "two"):
            train(digits, *LENET, "--epochs", 1, "--deterministic", "--out", tmp_path / name)
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.backends.cudnn.benchmark
        train(digits, *LENET, "--steps", 1, "--out", tmp_path / "three")
        assert torch.backends.cudnn.benchmark, "convolutions are chosen by trial where that is allowed"
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        make_deterministic()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    finally:
        torch.use_deterministic_algorithms(before)
    assert measured(tmp_path / "one") == measured(tmp_path / "two")
    assert json.loads((tmp_path / "one" / "settings.json").read_text())["train"]["deterministic"] is True
