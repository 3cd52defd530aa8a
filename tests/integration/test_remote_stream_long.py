"""Whole runs from object storage, in processes of their own: servers that restart, kills, and a disk that is full."""

import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from alexnet.pipeline import ImageStream, StreamSettings
from tests.cache_watch import watched
from tests.faulty_proxy import Fault, FaultyProxy
from tests.object_storage import ObjectServer

pytestmark = pytest.mark.slow

IMAGES, SHARD_IMAGES, EPOCHS = 600, 50, 2
CACHE_GB = 0.009  # of the 0.013 GB that the shards have
SETTINGS = {"order": "blocks", "window_shards": 2}
REPOSITORY = Path(__file__).parents[2]
RANK = """
import hashlib, json, sys
from alexnet import ImageStream, StreamSettings
path, cache, gb, rank, ranks, first = sys.argv[1:]
settings = StreamSettings(order="blocks", window_shards=2, cache=cache, cache_gb=float(gb))
with ImageStream(path, batch_images=32, seed=1, rank=int(rank), world_size=int(ranks), settings=settings) as stream:
    stream.seek(*divmod(int(first), len(stream)))
    while stream.state()["epoch"] < 2:
        for images, labels in stream:
            digest = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
            print(json.dumps(digest), flush=True)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("long") / "set"
    prep = "from alexnet.tools.start import prep; prep()"
    options = ["--images", str(IMAGES), "--shard-images", str(SHARD_IMAGES), "--classes", "10"]
    subprocess.run([sys.executable, "-c", prep, "synth", root, *options], check=True, capture_output=True)
    return root


@pytest.fixture(scope="module")
def expected(made: Path) -> list[str]:
    """The sha256 of each batch of a local stream."""
    with ImageStream(made / "train", batch_images=32, seed=1, settings=StreamSettings(**SETTINGS)) as stream:  # type: ignore[arg-type]
        return [_digest(images, labels) for _ in range(EPOCHS) for images, labels in stream]


def _digest(images: object, labels: object) -> str:
    return hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()  # type: ignore[attr-defined]


def rank_process(url: str, cache: Path, rank: int = 0, ranks: int = 1, first: int = 0) -> "subprocess.Popen[str]":
    arguments = [f"{url}/train", str(cache), str(CACHE_GB), str(rank), str(ranks), str(first)]
    return subprocess.Popen(
        [sys.executable, "-c", RANK, *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def batches(process: "subprocess.Popen[str]") -> list[str]:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return [json.loads(line) for line in output.splitlines()]


def test_twenty_cuts_and_a_server_that_restarts_change_no_batch(
    made: Path, expected: list[str], object_server: ObjectServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    rng = random.Random(5)
    url = object_server.put_folder(made)
    proxy.spoil(".tar", [rng.choice([Fault(cut_at=rng.randrange(1 << 20)), None]) for _ in range(40)])
    found: list[str] = []
    settings = StreamSettings(**SETTINGS, cache=str(tmp_path / "cache"), cache_gb=CACHE_GB)  # type: ignore[arg-type]
    with (
        watched(tmp_path / "cache", round(CACHE_GB * 1e9)),
        ImageStream(f"{url}/train", batch_images=32, seed=1, settings=settings) as stream,
    ):
        for _ in range(EPOCHS):
            for images, labels in stream:
                found.append(_digest(images, labels))
                if len(found) in (7, 20):
                    object_server.kill()
                    object_server.start()
        assert stream.meter.traffic is not None
        assert stream.meter.traffic.retries > 10
    assert found == expected


def test_two_processes_fetch_each_shard_once_into_one_cache(
    made: Path, object_server: ObjectServer, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "CACHE_GB", 1.0)
    url = object_server.put_folder(made)
    shares = [batches(process) for process in [rank_process(url, tmp_path / "cache", rank, 2) for rank in range(2)]]
    local = [batches(process) for process in [rank_process(str(made), tmp_path, rank, 2) for rank in range(2)]]
    assert shares == local
    asked = [one.path for one in proxy.asked_for("train/")]
    assert sorted(asked) == sorted(set(asked))
    assert len(asked) == IMAGES // SHARD_IMAGES


def test_killed_while_it_fetches_it_goes_on_with_that_cache_and_with_another(
    made: Path, expected: list[str], object_server: ObjectServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    def stalls() -> Iterator[Fault | None]:
        yield from [None] * 6
        while not killed:
            yield Fault(cut_at=100_000)

    killed: list[bool] = []
    url = object_server.put_folder(made)
    proxy.spoil(".tar", stalls())
    process = rank_process(url, tmp_path / "cache")
    while len(proxy.asked_for(".tar")) < 12:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    lines = process.communicate()[0].splitlines()
    killed.append(True)
    assert [json.loads(line) for line in lines] == expected[: len(lines)]
    for cache in ("cache", "another"):
        again = rank_process(url, tmp_path / cache, first=len(lines))
        assert batches(again) == expected[len(lines) :]


def test_a_cache_on_a_disk_that_is_full_is_said_in_one_line(
    made: Path, object_server: ObjectServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    mounted = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=2m tmpfs {tmp_path}"
    if subprocess.run([*mounted, mount], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    url = object_server.put_folder(made)
    impatient = "import alexnet.shards.cache as caching; caching._ROOM_PATIENCE_SECONDS = 1" + RANK
    arguments = [f"{url}/train", str(tmp_path / "cache"), "1", "0", "1", "0"]
    command = [*mounted, f'{mount} && exec "$@"', "sh", sys.executable, "-c", impatient, *arguments]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode != 0
    assert "make room, or give another folder" in run.stderr.strip().splitlines()[-1]
