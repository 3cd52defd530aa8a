"""`alexnet-train --gpus 2 --device cpu`: the same training as in one process, and an end in every case."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from alexnet.model.checkpoint import load_checkpoint
from alexnet.tools.output_folder import locked
from alexnet.tools.run.launch import GRACE_SECONDS
from tests.runs import (
    END_SECONDS,
    LENET,
    REFUSED,
    in_processes,
    losses,
    meeting,
    newest,
    result_of,
    saved,
    start,
    train,
    wait_for,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ("--recipe", "small", "--device", "cpu", "--set", "train.train_accuracy=false")
# One image on one rank, two on the other; saved when told to stop, and at the end.
STEPS = ("--steps", "10", "--checkpoint-every", "1000", "--set", "train.batch_images=3")
REPLICAS = (*LENET, "--gpus", 2, "--parallel", "data")


def workers_of(process: subprocess.Popen[str], words: str) -> list[int]:
    """Return the process numbers of the ranks, in order of their start."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return sorted(int(pid) for pid in children if words in Path(f"/proc/{pid}/cmdline").read_text())


def test_a_pair_told_to_stop_saves_and_continues(digits: Path, tmp_path: Path) -> None:
    """Of a run that would be long, however fast the machine is; it is made shorter once it has stopped."""
    rule = (digits, *LENET, "--checkpoint-every", 50_000, "--set", "schedule.kind=constant")
    pair = start(*rule, *REPLICAS, "--steps", 50_000, "--out", tmp_path / "pair")
    printed = wait_for(pair, "step 1 ")
    assert "layout: 2 processes over gloo; " in printed
    assert "rank 0 of 2" in printed, "each decodes its share"
    pair.send_signal(signal.SIGTERM)
    rest, error = pair.communicate(timeout=END_SECONDS)
    assert pair.returncode == 130, error
    assert "saved; the same command continues" in rest
    assert error.startswith("stopping after this step, with a checkpoint")
    assert error.count("\n") == 1
    (stopped_at,) = saved(tmp_path / "pair")
    settings = tmp_path / "pair" / "settings.json"
    settings.write_text(settings.read_text().replace('"steps": 50000', f'"steps": {stopped_at + 2}'))
    shorter = (*rule, "--steps", stopped_at + 2)
    train(*shorter, "--out", tmp_path / "one")
    continued = train(*shorter, "--out", tmp_path / "pair", "--resume")
    assert f"continued from step {stopped_at}" in continued
    (steps, paired), (expected_steps, expected) = (zip(*losses(tmp_path / out), strict=True) for out in ("pair", "one"))
    assert steps == expected_steps
    assert paired[:8] == pytest.approx(expected[:8], rel=1e-2), "later the order of sums has grown"


@pytest.mark.slow
@pytest.mark.parametrize("output", ["full", "left"])
def test_output_that_cannot_be_written_ends_as_that_of_one_process(digits: Path, tmp_path: Path, output: str) -> None:
    """A full disk: the run is done, and exit code 1 says that its log is not whole. A reader that left: silence.

    And no library has anything to add, of replicas that share a network with buffers.
    """
    reader, writer = os.pipe()
    os.close(reader)
    options = (digits, *REPLICAS, "--steps", 2, "--out", tmp_path / "run")
    with Path("/dev/full").open("w") as full:
        process = start(*options, stdout=full if output == "full" else writer)
        _, error = process.communicate(timeout=END_SECONDS)
    os.close(writer)
    lines = [
        "standard output: No space left on device; what else was to be printed there is lost",
        "Error: standard output could not be written; the run itself is complete",
    ]
    assert (process.returncode, error.splitlines()) == (1, lines if output == "full" else [])
    assert (tmp_path / "run" / "result.json").exists() == (output == "full")


