"""The converter outlives what happens to it: kills at any moment, workers and nodes that die, images that kill."""

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import read_manifest
from alexnet.tools.convert.build import BuildOptions, build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source
from alexnet.tools.progress import Amount
from tests.conftest import digests, encode_picture
from tests.sources import write_official

SETTINGS = ConvertSettings(size_px=256, shard_images=12, seed=3)
OPTIONS = ("--shard-images", "12", "--seed", "3", "--workers", "2")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """180 pictures of ImageNet's size: a second or two of work."""
    root = tmp_path_factory.mktemp("official")
    pictures = [encode_picture(i, 500, 375) for i in range(30)]
    words = {f"n0000000{k}": "thing" for k in range(3)}
    train = {wnid: {f"{wnid}_{i}.JPEG": pictures[i % 30] for i in range(55)} for wnid in words}
    train["n00000001"]["n00000001_7.JPEG"] = b"no image"
    write_official(root, words, train, [(f"n0000000{i % 3}", pictures[i]) for i in range(15)])
    return root


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("undisturbed") / "set"
    build(open_source(source), root, SETTINGS, BuildOptions(workers=1))
    return digests(root)


def start(source: Path, root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "alexnet.tools.prep", "shard", str(source), "--out", str(root), *OPTIONS]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def children(pid: int) -> list[int]:
    """Return the pids of a process's worker processes (not of multiprocessing's resource tracker)."""
    found = []
    for task in Path("/proc").glob("[0-9]*"):
        try:
            fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
            command = (task / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == pid and b"spawn_main" in command:
            found.append(int(task.name))
    return found


def wait_until_a_worker_starts(process: subprocess.Popen[str]) -> None:
    """Wait until Python runs in a worker and loads NumPy: our own code is about to be read there."""
    while process.poll() is None:
        for pid in children(process.pid):
            with contextlib.suppress(OSError):
                if b"_multiarray_umath" in Path(f"/proc/{pid}/maps").read_bytes():
                    return


def assert_gone(pids: list[int]) -> None:
    """Wait for processes that are not ours to reap, ten seconds at most."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([handle], [], [], 10)[0], f"process {pid} outlived its parent"
        finally:
            os.close(handle)


def disturb_until_done(source: Path, root: Path, seed: int, kills: int) -> None:
    """Run the command, strike at random moments, and run it again until it is done."""
    rng = random.Random(seed)
    left = kills
    for _ in range(10 * kills + 10):
        process = start(source, root)
        try:
            process.wait(timeout=rng.uniform(0.2, 1.6) if left else 120)
        except subprocess.TimeoutExpired:
            left -= 1
            workers = children(process.pid)
            struck = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM, None])
            if struck is None:
                for pid in workers[:1]:
                    os.kill(pid, signal.SIGKILL)
            else:
                process.send_signal(struck)
            process.wait(timeout=120)
            if struck is not None:
                assert_gone(workers)
        output, errors = process.communicate()
        # A worker whose parent is killed while it starts leaves Python's own words: none of ours has run there.
        killed = process.returncode == -signal.SIGKILL
        assert not output or killed or "Traceback" not in errors, errors
        if process.returncode == 0:
            return
        loading = not output  # struck before the command began: Python itself answers
        assert loading or process.returncode in (130, -signal.SIGKILL), (process.returncode, output, errors)
    raise AssertionError("it never finished")


@pytest.mark.parametrize(("seeds", "kills"), [((0,), 2), pytest.param(range(100, 120), 3, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_continues_and_gives_the_same_bytes(
    source: Path, undisturbed: dict[str, str], tmp_path: Path, seeds: Sequence[int], kills: int
) -> None:
    for seed in seeds:
        disturb_until_done(source, tmp_path / str(seed), seed, kills)
        assert digests(tmp_path / str(seed)) == undisturbed


def test_ctrl_c_reaches_workers_too_and_only_the_command_answers(source: Path, tmp_path: Path) -> None:
    """A terminal sends it to all processes; one in which Python is starting would print a traceback."""
    process = start(source, tmp_path / "set")
    wait_until_a_worker_starts(process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, "interrupted; the same command continues\n")


SABOTAGE = """
import os, signal
from pathlib import Path
import alexnet.tools.convert.image as resize
ordinary = resize.convert_image

def convert_image(data, *arguments):
    if b"CRASH" in data:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"DEVOUR" in data:
        raise MemoryError
    if b"ONCE" in data and Path(os.environ["FUSE"]).exists():
        Path(os.environ["FUSE"]).unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return ordinary(data, *arguments)

resize.convert_image = convert_image
"""


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source with images that crash the decoder, eat all memory, or die once for no fault of theirs."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SABOTAGE)
    (tmp_path / "fuse").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("FUSE", str(tmp_path / "fuse"))
    pictures = {f"n00000001_{i}.JPEG": encode_picture(i) for i in range(20)}
    pictures["n00000001_3.JPEG"] += b"CRASH"
    pictures["n00000001_7.JPEG"] += b"DEVOUR"
    pictures["n00000001_12.JPEG"] += b"ONCE"
    root = tmp_path / "source"
    write_official(root, {"n00000001": "thing"}, {"n00000001": pictures}, [("n00000001", encode_picture(99))])
    return root


def test_images_that_kill_are_rejected_and_the_innocent_kept(deadly: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    build(open_source(deadly), root, ConvertSettings(size_px=40, shard_images=10), BuildOptions(workers=2))
    manifest = read_manifest(root)
    assert (manifest.counts["train"].written, manifest.counts["train"].rejected) == (18, 2)
    rejected = (root / "rejected.jsonl").read_text()
    assert "the decoder crashes on it (SIGSEGV)" in rejected
    assert "decoding takes more than 2 GiB of memory" in rejected
    assert "n00000001_12.JPEG" not in rejected, "killed from outside, it was tried again"
    assert not (tmp_path / "fuse").exists()


@pytest.fixture
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray", reason="install the extra `ray`; `make test-all` does")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_ray_cluster_of_two_nodes_one_of_them_lost_gives_the_same_bytes(
    source: Path, undisturbed: dict[str, str], cluster: Any, tmp_path: Path
) -> None:
    second = cluster.add_node(num_cpus=1)
    lost: list[int] = []

    def lose_a_node(amount: Amount) -> None:
        if amount.done >= 30 and not lost:
            assert amount.done < 180, "the node must be lost in the middle"
            lost.append(amount.done)
            cluster.remove_node(second, allow_graceful=False)

    options = BuildOptions(engine="ray", address=cluster.address)
    build(open_source(source), tmp_path / "set", SETTINGS, options, lose_a_node)
    assert lost
    assert digests(tmp_path / "set") == undisturbed


@pytest.mark.slow
def test_a_ray_cluster_that_is_not_there_is_one_line(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="install the extra `ray`; `make test-all` does")
    options = BuildOptions(engine="ray", address="127.0.0.1:1")
    with pytest.raises(InputError, match=r"--address 127\.0\.0\.1:1: no Ray cluster answers there"):
        build(open_source(source), tmp_path / "set", SETTINGS, options)
