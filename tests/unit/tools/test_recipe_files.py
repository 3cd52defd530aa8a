"""Recipes of a user's own: TOML files that stand on shipped ones or on each other."""

import json
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.run.settings import load_recipe
from tests.runs import train, trained


def write(folder: Path, **recipes: str | bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in recipes.items():
        (folder / f"{name}.toml").write_bytes(text if isinstance(text, bytes) else text.encode())


def test_a_file_stands_on_a_shipped_recipe_or_on_a_file_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "below", mine=b'\xef\xbb\xbfbase = "small"\n[optim]\nlr = 0.02\nmomentum = 0.5\n')
    write(tmp_path, top='base = "below/mine.toml"\n[optim]\nmomentum = 0.8\n', alone="optim.lr = 0.5")
    changed = {"lr": 0.02, "momentum": 0.8}
    small, top = (load_recipe(name).as_json() for name in ("small", str(tmp_path / "top.toml")))
    assert top == {**small, "optim": {**small["optim"], **changed}}
    assert load_recipe(str(tmp_path / "alone.toml")).optim.lr == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base = "papr"', r"mine\.toml: base=papr: must be a file, FILE\.toml, or one of .*; did you mean paper\?"),
        ('base = "gone.toml"', r"mine\.toml: base=gone\.toml: cannot be read as a recipe \(No such file"),
        ('base = "mine.toml"', r"mine\.toml: base=mine\.toml: stands on itself"),
        ('base = "other.toml"', r"other\.toml: base=mine\.toml: stands on itself"),
        ("base = 5", r"mine\.toml: base=5: must be text"),
        ('base = "a\\u0000.toml"', r"mine\.toml: base=.*: cannot be read"),
        ("optim = 5", r"mine\.toml: optim=5: must be a table of settings"),
        ("[optim]\nrl = 0.1", r"mine\.toml: optim\.rl: no such setting; did you mean optim\.lr\?"),
        ("[optim]\nlr = 'fast'", r"mine\.toml: optim\.lr=fast: must be a number"),
        ("[optim]\nlr = 2020-01-01", r"mine\.toml: optim\.lr=2020-01-01: must be a number"),
        ('base = "wrong.toml"', r"wrong\.toml: train\.epochs=0: must be at least 1"),
        ("[__class__]\nnet = 5", r"mine\.toml: __class__\.net: no such setting"),
        ("[net]\nclasses = 5", r"mine\.toml: net\.classes: follows from the data set's manifest"),
        ("[optim]\nlr = 0.1\nlr 0.2", r"mine\.toml: cannot be read as a recipe \(.*at line 3, column 4\)"),
        ("a = " + "[" * 30_000, r"mine\.toml: cannot be read as a recipe \(is nested too deeply\)"),
        (b"\xff\xfe[\0", r"mine\.toml: cannot be read as a recipe \('utf-8' codec"),
        (b" " * 10_000_000, r"mine\.toml: cannot be read as a recipe \(has 10,000,000 bytes"),
    ],
)
def test_a_file_with_a_mistake_is_named_with_it_in_a_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    write(tmp_path, mine=text, other='base = "mine.toml"', wrong="[train]\nepochs = 0")
    with pytest.raises(InputError, match=message) as error:
        load_recipe(str(tmp_path / "mine.toml"))
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_refused_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    for name, words in (("gone", "No such file"), ("folder", "is no regular file")):
        error = trained("--recipe", tmp_path / f"{name}.toml", code=2).stderr
        assert error.startswith(f"Error: {tmp_path / name}.toml: cannot be read as a recipe ({words}")


def test_a_run_is_named_after_the_file_and_refuses_to_go_on_once_that_was_edited(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = 'base = "lenet-5"\n[train]\nbatch_images = 4\nsteps = 2\n'
    write(tmp_path / "recipes", mine=recipe)
    options = (digits, "--recipe", "recipes/mine.toml", "--device", "cpu")
    lines = train(*options, "--dry-run").splitlines()
    assert {"recipe: recipes/mine.toml", "train.batch_images = 4", "augment.crop_px = 28"} <= {*lines}
    train(*options)
    run = Path("runs/digits-mine-seed0")
    assert json.loads((run / "settings.json").read_text())["train"]["batch_images"] == 4
    (run / "result.json").unlink()  # as if it had not been finished
    write(tmp_path / "recipes", mine=recipe.replace("= 4", "= 3"))
    refused = trained(*options, code=2).stderr
    assert "holds a run with other settings (train.batch_images 4 there, 3 asked for)" in refused
