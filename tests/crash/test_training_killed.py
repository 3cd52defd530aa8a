"""`alexnet-train` killed at each call that changes a file: the same command takes up what it left, to the same end."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from alexnet.tools.convert.build import build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source
from alexnet.tools.train import main as train
from tests.crash.harness import How, build_library

# Two epochs of two steps; the last step is saved twice, so that one checkpoint takes another's place.
OPTIONS = ("--arch", "lenet-5", "--device", "cpu", "--steps", "4", "--checkpoint-every", "2", "--keep", "1")
SETTINGS = ("--set", "train.batch_images=10", "--set", "augment.mean=image", "--set", "stream.threads=1")
# Import once, then be killed as often as asked: a number comes in, a child makes the call of that number its last.
NURSERY = """
import os, struct, sys
import alexnet.tools.run.training
from alexnet.tools.train import main
for line in sys.stdin:
    child = os.fork()
    if not child:
        os.setsid()
        with open(os.environ["CRASH_STATE"], "r+b") as state:
            state.write(struct.pack("qii", int(os.environ["CRASH_AT"]) - int(line), os.getpid(), 0))
        main(sys.argv[2:])
    os.write(int(sys.argv[1]), b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
FAR = 10**6


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are cut up by threads, and the processes that are killed have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits(official: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training and 7 validation images of 3 classes, 28 px."""
    root: Path = tmp_path_factory.mktemp("data") / "digits"
    build(open_source(official), root, ConvertSettings(size_px=28, shard_images=30, seed=7))
    return root


@pytest.fixture(scope="module")
def whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("whole") / "run"
    assert again(digits, out) == 0
    return out


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("crash"))


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    return [str(data), *OPTIONS, *SETTINGS, "--out", str(out), *more]


def again(data: Path, out: Path, *more: str) -> int:
    result = CliRunner().invoke(train, arguments(data, out, *more), catch_exceptions=False)
    if result.exit_code:
        assert (
            result.stderr
            == f"Error: {out}: holds a finished run; give another --out, or --overwrite to start anew there\n"
        )
        assert (out / "result.json").exists()
    return result.exit_code


def outcome(out: Path) -> dict[str, Any]:
    """Return all that a run leaves, but for times and speeds, the report, which shows them, and half a line."""
    told = ("step", "epoch", "loss", "lr", "grad_norm", "val_loss", "val_top1", "val_top5", "val_images")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((out / "result.json").read_text())
    del result["images_per_s"]
    special = ("metrics.jsonl", "result.json", "report.html", ".report.html.partial", ".LATEST.partial")
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name not in special]
    return {
        "metrics": [{key: line[key] for key in told if key in line} for line in lines],
        "result": result,
        **{str(path.relative_to(out)): path.read_bytes() for path in files},
    }


class Nursery:
    """Start `alexnet-train` again and again without its imports, each time to be struck at another call."""

    def __init__(self, library: Path, out: Path, how: How, options: list[str]) -> None:
        self._state, self._log = library.with_name("crash.state"), library.with_name("crash.log")
        self._state.write_bytes(bytes(4096))
        self._log.write_bytes(b"")
        told = {"LD_PRELOAD": str(library), "CRASH_STATE": str(self._state), "CRASH_LOG": str(self._log)}
        told |= {"CRASH_BELOW": str(out), "CRASH_AT": str(FAR), "CRASH_HOW": how}
        answers, self._ends = os.pipe()
        self._answers = os.fdopen(answers)
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY, str(self._ends), *options],
            env={**os.environ, **told},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=(self._ends,),
        )

    def strike(self, at: int) -> tuple[bool, int, str]:
        """Run the command; return whether it was struck, its exit code, and its last call."""
        assert self._process.stdin
        self._log.write_bytes(b"")
        self._process.stdin.write(f"{at}\n")
        self._process.stdin.flush()
        code = int(self._answers.readline())
        calls = self._log.read_text(errors="replace").splitlines()
        return self._state.read_bytes()[12:16] != bytes(4), code, f"{len(calls)}: {calls[-1]}"

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(self, *_: object) -> None:
        self.said = self._process.communicate()[1]
        os.close(self._ends)
        self._answers.close()


def struck_everywhere(data: Path, whole: Path, nursery: Nursery, out: Path, start: Path | None, *more: str) -> int:
    """Strike the command at each of its calls in turn, from a copy of `start`, and give it again; count the calls."""
    expected = outcome(whole)
    for at in itertools.count(1):
        shutil.rmtree(out, ignore_errors=True)
        if start:
            shutil.copytree(start, out)
        struck, code, last = nursery.strike(at)
        if not struck:
            assert code == 0, last
            return at - 1
        assert code in (-signal.SIGKILL, 0, 1, 2), last
        again(data, out, *more)
        assert outcome(out) == expected, last
    raise AssertionError("it never ends")


@pytest.fixture(scope="module")
def half_done(digits: Path, library: Path, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed when its first checkpoint was about to get its name."""
    out: Path = tmp_path_factory.mktemp("half") / "run"
    with Nursery(library, out, "before", arguments(digits, out)) as nursery:
        for at in itertools.count(25):
            struck, _, last = nursery.strike(at)
            assert struck
            if last.endswith("checkpoints/step-000000002"):
                return out
            shutil.rmtree(out)
    raise AssertionError("it never ends")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["before", "full"])
@pytest.mark.parametrize("start", ["nothing", "a finished run", "a killed run"])
def test_struck_anywhere(
    digits: Path, tmp_path: Path, whole: Path, half_done: Path, library: Path, start: str, how: How
) -> None:
    """A call is about to be made, or made of a write half, which is also what is left after the one before."""
    out = tmp_path / "run"
    more = ["--overwrite"] if start == "a finished run" else []
    kept = {"nothing": None, "a finished run": whole, "a killed run": half_done}[start]
    with Nursery(library, out, how, arguments(digits, out, *more)) as nursery:
        calls = struck_everywhere(digits, whole, nursery, out, kept, *more)
    print(f"\nfrom {start}, {how}: struck at {calls} calls")
    assert calls > 60
    assert "Traceback" not in nursery.said
    if how == "full":
        assert nursery.said.count("Error: ") > 20
