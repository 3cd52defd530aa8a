"""The run folder: whose it is, what `--overwrite` deletes, and what is left where a run was killed."""

import errno
import functools
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet.model.checkpoint import Checkpoint
from alexnet.shards.errors import InputError
from alexnet.tools.run.run_folder import RunFolder
from alexnet.tools.run.settings import RunSettings
from tests.runs import save_checkpoint

IDENTITY: dict[str, Any] = {
    **RunSettings().as_json(),
    "data": {"manifest": "m"},
    "versions": {"torch": "1"},
}


def claim(path: Path, *, overwrite: bool = False, resume: bool = False, **settings: Any) -> RunFolder:
    """Claim a folder for a run of the defaults but for some settings, as `optim_lr` is called here."""
    identity = json.loads(json.dumps(IDENTITY))
    for name, value in settings.items():
        section, _, key = name.partition("_")
        identity[section][key] = value
    return RunFolder(path, identity, overwrite=overwrite, resume=resume)


def entries(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def trained(path: Path, *, finished: bool = True) -> Path:
    """Fill a folder with all that a run writes."""
    folder = claim(path)
    for step in (1, 2):
        save_checkpoint(
            folder.checkpoints, Checkpoint(step=step, tensors={"net.w": torch.ones(3)}, progress={}), keep=2
        )
    (folder.checkpoints / ".partial-000000003").mkdir()
    (folder.checkpoints / ".partial-000000003" / "tensors-00001-of-00002.safetensors").write_bytes(b"half")
    (path / "tensorboard").mkdir()
    for name in ("metrics.jsonl", "data.json", "mean_image.npy", "report.html", ".report.html.partial"):
        (path / name).write_text("")
    (path / "tensorboard" / "events.out.tfevents.1.host.step-1").touch()
    if finished:
        folder.finish({"steps": 2})
    return path


def test_an_unfinished_run_is_continued_and_others_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert not claim(path).continues
    assert claim(path).continues
    assert claim(path, resume=True).continues
    with pytest.raises(
        InputError, match=r"other settings \(optim\.lr 0\.01 there, 0\.2 asked for\); .*--out, or --overwrite"
    ):
        claim(path, optim_lr=0.2)
    claim(path).finish({"steps": 1})
    with pytest.raises(InputError, match="finished run; give another --out, or --overwrite"):
        claim(path)
    assert not claim(path, optim_lr=0.2, overwrite=True).continues


def test_what_may_differ_may_change_and_what_an_earlier_version_did_not_know_had_its_default(
    tmp_path: Path,
) -> None:
    claim(tmp_path)
    assert claim(tmp_path, train_keep_checkpoints=5, stream_threads=3, versions_torch="2").continues
    settings = json.loads((tmp_path / "settings.json").read_text())
    for section, key in (("net", "pooling"), ("augment", "lighting_epochs")):
        del settings[section][key]
    (tmp_path / "settings.json").write_text(json.dumps({**settings, "train": {**settings["train"], "gone": 1}}))
    with pytest.raises(
        InputError, match=r"\(net\.pooling 'drawn' there, 'disjoint' asked for; train\.gone 1 there, None"
    ):
        claim(tmp_path, net_pooling="disjoint")
    settings["stream"]["decode"] = "auto"  # which is gone
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert claim(tmp_path).continues


def test_a_folder_that_cannot_be_made_or_holds_no_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below_a_file, too_long = tmp_path / "file" / "run", tmp_path / ("a" * 300)
    for path, words in ((below_a_file, r"--out .*file/run: Not a directory"), (too_long, "File name too long")):
        with pytest.raises(InputError, match=words):
            claim(path)
    with pytest.raises(InputError, match="holds no run"):
        claim(tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()
    folder = claim(tmp_path / "run")
    with pytest.raises(InputError, match="give one of them"):
        claim(tmp_path / "run", overwrite=True, resume=True)
    assert folder.checkpoints.exists(), "nothing was deleted"


@pytest.mark.parametrize("finished", [False, True])
def test_overwrite_deletes_a_run_whole_also_through_a_link(tmp_path: Path, finished: bool) -> None:
    path = trained(tmp_path / "run", finished=finished)
    (tmp_path / "link").symlink_to(path)
    assert not claim(tmp_path / "link", overwrite=True).continues
    assert entries(path) == ["checkpoints", "settings.json"]
    assert (tmp_path / "link").is_symlink()


EDITORS = '{"editor.tabSize": 4, "files": {"exclude": []}}'


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"photos.zip": ""}, "is no run folder, so nothing was deleted"),
        ({"settings.json": EDITORS, "photos.zip": ""}, r"settings\.json: cannot be read"),
        ({"settings.json": EDITORS}, r"settings\.json: cannot be read"),
        ({"settings.json": "// mine\n{}"}, r"settings\.json: cannot be read"),
        ({"settings.json": "[]"}, r"settings\.json: cannot be read"),
        ({"settings.json": "[" * 100_000}, r"settings\.json: cannot be read"),
        ({"settings.json": '{"net": {}, "train": {}, "augment": 1}'}, r"settings\.json: cannot be read"),
        ({"manifest.json": "{}", "train/000000.tar": "", "val/000000.tar": ""}, "is no run folder"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_runs_is_left_alone(tmp_path: Path, files: dict[str, str], words: str, overwrite: bool) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = entries(tmp_path)
    with pytest.raises(InputError, match=words if overwrite else "give another --out"):
        claim(tmp_path, overwrite=overwrite)
    assert entries(tmp_path) == before


STEP = "checkpoints/step-000000001"
FOREIGN = (
    *("notes.txt", "checkpoints/settings.json", "tensorboard/notes.txt", f"{STEP}/mine.pt"),
    *("git", "checkpoints/best", f"{STEP}/deep"),
)
LINKED = ("checkpoints", "tensorboard", "metrics.jsonl", STEP, f"{STEP}/tensors.safetensors")


def linked(path: Path, name: str) -> None:
    """Have a run's folder or file lie elsewhere."""
    (path / name).rename(path.parent / "elsewhere")
    (path / name).symlink_to(path.parent / "elsewhere")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        *((lambda path, name=name: (path / name).touch(), name) for name in FOREIGN if "." in name),
        *((lambda path, name=name: (path / name).mkdir(), name) for name in FOREIGN if "." not in name),
        *((lambda path, name=name: linked(path, name), name) for name in LINKED),
        (lambda path: (path / "checkpoints" / "step-000000009").symlink_to("/"), "checkpoints/step-000000009"),
    ],
)
def test_a_run_beside_other_files_is_not_deleted(tmp_path: Path, change: Callable[[Path], None], named: str) -> None:
    path = trained(tmp_path / "run")
    change(path)
    before = entries(tmp_path)
    with pytest.raises(InputError, match=f"also holds .*{named}.*, so nothing was deleted"):
        claim(path, overwrite=True)
    assert entries(tmp_path) == before


