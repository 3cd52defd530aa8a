"""`alexnet-train --gpus 2 --device cpu`: the same training as in one process, and an end in every case."""

import filecmp
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from alexnet.model.checkpoint import load_checkpoint
from alexnet.tools.run.launch import GRACE_SECONDS
from tests.runs import LENET, losses, newest, records, result_of, train

SMALL = ("--recipe", "small", "--device", "cpu", "--set", "train.train_accuracy=false")
# One image on one rank, two on the other; saved when told to stop, and at the end.
STEPS = ("--steps", "10", "--checkpoint-every", "1000", "--set", "train.batch_images=3")
END_SECONDS = 600  # after which whatever was started hangs, on the slowest machine


def start(*arguments: object, stdout: IO[str] | int = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from alexnet.tools.train import main; main()", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], words: str) -> str:
    """Read what a process prints up to a line that begins with these words."""
    read = ""
    assert process.stdout is not None
    for line in process.stdout:
        read += line
        if line.startswith(words):
            return read
    raise AssertionError(read + (process.stderr.read() if process.stderr else ""))


def in_processes(*arguments: object, code: int = 0) -> tuple[str, str]:
    process = start(*arguments)
    out, err = process.communicate(timeout=END_SECONDS)
    assert process.returncode == code, err
    return out, err


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the process numbers of the ranks, in order of their start."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return sorted(int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_pair_told_to_stop_saves_and_continues_train(ci_100: Path, tmp_path: Path) -> None:
    """Losses to the bit, whoever computed them, and the same weights at the end.

    Of a run that would be long, however fast the machine is; it is made shorter once it has stopped.
    """
    rule = (*SMALL, "--checkpoint-every", 5000, "--set", "train.batch_images=3", "--set", "schedule.kind=constant")
    pair = start(ci_100, *rule, "--steps", 5000, "--gpus", 2, "--out", tmp_path / "pair")
    printed = wait_for(pair, "step 1 ")
    assert "layout: 2 processes over gloo; rank 0 tower 1, rank 1 tower 2" in printed
    assert "meeting at conv3, fc6, fc7, fc8" in printed
    assert "rank 0 of 2" in printed, "each decodes its share"
    pair.send_signal(signal.SIGTERM)
    rest, error = pair.communicate(timeout=END_SECONDS)
    assert pair.returncode == 130, error
    assert "saved; the same command continues" in rest
    assert error.startswith("stopping after this step, with a checkpoint")
    assert error.count("\n") == 1
    stopped_at = int(newest(tmp_path / "pair").name.removeprefix("step-"))
    assert stopped_at >= 1
    settings = tmp_path / "pair" / "settings.json"
    shorter = (*rule, "--steps", stopped_at + 2)
    settings.write_text(settings.read_text().replace('"steps": 5000', f'"steps": {stopped_at + 2}'))
    train(ci_100, *shorter, "--out", tmp_path / "one")
    paired = losses(tmp_path / "pair")
    assert paired == losses(tmp_path / "one")[: len(paired)]
    # The gradients are equal to the bit; their squares are added in fp32, tower by tower or parameter by parameter.
    norms, expected = ([r["grad_norm"] for r in records(tmp_path / name, "loss")] for name in ("pair", "one"))
    assert norms == pytest.approx(expected[: len(norms)], rel=1e-6)

    continued = train(ci_100, *shorter, "--out", tmp_path / "pair", "--resume")
    assert f"continued from step {stopped_at}" in continued
    assert losses(tmp_path / "pair") == losses(tmp_path / "one")
    pairs, ones = (newest(tmp_path / name) / "tensors.safetensors" for name in ("pair", "one"))
    assert filecmp.cmp(pairs, ones, shallow=False)


@pytest.mark.slow
@pytest.mark.parametrize("output", ["full", "left"])
def test_output_that_cannot_be_written_ends_as_that_of_one_process(digits: Path, tmp_path: Path, output: str) -> None:
    """A full disk: the run is done, and exit code 1 says that its log is not whole. A reader that left: silence.

    And no library has anything to add, of replicas that share a network with buffers.
    """
    reader, writer = os.pipe()
    os.close(reader)
    options = (*LENET, "--gpus", 2, "--parallel", "data", "--steps", 2)
    with Path("/dev/full").open("w") as full:
        process = start(digits, *options, "--out", tmp_path / "run", stdout=full if output == "full" else writer)
        _, error = process.communicate(timeout=END_SECONDS)
    os.close(writer)
    lines = [
        "standard output: No space left on device; what else was to be printed there is lost",
        "Error: standard output could not be written; the run itself is complete",
    ]
    assert (process.returncode, error.splitlines()) == (1, lines if output == "full" else [])
    assert (tmp_path / "run" / "result.json").exists() == (output == "full")


def test_a_dead_rank_ends_the_run(ci_100: Path, tmp_path: Path) -> None:
    pair = start(ci_100, *SMALL, "--steps", 500, "--gpus", 2, "--out", tmp_path / "run")
    wait_for(pair, "step 1 ")
    ranks = workers_of(pair)
    os.kill(ranks[1], signal.SIGKILL)
    _, error = pair.communicate(timeout=END_SECONDS)
    assert 2 * GRACE_SECONDS < 30, "what the others have to leave, however they hang"
    assert pair.returncode == 1
    assert f"Error: rank 1 (process {ranks[1]}) was ended by SIGKILL" in error
    assert "Traceback" not in error
    assert not [pid for pid in ranks if Path(f"/proc/{pid}").exists()]


def test_what_cannot_be_divided_is_refused_before_anything_starts(ci_100: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (("--gpus", 0), "--gpus 0: must be at least 1"),
        (("--gpus", 3), "--gpus 3: must be 1 or a multiple of 2"),
        (("--gpus", 2, "--arch", "alexnet-owt"), "--parallel data or owt works"),
        (("--gpus", 3, "--parallel", "owt"), "--parallel owt: 3 processes cannot divide the 2,048 units of fc6"),
        (("--gpus", 2, "--set", "stream.on_error=skip"), "stream.on_error=skip: works with --gpus 1 only"),
        (("--gpus", 2, "--set", "train.batch_images=1"), "train.batch_images=1: must be at least 2"),
    ):
        printed = train(ci_100, *SMALL, *arguments, "--out", tmp_path / "run", code=2)
        assert words in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("gpus", "parallel"), [(2, "towers"), (4, "towers"), (3, "data"), (2, "owt"), (4, "owt")])
