"""Runs that were cut off, anywhere and by anything, and taken up again: the same run, to the bit."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from alexnet.model.checkpoint import checkpoints
from alexnet.tools.train import main as train
from tests.conftest import list_anew

BATCH = ("--set", "train.batch_images=10")  # two steps an epoch
END_SECONDS = 300  # after which whatever was started hangs, on the slowest machine


pytestmark = pytest.mark.usefixtures("one_thread")


def arguments(data: Path, out: Path, *more: object) -> list[str]:
    return [str(a) for a in (data, "--arch", "lenet-5", "--device", "cpu", *BATCH, "--out", out, *more)]


def run(data: Path, out: Path, *more: object, code: int = 0) -> Result:
    result = CliRunner().invoke(train, arguments(data, out, *more), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def metrics(out: Path) -> list[dict[str, float]]:
    """Return what a run measured, without what depends on the machine's mood."""
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    told = ("step", "epoch", "loss", "lr", "grad_norm", "val_loss", "val_top1", "val_top5", "val_images")
    return [{key: record[key] for key in told if key in record} for record in records]


def weights(out: Path) -> bytes:
    return (checkpoints(out / "checkpoints")[-1] / "tensors.safetensors").read_bytes()


def assert_same_run(one: Path, other: Path) -> None:
    assert metrics(one) == metrics(other)
    assert weights(one) == weights(other)
    results = [json.loads((out / "result.json").read_text()) for out in (one, other)]
    for result in results:
        del result["images_per_s"]
    assert results[0] == results[1]


ENDING = """
import os, signal
from alexnet.model import checkpoint_writer, trainer
{}
from alexnet.tools.train import main
main()
"""
# Write half of the file that is the checkpoint of a step, and be killed.
HALF = """
def half(tensors, file, metadata):
    save(tensors, file, metadata)
    if os.environ.get("RANK", "1") == "1" and file.parent.name.endswith("{step:09d}"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        os.kill(os.getpid(), signal.SIGKILL)
save = checkpoint_writer.save_file
checkpoint_writer.save_file = half
"""
# Be killed when the run is about to be marked as finished.
AT_THE_END = """
from alexnet.tools.run.run_folder import RunFolder
RunFolder.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
"""