def test_a_dead_rank_ends_the_run(digits: Path, tmp_path: Path) -> None:
    pair = start(digits, *REPLICAS, "--steps", 50_000, "--out", tmp_path / "run")
    wait_for(pair, "step 1 ")
    ranks = workers_of(pair, "spawn_main")
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
    one, some = tmp_path / "one", tmp_path / "some"
    train(ci_100, *run, "--out", one)
    os.renames(saved(one)[5], some / "checkpoints" / "step-000000005")
    for name in ("settings.json", "metrics.jsonl"):
        (some / name).write_text((one / name).read_text())
    arguments = (ci_100, *run, "--gpus", gpus, "--parallel", parallel, "--out", some)
    assert "continued from step 5" in in_processes(*arguments)[0]
    results = [result_of(out) for out in (one, some)]
    if (gpus, parallel) == (2, "towers"):
        assert losses(some) == losses(one)
        assert results[0]["validation"] == results[1]["validation"]
    for (_, loss), (_, expected) in zip(losses(some), losses(one), strict=True):
        assert loss == pytest.approx(expected, rel=2e-2)  # bf16 has 8 bits: a rounding is 4e-3, and there are many
    for split, views in (("validation", 1), ("final_validation", 10)):
        ended, expected_end = (result[split] for result in results)
        assert (ended["images"], expected_end["images"], ended["views"]) == (20, 20, views)
        assert ended["loss"] == pytest.approx(expected_end["loss"], rel=2e-2)
    assert len(list(newest(some).glob("*.safetensors"))) == gpus, "each writes its share"
    theirs, ours = (load_checkpoint(newest(out)).tensors for out in (some, one))
    assert {name: tensor.shape for name, tensor in theirs.items()} == {name: t.shape for name, t in ours.items()}
    for name in ours:
        if name.startswith("net.") and name.endswith(".weight"):  # drawn alike, and moved by thousandths since
            assert (theirs[name] - ours[name]).abs().max() < 1e-2 * ours[name].abs().max(), name
    error = in_processes(*arguments, code=2)[1]
    assert error.count("Error: ") == 1
    assert "holds a finished run" in error


@pytest.mark.slow
def test_the_small_recipe_learns_the_bundled_images_in_one_process_and_in_a_pair(ci_100: Path, tmp_path: Path) -> None:
    """The network reaches 95% on the 100 training images, seen without augmentation and dropout."""
    whole = (ci_100, "--recipe", "small", "--device", "cpu")
    output = train(*whole, "--out", tmp_path / "one")
    in_processes(*whole, "--gpus", 2, "--out", tmp_path / "pair")
    one, pair = (result_of(tmp_path / name) for name in ("one", "pair"))
    assert one["training"]["top1"] >= 0.95
    assert (one["training"]["images"], one["validation"]["images"]) == (100, 20)
    assert "(20/20 images, each once)" in output
    logged = losses(tmp_path / "one")
    assert sum(loss for _, loss in logged[-5:]) / 5 < 0.5 * logged[0][1]
    settings = json.loads((tmp_path / "one" / "settings.json").read_text())
    assert (settings["train"]["batch_images"], settings["net"]["classes"]) == (20, 10)
    assert losses(tmp_path / "pair") == logged
    assert [pair[split] for split in ("training", "validation")] == [one[split] for split in ("training", "validation")]


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
    os.kill(workers_of(run, "lenet-5")[victim], signal.SIGKILL)
    run.communicate(timeout=END_SECONDS)
    assert run.returncode == 1
    said = [line for log in (tmp_path / "log").rglob("stderr.log") for line in log.read_text().splitlines()]
    assert len(said) <= 1  # torchrun ends it, too, which may be first
    assert all(line.startswith("Error: another process of this run has ended, or cannot be reached (") for line in said)


@pytest.mark.slow
def test_of_several_processes_none_waits_for_the_first_that_is_refused(digits: Path, tmp_path: Path) -> None:
    """Started by the command itself, and as torchrun starts them."""
    out = tmp_path / "run"
    options = (digits, *LENET, "--steps", 4, "--parallel", "data", "--out", out)
    with locked(out, "alexnet-train"), meeting() as ranks:
        assert in_processes(*options, "--gpus", 2, code=2)[1] == f"Error: {out}: {REFUSED}"
        for process in [start(*options, told=told) for told in ranks]:
            assert process.communicate(timeout=END_SECONDS)[1] == f"Error: {out}: {REFUSED}"
            assert process.returncode == 2
    assert not out.exists()


@pytest.mark.slow
def test_processes_with_other_data_refuse_to_begin(digits: Path, tmp_path: Path) -> None:
    """As two machines may have, or as object storage gives that is written while they start."""
    options = (*LENET, "--steps", 4, "--parallel", "data", "--out", tmp_path / "run")
    other = tmp_path / "other"
    shutil.copytree(digits, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["classes"][0]["words"] = "another"
    (other / "manifest.json").write_text(json.dumps(manifest))
    with meeting() as ranks:
        for process in [start(data, *options, told=told) for data, told in zip((digits, other), ranks, strict=True)]:
            error = process.communicate(timeout=END_SECONDS)[1]
            assert error.endswith("is not the same data set for all processes; give the same command again\n")
            assert process.returncode == 2
    assert not (tmp_path / "run").exists()