def test_a_run_of_one_process_continues_in_several(ci_100: Path, tmp_path: Path, gpus: int, parallel: str) -> None:
    """Losses as in one process: to the bit for a pair; for replicas to what sums in another order make of it."""
    run = (*SMALL, "--steps", "10", "--checkpoint-every", "5", "--set", "train.batch_images=7", "--final-views", "10")
    train(ci_100, *run, "--out", tmp_path / "one")
    os.renames(
        tmp_path / "one" / "checkpoints" / "step-000000005", tmp_path / "some" / "checkpoints" / "step-000000005"
    )
    for name in ("settings.json", "metrics.jsonl"):
        (tmp_path / "some" / name).write_text((tmp_path / "one" / name).read_text())
    arguments = (ci_100, *run, "--gpus", gpus, "--parallel", parallel, "--out", tmp_path / "some")
    printed, _ = in_processes(*arguments)
    assert "continued from step 5" in printed
    results = [result_of(tmp_path / name) for name in ("one", "some")]
    if (gpus, parallel) == (2, "towers"):
        assert losses(tmp_path / "some") == losses(tmp_path / "one")
        assert results[0]["validation"] == results[1]["validation"]
    for (_, loss), (_, expected) in zip(losses(tmp_path / "some"), losses(tmp_path / "one"), strict=True):
        assert loss == pytest.approx(expected, rel=2e-2)  # bf16 has 8 bits: a rounding is 4e-3, and there are many
    for split in ("validation", "final_validation"):
        one, some = (result[split] for result in results)
        assert some["images"] == one["images"] == 20
        assert some["loss"] == pytest.approx(one["loss"], rel=2e-2)
        assert some["views"] == (10 if split == "final_validation" else 1)
    assert len(list(newest(tmp_path / "some").glob("*.safetensors"))) == gpus, "each writes its share"
    some, one = (load_checkpoint(newest(tmp_path / name)).tensors for name in ("some", "one"))
    assert {name: tensor.shape for name, tensor in some.items()} == {name: tensor.shape for name, tensor in one.items()}
    for name in one:
        if name.startswith("net.") and name.endswith(".weight"):  # drawn alike, and moved by thousandths since
            assert (some[name] - one[name]).abs().max() < 1e-2 * one[name].abs().max(), name
    _, error = in_processes(*arguments, code=2)
    assert error.count("Error: ") == 1
    assert "holds a finished run" in error


