"""`alexnet-train` killed at each call that changes a file: the same command takes up what it left, to the same end."""

import itertools
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from alexnet.tools.train import main as train
from tests.crash.harness import Crasher, How
from tests.runs import outcome

# Two epochs of two steps; the last step is saved twice, so that one checkpoint takes another's place.
OPTIONS = ("--arch", "lenet-5", "--device", "cpu", "--steps", "4", "--checkpoint-every", "2", "--keep", "1")
SETTINGS = ("--set", "train.batch_images=10", "--set", "augment.mean=image", "--set", "stream.threads=1")
EVERY = {"before": 1, "full": 4}  # a full disk is met by few kinds of calls

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("whole") / "run"
    again(digits, out)
    return out


@pytest.fixture(scope="module")
def crasher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crasher]:
    root = tmp_path_factory.mktemp("crash")
    with Crasher(root, "train", root / "run") as crasher:
        yield crasher


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    return [str(data), *OPTIONS, *SETTINGS, "--out", str(out), *more]


def again(data: Path, out: Path, *more: str) -> None:
    """Give the command once more; what it was killed after may be a finished run."""
    result = CliRunner().invoke(train, arguments(data, out, *more), catch_exceptions=False)
    if result.exit_code:
        mend = "give another --out, or --overwrite to start anew there"
        assert result.stderr == f"Error: {out}: holds a finished run; {mend}\n"
    assert (out / "result.json").exists()


def struck_everywhere(
    data: Path, whole: Path, crasher: Crasher, start: Path | None, how: How, *more: str
) -> tuple[int, int]:
    """Strike the command at its calls in turn, from a copy of `start`, and give it again.

    Return how often it was struck, and how often it ended in an error of one line.
    """
    out, expected, told = crasher.below, outcome(whole), 0
    for at in itertools.count(1, EVERY[how]):
        shutil.rmtree(out, ignore_errors=True)
        if start:
            shutil.copytree(start, out)
        strike = crasher.strike(arguments(data, out, *more), at, how)
        if not strike.struck:
            assert strike.code == 0, strike
            return (at - 1) // EVERY[how], told
        assert strike.code in (-signal.SIGKILL, 0, 1, 2), strike
        assert "Traceback" not in strike.errors, strike
        told += strike.errors.count("Error: ")
        again(data, out, *more)
        assert outcome(out) == expected, strike
    raise AssertionError("it never ends")


@pytest.fixture(scope="module")
def half_done(digits: Path, crasher: Crasher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed when its first checkpoint was about to get its name."""
    out = crasher.below
    calls = crasher.calls(arguments(digits, out))
    shutil.rmtree(out)
    at = next(number for number, call in enumerate(calls, 1) if call.endswith("checkpoints/step-000000002"))
    assert crasher.strike(arguments(digits, out), at, "before").struck
    return out.rename(tmp_path_factory.mktemp("half") / "run")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["before", "full"])
@pytest.mark.parametrize("start", ["nothing", "a finished run", "a killed run"])
def test_struck_anywhere(digits: Path, whole: Path, half_done: Path, crasher: Crasher, start: str, how: How) -> None:
    """A call is about to be made, or made of a write half, which is also what is left after the one before."""
    more = ["--overwrite"] if start == "a finished run" else []
    kept = {"nothing": None, "a finished run": whole, "a killed run": half_done}[start]
    strikes, told = struck_everywhere(digits, whole, crasher, kept, how, *more)
    print(f"\nfrom {start}, {how}: struck {strikes} times, {told} errors told")
    assert strikes > 60 // EVERY[how]
    assert (told > 0) == (how == "full")
