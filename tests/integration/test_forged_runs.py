"""Run folders and exported files in which something was changed: each is used rightly, or refused in a line."""

import json
import math
import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from alexnet.model.weights import Weights, write_state_dict
from alexnet.shards.errors import InputError
from alexnet.tools.pages.run import write_report
from alexnet.tools.use.export import feed
from alexnet.tools.use.predict import Predictor
from alexnet.tools.use.trained import open_trained
from tests.runs import LENET, train

DEEP = json.loads('{"a":' * 300 + "1" + "}" * 300)
VALUES: tuple[Any, ...] = (
    *(None, True, -5, 0, 1.5, 1 << 40, 1 << 70, -(1 << 63), 10**400, 1e-320, 1e300, math.nan, math.inf),
    *("", "x", "\x1b[31m\n", "\ud800", "x" * 100_000, [], [[]], [1, 2], ["x"] * 3, {}, {"a": None}, DEEP),
)
GONE = object()


@pytest.fixture(scope="module")
def run(images_32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeNet-5 after two steps on 24 images of 32 px, with unit variance."""
    out: Path = tmp_path_factory.mktemp("forged") / "run"
    train(images_32, *LENET, "--steps", 2, "--out", out)
    return out


def places(tree: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return where the values of JSON are, tables and lists included."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree[:2]) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*before, key)
        yield from places(value, (*before, key))


def changed(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return JSON with one value changed, or gone."""
    tree = json.loads(json.dumps(tree))
    part = tree
    for key in place[:-1]:
        part = part[key]
    if value is GONE:
        del part[place[-1]]
    else:
        part[place[-1]] = value
    return tree


def forgeries(tree: Any, share: int) -> Iterator[Any]:
    """Return every `share`-th of what can be made of JSON by one change, and JSON that is another thing."""
    every = [(place, value) for place in places(tree) for value in (*VALUES, GONE)]
    random.Random(1).shuffle(every)
    yield from (changed(tree, *change) for change in every[::share])
    yield from VALUES[:: min(share, 5)]


def used(path: Path) -> str:
    """Use a trained network as the commands do; return the line that refuses it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # of PyTorch's, which closes files late
        try:
            trained = open_trained(path)
            if trained.data.size_px > 4096:  # what no data set has
                return ""
            predictor = Predictor(trained, "cpu")
            square = torch.zeros(trained.data.size_px, trained.data.size_px, 3, dtype=torch.uint8).numpy()
            guesses = predictor.guesses([square])[0]
            assert sum(guess.probability for guess in guesses) == pytest.approx(1, abs=1e-3)
            feed(trained)
        except InputError as error:
            return str(error)
    return ""


@pytest.mark.parametrize("share", [20, pytest.param(1, marks=pytest.mark.slow)])
def test_what_an_exported_file_says_of_itself(run: Path, tmp_path: Path, share: int) -> None:
    whole = open_trained(run).exported()
    file, refused = tmp_path / "file", 0
    for number, about in enumerate(forgeries(whole.about, share)):
        if number % 2:
            save_file(whole.tensors, file, metadata={"alexnet": json.dumps(about)})
        elif isinstance(about, dict) and 10**400 not in about.values():
            write_state_dict(file, Weights(tensors=whole.tensors, about=about))
        refused += len(said := used(file)) > 0
        assert len(said) < 2000, said[:2000]
    assert refused > 300 / share
    assert not used(run)


@pytest.mark.parametrize("share", [300, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["settings.json", "result.json", "metrics.jsonl"])
def test_what_a_run_folder_says_of_itself(run: Path, tmp_path: Path, name: str, share: int) -> None:
    """In the page, and, of the settings, in all that uses the weights."""
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    lines = (run / name).read_text().splitlines() if name == "metrics.jsonl" else [(run / name).read_text()]
    for number, line in enumerate(lines):
        for forged in forgeries(json.loads(line), share):
            (copy / name).write_text("\n".join([*lines[:number], json.dumps(forged), *lines[number + 1 :]]))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    write_report(copy)
                except InputError as error:
                    assert "\n" not in str(error), str(error)[:300]  # noqa: PT017
            if name == "settings.json":
                used(copy)
    shutil.copy(run / name, copy / name)
    assert write_report(copy).read_text() == (run / "report.html").read_text()