def start(code: str, options: list[str], **environment: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ENDING.format(code), *options]
    told = {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in environment.items()}}
    return subprocess.Popen(command, env=told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 steps without an interruption, checkpoints in the middle of epochs and at their ends."""
    out: Path = tmp_path_factory.mktemp("whole") / "run"
    run(digits, out, "--steps", 60, "--checkpoint-every", 5)
    return out


@pytest.mark.parametrize("every", [5, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_in_the_middle_of_a_checkpoint(digits: Path, tmp_path: Path, whole: Path, every: int) -> None:
    """60 steps are 25 and 35 (or 24 and 36, from the end of an epoch), the next checkpoint being half written."""
    steps, out = ("--steps", 60, "--checkpoint-every", every), tmp_path / "run"
    killed = start(HALF.format(step=25 + 5 if every == 5 else 28), arguments(digits, out, *steps))
    assert killed.wait(END_SECONDS) == -signal.SIGKILL
    assert [path.name for path in (out / "checkpoints").glob(".partial-*")]
    resumed = run(digits, out, *steps, "--resume")
    assert f"continued from step {25 if every == 5 else 24}" in resumed.output
    assert not list((out / "checkpoints").glob(".partial-*"))
    if every == 5:
        assert_same_run(out, whole)
    else:
        assert metrics(out) == metrics(whole)


@pytest.mark.parametrize("every", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_between_the_last_checkpoint_and_the_result(digits: Path, tmp_path: Path, every: int) -> None:
    """Nothing is left to train: not a step more is done, nor is any line written twice."""
    options, out, other = ("--steps", 6, "--checkpoint-every", every), tmp_path / "killed", tmp_path / "whole"
    run(digits, other, *options)
    assert start(AT_THE_END, arguments(digits, out, *options)).wait(END_SECONDS) == -signal.SIGKILL
    assert "continued from step 6" in run(digits, out, *options).output
    assert_same_run(out, other)


@contextmanager
def meeting() -> Iterator[dict[str, object]]:
    """Host where two processes meet, as the command itself does, and yield the environment that tells them."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # its own port: one looked up can be lost
    here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": True}
    yield {**here, "WORLD_SIZE": 2, "GLOO_SOCKET_IFNAME": "lo"}


@pytest.mark.slow
def test_one_of_two_processes_killed_in_the_middle_of_its_share(digits: Path, tmp_path: Path) -> None:
    """Both hold the network and each writes a half of it; one dies in its own. The next call goes on from before."""
    options = ("--steps", 12, "--checkpoint-every", 4, "--parallel", "data")
    for out, code in ((tmp_path / "whole", ""), (tmp_path / "parts", HALF.format(step=8))):
        with meeting() as told:
            pair = [start(code, arguments(digits, out, *options), RANK=rank, **told) for rank in range(2)]
            assert pair[1].wait(END_SECONDS) == (-signal.SIGKILL if code else 0)
            ended = pair[0].wait(END_SECONDS)
        assert ended == 0 if not code else ended > 0, "it does not wait for the dead"
    parts = tmp_path / "parts"
    assert [path.name for path in checkpoints(parts / "checkpoints")] == ["step-000000004"]
    files = sorted(path.name for path in checkpoints(parts / "checkpoints")[0].glob("*.safetensors"))
    assert files == ["tensors-00001-of-00002.safetensors", "tensors-00002-of-00002.safetensors"]
    with meeting() as told:
        pair = [start("", arguments(digits, parts, *options), RANK=rank, **told) for rank in range(2)]
        assert [process.wait(END_SECONDS) for process in pair] == [0, 0]
    assert pair[0].stdout is not None
    assert "continued from step 4" in pair[0].stdout.read()
    assert metrics(parts) == metrics(tmp_path / "whole")
    for one, other in zip(*(checkpoints(out / "checkpoints") for out in (parts, tmp_path / "whole")), strict=True):
        for file in files:
            assert (one / file).read_bytes() == (other / file).read_bytes()


# Have no room left when the checkpoint of a step is written.
NO_ROOM = """
import resource
def full(tensors, file, metadata):
    if os.environ["RANK"] == "1" and file.parent.name.endswith("{step:09d}"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    save(tensors, file, metadata)
save = checkpoint_writer.save_file
checkpoint_writer.save_file = full
"""


@pytest.mark.slow
def test_a_full_disk_under_one_of_two_processes_ends_both(digits: Path, tmp_path: Path) -> None:
    """Both say why, by themselves, and the checkpoint before is there."""
    options, out = ("--steps", 60, "--checkpoint-every", 4, "--parallel", "data"), tmp_path / "run"
    with meeting() as told:
        pair = [start(NO_ROOM.format(step=8), arguments(digits, out, *options), RANK=rank, **told) for rank in range(2)]
        errors = [process.communicate(timeout=END_SECONDS)[1] for process in pair]
    assert [process.returncode for process in pair] == [1, 1]
    for error in errors:
        assert "step-000000008: cannot be written (" in error
        assert "make room and give the same command again" in error
    assert [path.name for path in checkpoints(out / "checkpoints")] == ["step-000000004"]
    assert not list((out / "checkpoints").glob(".partial-*"))


def test_a_torn_or_foreign_checkpoint_is_passed_over(digits: Path, tmp_path: Path, whole: Path) -> None:
    steps, out = ("--steps", 60, "--checkpoint-every", 5, "--keep", 9), tmp_path / "run"
    assert start(HALF.format(step=30), arguments(digits, out, *steps)).wait(END_SECONDS) == -signal.SIGKILL
    saved = {int(path.name[-9:]): path for path in checkpoints(out / "checkpoints")}
    assert list(saved) == [5, 10, 15, 20, 25]
    torn = saved[25] / "tensors.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    (saved[20] / "progress.json").unlink()
    progress = json.loads((saved[15] / "progress.json").read_text())
    progress["run"]["manifest"] = "another"
    (saved[15] / "progress.json").write_text(json.dumps(progress))
    list_anew(saved[15])
    (out / "checkpoints" / "step-of-mine").mkdir()
    resumed = run(digits, out, *steps[:-1], 3)  # how many stay may change on the way
    passed = [line for line in resumed.stderr.splitlines() if line.startswith("checkpoint passed over: ")]
    for name, words in (
        ("step-000000025", "not a whole checkpoint (its files are"),
        ("step-of-mine", "no SHA256SUMS"),
        ("step-000000020", "no progress.json"),
        ("step-000000015", "is of another run (manifest 'another' there"),
    ):
        assert [line for line in passed if name in line and words in line], passed
    assert "continued from step 10" in resumed.output
    assert_same_run(out, whole)


def test_another_network_in_the_folder_is_passed_over(digits: Path, tmp_path: Path) -> None:
    """Its checkpoint was put there by hand; with none before it, the run starts from its first step."""
    out = tmp_path / "run"
    run(digits, out, "--steps", 2)
    (out / "result.json").unlink()
    settings = json.loads((out / "settings.json").read_text())
    settings["train"]["steps"] = 4
    (out / "settings.json").write_text(json.dumps(settings))
    resumed = run(digits, out, "--steps", 4, "--set", "train.seed=0")
    assert "continued from step 2" in resumed.output
    (out / "result.json").unlink()
    settings["net"]["channels"] = 3
    (out / "settings.json").write_text(json.dumps(settings))
    resumed = run(digits, out, "--steps", 4, "--set", "net.channels=3")
    assert "step-000000004: is of another network: net." in resumed.stderr
    assert [record["step"] for record in metrics(out) if "loss" in record] == [1, 2, 3, 4]


def test_keep_says_how_many_stay(digits: Path, tmp_path: Path) -> None:
    run(digits, tmp_path / "run", "--steps", 10, "--checkpoint-every", 2, "--keep", 3)
    kept = [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")]
    assert kept == ["step-000000006", "step-000000008", "step-000000010"]
    assert "must be at least 1" in run(digits, tmp_path / "run", "--keep", 0, code=2).stderr


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_the_last_checkpoint_stays(digits: Path, tmp_path: Path, whole: Path) -> None:
    out, steps = tmp_path / "run", ("--steps", 60, "--checkpoint-every", 5)
    assert start(HALF.format(step=30), arguments(digits, out, *steps)).wait(END_SECONDS) == -signal.SIGKILL
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # the tensors are five times as large
    try:
        ended = run(digits, out, *steps, code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "step-000000030: cannot be written (" in ended.stderr
    assert "the checkpoints before it are kept; make room and give the same command again" in ended.stderr
    assert "continued from step 25" in run(digits, out, *steps).output
    assert_same_run(out, whole)


LAYOUTS: list[tuple[object, ...]] = [
    ("--gpus", 2, "--parallel", "owt"),
    (),
    ("--gpus", 4, "--parallel", "owt"),
    ("--gpus", 3, "--parallel", "data"),
]


def back_to(out: Path, step: int) -> None:
    """Take a finished run back to one of its checkpoints."""
    (out / "result.json").unlink()
    for path in checkpoints(out / "checkpoints"):
        if int(path.name[-9:]) > step:
            shutil.rmtree(path)


@pytest.mark.slow
def test_a_checkpoint_of_any_layout_goes_on_in_any_other(digits: Path, tmp_path: Path) -> None:
    """Sixteen steps in four layouts, four in each, are the sixteen of one process, but for the order of sums."""
    options = ("--steps", 16, "--checkpoint-every", 4, "--keep", 9, "--set", "train.precision=fp32")
    run(digits, tmp_path / "one", *options)
    out = tmp_path / "many"
    for number, layout in enumerate(LAYOUTS):
        if number:
            back_to(out, 4 * number)
        process = start("", arguments(digits, out, *options, *layout))
        printed, error = process.communicate(timeout=END_SECONDS)
        assert process.returncode == 0, error
        assert (f"continued from step {4 * number}" in printed) == (number > 0)
        if "owt" in layout:
            assert f"each convolves 1/{layout[1]} of a batch with all of c1, s2, c3, s4, c5, output and has" in printed
            assert f"1/{layout[1]} of the units of f6 for the whole batch" in printed
        for one, other in zip(metrics(tmp_path / "one"), metrics(out), strict=True):
            assert one.keys() == other.keys()
            assert other == pytest.approx(one, rel=1e-4, abs=1e-6)
    saved = [json.loads((path / "progress.json").read_text()) for path in checkpoints(out / "checkpoints")]
    of_layout = [(progress["run"]["layout"]["ranks"], progress["run"]["layout"]["owt"]) for progress in saved]
    assert of_layout == [(2, True), (1, False), (4, True), (3, False)]