@pytest.mark.slow
def test_a_pair_learns_the_bundled_images_as_one_process_does(ci_100: Path, tmp_path: Path) -> None:
    whole = ("--recipe", "small", "--device", "cpu")
    train(ci_100, *whole, "--out", tmp_path / "one")
    in_processes(ci_100, *whole, "--gpus", 2, "--out", tmp_path / "pair")
    results = [result_of(tmp_path / name) for name in ("one", "pair")]
    assert losses(tmp_path / "pair") == losses(tmp_path / "one")
    assert results[1]["training"]["top1"] >= 0.95
    assert [results[1][split] for split in ("training", "validation")] == [
        results[0][split] for split in ("training", "validation")
    ]


@pytest.mark.slow
def test_two_machines_under_torchrun_train_as_one_process_does(ci_100: Path, tmp_path: Path) -> None:
    """Two agents that meet, each with one process: a tower on each machine, both of which are this one."""
    train(ci_100, *SMALL, *STEPS, "--out", tmp_path / "one")
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # a port that was looked up can be lost
    where = ("--rdzv-endpoint", f"127.0.0.1:{store.port}", "--rdzv-conf", "is_host=false", "--local-addr", "127.0.0.1")
    meeting = ("--rdzv-backend", "c10d", *where)
    agent = (sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *meeting)
    trains = (sys.executable, "-c", "from alexnet.tools.train import main; main()")
    arguments = (ci_100, *SMALL, *STEPS, "--out", tmp_path / "two")
    command = [*agent, "--no-python", *trains, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    agents = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [agent.communicate(timeout=END_SECONDS)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0]
    assert sorted("layout: 2 processes over gloo" in text for text in printed) == [False, True], "the first one speaks"
    assert losses(tmp_path / "two") == losses(tmp_path / "one")
    tensors = [load_checkpoint(newest(tmp_path / name)).tensors for name in ("two", "one")]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_of_torchrun_that_loses_another_says_so_in_a_line(digits: Path, tmp_path: Path, victim: int) -> None:
    """While it trains and writes checkpoints; torchrun has a report of its own."""
    agent = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    apart = ("--redirects", "2", "--log-dir", tmp_path / "log", "--no-python")
    trains = (sys.executable, "-c", "from alexnet.tools.train import main; main()", digits, "--arch", "lenet-5")
    options = ("--parallel", "data", "--device", "cpu", "--steps", 100_000, "--checkpoint-every", 1)
    arguments = (*agent, *apart, *trains, *options, "--set", "train.batch_images=8", "--out", tmp_path / "run")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    run = subprocess.Popen(list(map(str, arguments)), env=environment, stdout=subprocess.PIPE, stderr=-1, text=True)
    wait_for(run, "step 1 ")
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    workers = [int(pid) for pid in children if "lenet-5" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(sorted(workers)[victim], signal.SIGKILL)
    run.communicate(timeout=END_SECONDS)
    assert run.returncode == 1
    said = [line for log in (tmp_path / "log").rglob("stderr.log") for line in log.read_text().splitlines()]
    assert len(said) <= 1  # torchrun ends it, too, which may be first
    assert all(line.startswith("Error: another process of this run has ended, or cannot be reached (") for line in said)