class KilledError(BaseException):
    """Stand in for SIGKILL."""


@contextmanager
def killed_at(number: int) -> Iterator[None]:
    """End at the nth change of a file, right before it, as Python's own calls make them."""
    left = itertools.count(number, -1)

    def before(real: Callable[..., object], *arguments: object, **options: object) -> object:
        if next(left) == 0:
            raise KilledError
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patched:
        for name in ("mkdir", "rmdir", "unlink", "rename", "replace", "fsync"):
            patched.setattr(os, name, functools.partial(before, getattr(os, name)))
        yield


@pytest.mark.parametrize("start", ["nothing", "a finished run", "an unfinished run"])
def test_a_call_killed_anywhere_is_taken_up_by_the_same_call(tmp_path: Path, start: str) -> None:
    """And, until it is deleted, a finished run is not taken for one that goes on, nor an unfinished for another."""
    overwrite, finished = start != "nothing", start == "a finished run"
    if overwrite:
        trained(tmp_path / "run", finished=finished)
    for number in itertools.count():
        path = tmp_path / str(number)
        if overwrite:
            shutil.copytree(tmp_path / "run", path)
        try:
            with killed_at(number):
                claim(path, optim_lr=0.2, overwrite=overwrite)
            break
        except KilledError:
            left = set(entries(path)) if path.exists() else set()
        if finished and len(left) > 1 and "settings.json" in left:
            assert left == {"settings.json", "checkpoints"} or "result.json" in left
        assert not (claim(path, optim_lr=0.2, overwrite=overwrite).continues and overwrite)
        assert entries(path) == ["checkpoints", "settings.json"]
        assert json.loads((path / "settings.json").read_text())["optim"]["lr"] == 0.2
    assert number >= (20 if overwrite else 4)


def test_a_run_that_cannot_begin_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for a folder, but not for a file; or the last of the claim's files does not fit."""
    path = tmp_path / "run"
    path.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", no_room)
        with pytest.raises(InputError, match="No space left on device"):
            claim(path)
    assert entries(path) == []
    claim(path).give_up()
    assert entries(path) == []
    claim(path)
    claim(path).give_up()
    assert entries(path) == ["checkpoints", "settings.json"], "but what goes on is kept"


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
