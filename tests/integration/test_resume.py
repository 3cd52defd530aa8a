"""Runs that were cut off, anywhere and by anything, and taken up again: the same run, to the bit."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.conftest import list_anew
from tests.runs import END_SECONDS, measured, meeting, outcome, records, saved, start, tensors_of, trained
from tests.unit.model.test_checkpoint_damage import DAMAGES, NEWEST

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = ("--arch", "lenet-5", "--device", "cpu", "--set", "train.batch_images=6")
STEPS = ("--steps", 6, "--checkpoint-every", 2)
"""Four steps are an epoch: checkpoints in the middle of the first and of the second, and at the end of the first."""

# Write half of the file that is the checkpoint of a step, and be killed.
HALF = """
import os, signal
from alexnet.model import checkpoint_writer
def half(tensors, file, metadata):
    save(tensors, file, metadata)
    if os.environ.get("RANK", "1") == "1" and file.parent.name.endswith("{step:09d}"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        os.kill(os.getpid(), signal.SIGKILL)
save = checkpoint_writer.save_file
checkpoint_writer.save_file = half
"""


@pytest.fixture(scope="module")
def whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without an interruption, with all of its checkpoints."""
    out: Path = tmp_path_factory.mktemp("whole") / "run"
    trained(digits, *OPTIONS, *STEPS, "--keep", 3, "--out", out)
    return out


@pytest.fixture
def parts(whole: Path, tmp_path: Path) -> Path:
    """That run, about to be marked as finished."""
    out: Path = shutil.copytree(whole, tmp_path / "parts")
    (out / "result.json").unlink()
    return out


@pytest.mark.parametrize("step", [4, pytest.param(6, marks=pytest.mark.slow)])
def test_killed_in_the_middle_of_a_checkpoint(digits: Path, tmp_path: Path, whole: Path, step: int) -> None:
    options = (digits, *OPTIONS, *STEPS, "--keep", 3, "--out", tmp_path / "run")
    assert start(*options, before=HALF.format(step=step)).wait(END_SECONDS) == -signal.SIGKILL
    assert list((tmp_path / "run" / "checkpoints").glob(".partial-*"))
    assert f"continued from step {step - 2}" in trained(*options, "--resume").output
    assert not list((tmp_path / "run" / "checkpoints").glob(".partial-*"))
    assert outcome(tmp_path / "run") == outcome(whole)


@pytest.mark.parametrize("step", [0, 2, 4, 6])
def test_any_checkpoint_is_gone_on_from(digits: Path, whole: Path, parts: Path, step: int) -> None:
    """After the last step nothing is done again but the validation; how many checkpoints stay may change."""
    for later in [path for number, path in saved(parts).items() if number > step]:
        shutil.rmtree(later)
    printed = trained(digits, *OPTIONS, *STEPS, "--keep", 1, "--out", parts).output
    assert (f"continued from step {step}" in printed) == (step > 0)
    assert measured(parts) == measured(whole)
    assert (list(saved(parts)), tensors_of(parts)) == ([6], tensors_of(whole))


def test_a_checkpoint_says_that_the_next_epoch_comes_and_earlier_versions_that_the_one_before_ended(
    digits: Path, whole: Path, parts: Path
) -> None:
    shutil.rmtree(saved(parts)[6])
    file = saved(parts)[4] / "progress.json"
    progress = json.loads(file.read_text())
    assert (progress["source"]["epoch"], progress["source"]["step"], progress["validation_due"]) == (1, 0, False)
    progress["source"] |= {"epoch": 0, "step": 4}
    file.write_text(json.dumps(progress))
    list_anew(file.parent)
    assert "continued from step 4" in trained(digits, *OPTIONS, *STEPS, "--out", parts).output
    assert (measured(parts), tensors_of(parts)) == (measured(whole), tensors_of(whole))


def test_a_torn_or_foreign_checkpoint_is_passed_over(digits: Path, whole: Path, parts: Path) -> None:
    torn = saved(parts)[6] / "tensors.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    foreign = saved(parts)[4] / "progress.json"
    foreign.write_text(json.dumps({**(told := json.loads(foreign.read_text())), "run": {**told["run"], "seed": 5}}))
    list_anew(foreign.parent)
    (parts / "checkpoints" / "step-of-mine").mkdir()
    resumed = trained(digits, *OPTIONS, *STEPS, "--keep", 3, "--out", parts)
    passed = "\n".join(line for line in resumed.stderr.splitlines() if line.startswith("checkpoint passed over: "))
    for words in (
        "6: not a whole checkpoint (its files are",
        "of-mine: not a whole",
        "4: is of another run (seed 5 there",
    ):
        assert f"step-{'0' * 8 * words[0].isdigit()}{words}" in passed
    assert "continued from step 2" in resumed.output
    assert (measured(parts), tensors_of(parts)) == (measured(whole), tensors_of(whole))


@pytest.mark.slow
@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_run_goes_on(digits: Path, whole: Path, parts: Path, what: str) -> None:
    DAMAGES[what](parts / "checkpoints" / NEWEST)
    resumed = trained(digits, *OPTIONS, *STEPS, "--keep", 3, "--out", parts)
    passed = resumed.stderr.splitlines()
    assert [line.startswith("checkpoint passed over: ") and NEWEST in line for line in passed] == [True], passed
    assert "continued from step 4" in resumed.output
    assert outcome(parts) == outcome(whole)


def test_a_run_of_another_network_in_the_folder_is_passed_over(digits: Path, parts: Path) -> None:
    """Its checkpoints were put there by hand; with none before it, the run starts from its first step."""
    settings = json.loads((parts / "settings.json").read_text())
    settings["net"]["channels"] = 3
    (parts / "settings.json").write_text(json.dumps(settings))
    resumed = trained(digits, *OPTIONS, *STEPS, "--set", "net.channels=3", "--out", parts)
    assert resumed.stderr.count(": is of another network: net.") == 3
    assert [record["step"] for record in records(parts, "loss")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_one_of_two_processes_killed_in_the_middle_of_its_share(digits: Path, tmp_path: Path) -> None:
    """Both hold the network and each writes a half of it; one dies in its own. The next call goes on from before."""
    outs = (tmp_path / "whole", tmp_path / "parts", tmp_path / "parts")
    for out, code, ends in zip(outs, ("", HALF.format(step=4), ""), (0, -signal.SIGKILL, 0), strict=True):
        options = (digits, *OPTIONS, *STEPS, "--parallel", "data", "--out", out)
        with meeting() as ranks:
            pair = [start(*options, before=code, told=told) for told in ranks]
            assert pair[1].wait(END_SECONDS) == ends
            assert (pair[0].wait(END_SECONDS) > 0) == (ends != 0), "it does not wait for the dead"
        if ends:
            assert list(saved(out)) == [2]
            names = sorted(path.name for path in saved(out)[2].glob("*.safetensors"))
            assert names == ["tensors-00001-of-00002.safetensors", "tensors-00002-of-00002.safetensors"]
    assert pair[0].stdout is not None
    assert "continued from step 2" in pair[0].stdout.read()
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


# Have no room left when the checkpoint of a step is written.
NO_ROOM = """
import os, resource
from alexnet.model import checkpoint_writer
def full(tensors, file, metadata):
    if os.environ["RANK"] == "1" and file.parent.name.endswith("000000004"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    save(tensors, file, metadata)
save = checkpoint_writer.save_file
checkpoint_writer.save_file = full
"""


@pytest.mark.slow
def test_a_full_disk_under_one_of_two_processes_ends_both(digits: Path, tmp_path: Path) -> None:
    """Both say why, by themselves, and the checkpoint before is there."""
    options = (digits, *OPTIONS, *STEPS, "--steps", 60, "--parallel", "data", "--out", tmp_path / "run")
    with meeting() as ranks:
        pair = [start(*options, before=NO_ROOM, told=told) for told in ranks]
        errors = [process.communicate(timeout=END_SECONDS)[1] for process in pair]
    assert [process.returncode for process in pair] == [1, 1]
    for error in errors:
        assert "step-000000004: cannot be written (" in error
        assert "make room and give the same command again" in error
    assert list(saved(tmp_path / "run")) == [2]
    assert not list((tmp_path / "run" / "checkpoints").glob(".partial-*"))


LAYOUTS: list[tuple[object, ...]] = [
    ("--gpus", 2, "--parallel", "owt"),
    (),
    ("--gpus", 4, "--parallel", "owt"),
    ("--gpus", 3, "--parallel", "data"),
]


@pytest.mark.slow
def test_a_checkpoint_of_any_layout_goes_on_in_any_other(digits: Path, tmp_path: Path) -> None:
    """Sixteen steps in four layouts, four in each, are the sixteen of one process, but for the order of sums."""
    options = (digits, *OPTIONS, "--steps", 16, "--checkpoint-every", 4, "--keep", 9, "--set", "train.precision=fp32")
    trained(*options, "--out", tmp_path / "one")
    out = tmp_path / "many"
    for number, layout in enumerate(LAYOUTS):
        if number:
            (out / "result.json").unlink()
            for later in [path for step, path in saved(out).items() if step > 4 * number]:
                shutil.rmtree(later)
        process = start(*options, *layout, "--out", out)
        printed, error = process.communicate(timeout=END_SECONDS)
        assert process.returncode == 0, error
        assert (f"continued from step {4 * number}" in printed) == (number > 0)
        if "owt" in layout:
            assert f"each convolves 1/{layout[1]} of a batch with all of c1, s2, c3, s4, c5, output and has" in printed
            assert f"1/{layout[1]} of the units of f6 for the whole batch" in printed
        for one, other in zip(measured(tmp_path / "one"), measured(out), strict=True):
            assert one.keys() == other.keys()
            assert other == pytest.approx(one, rel=1e-4, abs=1e-6)
    of_layout = [json.loads((path / "progress.json").read_text())["run"]["layout"] for path in saved(out).values()]
    assert [(one["ranks"], one["owt"]) for one in of_layout] == [(2, True), (1, False), (4, True), (3, False)]
