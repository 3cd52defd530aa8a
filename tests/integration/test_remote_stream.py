"""Streams of data sets in object storage: the batches of local ones to the bit, whatever the network does."""

import dataclasses
import itertools
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import obstore
import pytest

from alexnet.pipeline import AugmentSettings, ImageStream
from alexnet.shards import storage
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import read_manifest
from alexnet.shards.url import StorageError
from alexnet.tools.convert.build import build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source
from tests.cache_watch import watched
from tests.conftest import HERE
from tests.faulty_proxy import Fault, FaultyProxy
from tests.object_storage import CREDENTIALS, ObjectServer
from tests.planes import write_planes_set
from tests.unit.pipeline.streams import Batches, epochs_of, same, stream_of, together

CROPS = AugmentSettings(crop_px=32)
BLOCKS = {"order": "blocks", "window_shards": 3}
WHOLE = {"order": "global", "cache_gb": 1.0}
PARTS = {"order": "global", "cache_gb": 1e-6}
EVALUATION = {"augment": False}
WAYS = {"blocks": BLOCKS, "global, whole shards": WHOLE, "global, by ranges": PARTS, "evaluation": EVALUATION}


@pytest.fixture(scope="module")
def sets(official: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """24 training images of 40 px in fourteen shards: JPEGs, and the same as planes."""
    folder = tmp_path_factory.mktemp("data")
    build(open_source(official), folder / "jpeg", ConvertSettings(size_px=40, shard_images=2, seed=7), HERE)
    return {"jpeg": folder / "jpeg", "planes": write_planes_set(folder / "jpeg", folder / "planes")}


@pytest.fixture(scope="module")
def urls(sets: dict[str, Path], object_server: ObjectServer) -> dict[str, str]:
    return {kind: object_server.put_folder(root) for kind, root in sets.items()}


def stream(root: Path | str, cache: Path, **options: Any) -> ImageStream:
    given = {"batch_images": 4, "cache": str(cache), "augmentation": CROPS, "threads": 1}
    return stream_of(root, **{**given, **options})


def least_gb(url: str, cache: Path) -> float:
    """Return the least that a cache may take, as it is said of one that is too small; an epoch does not fit in it."""
    with pytest.raises(InputError, match="give at least cache_gb=") as caught:
        stream(url, cache, **BLOCKS, cache_gb=1e-6)
    return float(str(caught.value).split("at least cache_gb=")[1].split(",")[0])


def faults(seed: int) -> Iterator[Fault | None]:
    """Yield what happens to requests for ever: two of three answers are spoiled."""
    rng = random.Random(seed)
    while True:
        cut = Fault(cut_at=rng.randrange(3000))
        yield rng.choice([None, None, cut, cut, Fault(cut_at=-1), Fault(status=503)])


@pytest.mark.parametrize("kind", ["jpeg", "planes"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_batches_are_the_local_ones_whatever_the_network_does(
    sets: dict[str, Path], urls: dict[str, str], proxy: FaultyProxy, tmp_path: Path, way: dict[str, Any], kind: str
) -> None:
    way = {**way, "cache_gb": least_gb(urls[kind], tmp_path / "cache")} if way is BLOCKS else way
    expected = epochs_of(stream(sets[kind], tmp_path / "unused", **way), 2)
    proxy.spoil(".tar", faults(3))
    with stream(urls[kind], tmp_path / "cache", **way) as remote:
        found = [(images.clone(), labels.tolist()) for _ in range(2) for images, labels in remote]
        assert same(found, expected)
        assert remote.meter.traffic is not None
        assert remote.meter.traffic.retries > 0
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize("way", [BLOCKS, WHOLE, PARTS], ids=["blocks", "whole shards", "ranges"])
def test_two_ranks_with_one_cache_share_the_local_batches(
    sets: dict[str, Path], urls: dict[str, str], proxy: FaultyProxy, tmp_path: Path, way: dict[str, Any]
) -> None:
    expected = epochs_of(stream(sets["jpeg"], tmp_path, **way, batch_images=6), 2)
    ranks = [
        stream(urls["jpeg"], tmp_path / "cache", **way, batch_images=6, rank=rank, world_size=2) for rank in range(2)
    ]
    shares: list[Batches] = [[], []]
    for _ in range(2):
        for parts in zip(*ranks, strict=True):
            for share, (images, labels) in zip(shares, parts, strict=True):
                share.append((images.clone(), labels.tolist()))
    for one in ranks:
        one.close()
    assert same(together(shares), expected)
    if way is not PARTS:
        shards = [asked.path for asked in proxy.asked_for("train/")]
        assert sorted(shards) == sorted(set(shards)), "each shard was fetched once"


@pytest.mark.parametrize("way", [BLOCKS, PARTS], ids=["whole shards", "ranges"])
def test_a_run_goes_on_with_another_empty_cache_and_where_the_data_lie_elsewhere(
    sets: dict[str, Path], urls: dict[str, str], proxy: FaultyProxy, tmp_path: Path, way: dict[str, Any]
) -> None:
    expected = epochs_of(stream(sets["jpeg"], tmp_path, **way), 2)
    found: Batches = []
    states: list[dict[str, Any]] = []
    roots: list[Path | str] = [urls["jpeg"], urls["planes"], sets["jpeg"], urls["jpeg"]]
    for place, root in enumerate(roots):
        with stream(root, tmp_path / f"cache-{place}", **way) as some:
            if states:
                some.load_state_dict(states[-1])
            for images, labels in some:
                found.append((images.clone(), labels.tolist()))
                if len(found) in (1, 2, 3):
                    break
            states.append(some.state_dict())
    assert same(found, expected[: len(expected) // 2])


def test_the_cache_stays_within_its_limit_and_a_large_one_is_fetched_once(
    sets: dict[str, Path], urls: dict[str, str], proxy: FaultyProxy, tmp_path: Path
) -> None:
    limit = least_gb(urls["jpeg"], tmp_path / "small")
    small = stream(urls["jpeg"], tmp_path / "small", **BLOCKS, cache_gb=limit)
    with watched(tmp_path / "small", round(limit * 1e9)):
        epochs_of(small, 3)
    large = stream(urls["jpeg"], tmp_path / "large", **BLOCKS)
    epochs_of(large, 3)
    again = stream(urls["jpeg"], tmp_path / "large", **BLOCKS)
    epochs_of(again)
    traffic = [one.meter.traffic for one in (small, large, again)]
    shards = [record for record in read_manifest(sets["jpeg"]).shards if record.split == "train"]
    assert traffic[0] is not None
    assert traffic[0].misses > len(shards)
    assert traffic[1] is not None
    assert (traffic[1].misses, traffic[1].bytes) == (len(shards), sum(record.bytes for record in shards))
    assert traffic[2] is not None
    assert (traffic[2].misses, traffic[2].bytes) == (0, 0)


def test_no_credential_is_stored_or_said(
    urls: dict[str, str], proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stream(urls["jpeg"], tmp_path / "cache", **WHOLE) as some:
        next(iter(some))
        said = "\n".join(some.describe()) + repr(some.settings) + str(some.state_dict())
    stored = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
    for secret in CREDENTIALS.values():
        assert secret not in said
        assert secret.encode() not in stored


@pytest.mark.parametrize("way", [BLOCKS, PARTS], ids=["whole shards", "ranges"])
def test_credentials_that_expire_end_the_epoch_in_one_line_and_mended_it_goes_on(
    sets: dict[str, Path], urls: dict[str, str], proxy: FaultyProxy, tmp_path: Path, way: dict[str, Any]
) -> None:
    expected = epochs_of(stream(sets["jpeg"], tmp_path, **way))
    expired = Fault(status=403, body=b"<Error><Code>ExpiredToken</Code></Error>")
    valid = threading.Event()
    proxy.spoil(".tar", (None if valid.is_set() else expired for _ in itertools.count()))
    with stream(urls["jpeg"], tmp_path / "cache", **way) as some:
        with pytest.raises(StorageError, match=r"\.tar: 403.*ExpiredToken") as caught:
            list(some)
        assert "\n" not in str(caught.value)
        valid.set()
        some.seek(0, 0)
        assert same(epochs_of(some), expected)


@pytest.mark.parametrize("way", [BLOCKS, PARTS], ids=["whole shards", "ranges"])
@pytest.mark.parametrize("length", ["same", "other"])
def test_a_shard_that_was_replaced_ends_it_in_one_line(
    sets: dict[str, Path],
    object_server: ObjectServer,
    proxy: FaultyProxy,
    tmp_path: Path,
    way: dict[str, Any],
    length: str,
) -> None:
    url = object_server.put_folder(sets["jpeg"])
    record = read_manifest(sets["jpeg"]).shards_of("train")[3]
    obstore.put(object_server.store(url), record.file, bytes(record.bytes + (length == "other")))
    with stream(url, tmp_path / "cache", **way) as some, pytest.raises(StorageError, match=record.file) as caught:
        list(some)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("way", [BLOCKS, PARTS], ids=["whole shards", "ranges"])
def test_closing_does_not_wait_for_the_network(
    urls: dict[str, str], proxy: FaultyProxy, tmp_path: Path, way: dict[str, Any]
) -> None:
    proxy.spoil(".tar", itertools.repeat(Fault(delay_s=60)))
    some = stream(urls["jpeg"], tmp_path / "cache", **way)
    said: list[str] = []

    def take() -> None:
        try:
            next(iter(some))
        except (RuntimeError, StorageError) as error:
            said.append(str(error))

    taking = threading.Thread(target=take)
    taking.start()
    while not proxy.asked_for(".tar"):
        pass
    some.close()
    taking.join(10)
    assert not taking.is_alive()
    assert "closed" in said[0]


def test_what_is_no_data_set_or_not_there_is_said(
    urls: dict[str, str], proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"holds no manifest\.json"):
        stream("s3://tests/nothing-here", tmp_path)
    with pytest.raises(InputError, match="give a split"):
        ImageStream(urls["jpeg"], batch_images=5)
    monkeypatch.setattr(storage, "_FIRST_PATIENCE_SECONDS", 0.01)
    monkeypatch.setenv("AWS_ENDPOINT", "http://nowhere.invalid")
    with pytest.raises(InputError, match="dns error"):
        stream(urls["jpeg"], tmp_path)


def test_small_files_that_are_not_the_manifests_are_refused(
    sets: dict[str, Path], object_server: ObjectServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    url = object_server.put_folder(sets["jpeg"])
    obstore.put(object_server.store(url), "index.npy", bytes((sets["jpeg"] / "index.npy").stat().st_size))
    with pytest.raises(InputError, match=r"index\.npy: is not the one that the manifest names"):
        stream(url, tmp_path / "cache")
    obstore.put(object_server.store(url), "index.npy", sets["jpeg"] / "index.npy")
    epochs_of(stream(url, tmp_path / "cache"))


def test_a_data_set_that_is_replaced_at_its_url_is_another_one(
    sets: dict[str, Path], object_server: ObjectServer, proxy: FaultyProxy, tmp_path: Path
) -> None:
    url = object_server.put_folder(sets["jpeg"])
    epochs_of(stream(url, tmp_path / "cache"))
    manifest = read_manifest(sets["jpeg"])
    swapped = dataclasses.replace(manifest, classes=manifest.classes[::-1]).to_json()
    obstore.put(object_server.store(url), "manifest.json", swapped.encode())
    with stream(url, tmp_path / "cache") as some:
        assert some._reader.manifest.classes == manifest.classes[::-1]


def test_http_needs_no_more_than_a_folder(sets: dict[str, Path], tmp_path: Path) -> None:
    with FaultyProxy(sets["jpeg"]) as web:
        for way in (BLOCKS, PARTS):
            expected = epochs_of(stream(sets["jpeg"], tmp_path, **way))
            assert same(epochs_of(stream(f"http://{web.address}", tmp_path / "cache", **way)), expected)


def test_obstore_is_not_loaded_for_a_folder(ci_100: Path) -> None:
    code = (
        "import sys; from alexnet import ImageStream; next(iter(ImageStream(sys.argv[1], batch_images=2)));"
        "sys.exit('obstore' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, ci_100 / "train"], check=True)
