"""The same shards from a Ray cluster of two nodes, one of which is lost in the middle. Needs the extra `ray`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.convert.build import BuildOptions, Progress, build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source
from tests.conftest import digests, encode_picture
from tests.sources import write_official

SETTINGS = ConvertSettings(size_px=256, shard_images=20, seed=3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    pictures = [encode_picture(i, 500, 375) for i in range(30)]
    words = {f"n0000000{k}": "thing" for k in range(3)}
    train = {wnid: {f"{wnid}_{i}.JPEG": pictures[i % 30] for i in range(200)} for wnid in words}
    train["n00000001"]["n00000001_7.JPEG"] = b"no image"
    write_official(tmp_path / "source", words, train, [(f"n0000000{i % 3}", pictures[i]) for i in range(15)])
    return tmp_path / "source"


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
def test_two_nodes_one_of_them_lost_give_the_same_bytes(source: Path, cluster: Any, tmp_path: Path) -> None:
    local, remote = tmp_path / "local", tmp_path / "remote"
    build(open_source(source), local, SETTINGS, BuildOptions(workers=1))
    second = cluster.add_node(num_cpus=1)
    lost: list[int] = []

    def lose_a_node(progress: Progress) -> None:
        done = progress.written + progress.rejected
        if done >= 100 and not lost:
            assert done < progress.total, "the node must be lost in the middle"
            lost.append(done)
            cluster.remove_node(second, allow_graceful=False)

    options = BuildOptions(engine="ray", address=cluster.address)
    build(open_source(source), remote, SETTINGS, options, lose_a_node)
    assert lost
    assert digests(remote) == digests(local)


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_line(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="install the extra `ray`; `make test-all` does")
    options = BuildOptions(engine="ray", address="127.0.0.1:1")
    with pytest.raises(InputError, match=r"--address 127\.0\.0\.1:1: no Ray cluster answers there"):
        build(open_source(source), tmp_path / "set", SETTINGS, options)
