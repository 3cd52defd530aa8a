"""Settings: a recipe, changed key by key, wrong ones refused before any work."""

import errno
import json
import os
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.run.run_folder import RunFolder
from alexnet.tools.run.settings import RunSettings, load_recipe, with_overrides, with_setting


def test_settings_are_converted_to_their_type() -> None:
    s = with_overrides(
        RunSettings(),
        (
            "optim.lr=2e-2",
            "train.batch_images=7",
            "train.train_accuracy=TRUE",
            "augment.lighting=off",
            "optim.lr = 0.5",
            "schedule.drop_epochs=3, 5",
            "net.arch=lenet-5",
        ),
    )
    assert (s.optim.lr, s.train.batch_images, s.train.train_accuracy, s.augment.lighting) == (0.5, 7, True, "off")
    assert (s.schedule.drop_epochs, s.net.arch) == ((3, 5), "lenet-5")
    assert with_overrides(s, ("schedule.drop_epochs=",)).schedule.drop_epochs == ()
    assert json.loads(json.dumps(s.as_json())) == s.as_json()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optim.lr", "must read key=value"),
        ("optim.rl=1", r"optim\.rl: no such setting; did you mean optim\.lr\?"),
        ("lr=1", r"lr: no such setting; did you mean optim\.lr\?"),
        ("train=1", "train: no such setting"),
        ("optim.lr=fast", r"optim\.lr=fast: must be a number"),
        ("train.epochs=1.5", r"train\.epochs=1\.5: must be a whole number"),
        ("train.epochs=0", r"train\.epochs=0: must be at least 1"),
        ("train.train_accuracy=2", "must be true or false"),
        ("init.kind=zeros", r"init\.kind=zeros: must be one of paper, he"),
        ("init.kind=papr", r"init\.kind=papr: must be one of .*; did you mean paper\?"),
        ("augment.lighting=measurd", r"augment\.lighting=measurd: .*; did you mean measured\?"),
        ("net.arch=lenet", r"net\.arch=lenet: must be one of .*; did you mean lenet-5\?"),
        ("net.pooling=overlapping", r"net\.pooling=overlapping: must be one of drawn, disjoint"),
        ("net.channels=-1", r"net\.channels=-1: must be at least 1"),
        ("optim.lr=nan", r"optim\.lr=nan: must be a number"),
        ("optim.lr=inf", r"optim\.lr=inf: must be a number"),
        ("optim.bias_lr_scale=0", r"optim\.bias_lr_scale=0\.0: must be above 0"),
        ("optim.bias_decay=yes", r"optim\.bias_decay=yes: must be true or false"),
        ("schedule.drop_epochs=5,3", r"schedule\.drop_epochs=5,3: must be numbers from 1 on"),
        ("schedule.drop_epochs=0", r"schedule\.drop_epochs=0: must be numbers from 1 on"),
        ("schedule.drop_epochs=x", r"schedule\.drop_epochs=x: must be a whole number"),
        ("train.views=5", r"train\.views=5: must be one of 1, 10"),
        ("schedule.warmup_steps=-1", r"schedule\.warmup_steps=-1: must not be negative"),
        ("schedule.kind=cosin", r"schedule\.kind=cosin: .*; did you mean cosine\?"),
        ("stream.threads=-1", r"threads=-1: must be at least 0"),
        ("net.classes=5", "cannot be set"),
        ("optim.lr=-1", r"optim\.lr=-1\.0: must be"),
        ("net.dropout=1", r"net\.dropout=1\.0: must be"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(assignment: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        with_overrides(load_recipe("small"), (assignment,))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optim.lr", "fast", r"optim\.lr=fast: must be a number"),
        ("optim.lr", True, r"optim\.lr=True: must be a number"),
        ("optim.lr", [0.1], r"optim\.lr=\[0\.1\]: must be a number"),
        ("train.epochs", True, r"train\.epochs=True: must be a whole number"),
        ("train.epochs", 2.0, r"train\.epochs=2\.0: must be a whole number"),
        ("net.arch", 5, r"net\.arch=5: must be text"),
        ("net.pooling", 5, r"net\.pooling=5: must be one of drawn, disjoint"),
        ("schedule.drop_epochs", 5, r"schedule\.drop_epochs=5: must be whole numbers with commas"),
        ("schedule.drop_epochs", [1.5], r"schedule\.drop_epochs=1\.5: must be a whole number"),
        ("optim", {"lr": 1}, "optim: no such setting"),
    ],
)
def test_a_value_of_another_type_is_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        with_setting(RunSettings(), key, value)
    assert "\n" not in str(error.value)


IDENTITY = {"optim": {"lr": 0.1}, "versions": {"torch": "1"}}


def claim(path: Path, *, lr: float = 0.1, overwrite: bool = False, resume: bool = False) -> RunFolder:
    return RunFolder(path, {**IDENTITY, "optim": {"lr": lr}}, overwrite=overwrite, resume=resume)


def test_an_unfinished_run_is_continued_and_others_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert not claim(path).continues
    assert claim(path).continues
    assert claim(path, resume=True).continues
    with pytest.raises(
        InputError, match=r"other settings \(optim\.lr 0\.1 there, 0\.2 asked for\); .*--out, or --overwrite"
    ):
        claim(path, lr=0.2)
    claim(path).finish({"steps": 1})
    with pytest.raises(InputError, match="finished run; give another --out, or --overwrite"):
        claim(path)
    assert not claim(path, lr=0.2, overwrite=True).continues


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--out .*file/run: Not a directory"):
        claim(tmp_path / "file" / "run")


def test_resume_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        claim(tmp_path / "run", resume=True)


def test_overwrite_and_resume_together_delete_nothing(tmp_path: Path) -> None:
    folder = claim(tmp_path / "run")
    with pytest.raises(InputError, match="give one of them"):
        claim(tmp_path / "run", overwrite=True, resume=True)
    assert folder.checkpoints.exists()


def test_overwrite_deletes_runs_only(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").touch()
    with pytest.raises(InputError, match="is no run folder, so nothing was deleted"):
        claim(tmp_path, overwrite=True)
    with pytest.raises(InputError, match="exists and is no run folder"):
        claim(tmp_path)
    assert (tmp_path / "photos.zip").exists()


def test_metrics_after_the_checkpoint_and_torn_lines_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = claim(tmp_path / "run")
    done = '{"step": 1, "epoch": 0}\n{"step": 1, "epoch": 0, "val_loss": 1}\n{"step": 2, "epoch": 1}\n'
    folder.metrics.write_text(done + '{"step": 2, "epoch": 1, "val_loss": 1}\n{"step": 3, "epoch": 2}\n{"st')
    before = folder.metrics.read_text()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", no_room)
        with pytest.raises(OSError, match="No space left"):
            folder.cut_metrics(2, 1)
    assert folder.metrics.read_text() == before, "a full disk takes none of them"
    folder.cut_metrics(2, 1)
    assert folder.metrics.read_text() == done


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_folder_that_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--out .*: File name too long; give a folder that can be written"):
        claim(tmp_path / ("a" * 300))
