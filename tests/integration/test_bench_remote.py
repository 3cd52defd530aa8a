"""The rows of a data set in object storage: what they count, what stays behind, and what is refused."""

import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import obstore
import pytest
from click.testing import CliRunner

from alexnet.pipeline.host import available
from alexnet.shards.errors import InputError
from alexnet.shards.local_root import local_root
from alexnet.shards.reader import SplitReader
from alexnet.tools.bench import baselines, own_formats, remote_stages
from alexnet.tools.bench.bench_data import LoaderTask
from alexnet.tools.bench.command import main
from alexnet.tools.bench.dataloader import task_of
from alexnet.tools.bench.loader_rows import cases_of
from alexnet.tools.bench.report import read_report
from alexnet.tools.bench.stage import Runner, Stage
from tests.faulty_proxy import FaultyProxy
from tests.object_storage import ObjectServer

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))


@pytest.fixture
def url(object_server: ObjectServer, proxy: FaultyProxy, data_set: Path) -> str:
    return object_server.put_folder(data_set)


@pytest.fixture
def stand_in(url: str, tmp_path: Path) -> LoaderTask:
    return task_of(local_root(url, tmp_path / "cache"), "train", batch_images=8, threads=1)


@pytest.fixture
def task(stand_in: LoaderTask) -> Iterator[LoaderTask]:
    with remote_stages.on_disk(stand_in, print) as (copied, why):
        assert not why
        yield copied


def images_of(stage: Stage) -> float:
    return Runner(stage).round(0.05).amount


def fetched(proxy: FaultyProxy, task: LoaderTask) -> list[str]:
    """The shards that were asked for, by whole or in part, so far."""
    files = [shard.file for shard in task.reader.shards]
    return [file for one in proxy.asked for file in files if one.path.endswith(file)]


def test_the_copy_holds_the_bytes_of_the_set_and_goes(stand_in: LoaderTask, data_set: Path) -> None:
    with remote_stages.on_disk(stand_in, print) as (copied, _):
        reader, original = copied.reader, SplitReader(data_set, "train")
        assert [reader.sample(n) for n in range(len(reader))] == [original.sample(n) for n in range(len(original))]
    assert not Path(copied.data).exists()


def test_a_set_that_is_large_is_not_copied_and_its_rows_say_so(
    stand_in: LoaderTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_stages, "_MOST_BYTES", 1)
    with remote_stages.on_disk(stand_in, print) as (task, why):
        assert task == stand_in
        lacking = {case.name: case.why for case in cases_of(task, 1, "cpu", no_copy=why)}
    assert lacking.keys() == {"storage-remote", "jpeg-window", "stream-disk-blocks"} | {
        f"stream-remote-{name}" for name in ("cold", "warm", "ranges")
    }
    assert {name for name, why in lacking.items() if not why} == {
        "storage-remote", "stream-remote-cold", "stream-remote-ranges"
    }  # fmt: skip
    assert lacking["jpeg-window"].startswith("is measured on a copy, which would take 0.0 GB")


def test_rows_count_images_and_ask_the_server_for_what_they_say(task: LoaderTask, proxy: FaultyProxy) -> None:
    shards, images = sorted({shard.file for shard in task.reader.shards}), len(task.reader) // 8 * 8
    before = len(fetched(proxy, task))
    for source in ("disk", "cache"):
        assert images_of(remote_stages.stream(source=source, **asdict(task))) >= 8
    assert len(fetched(proxy, task)) == before, "neither needs the network"
    cold = Runner(remote_stages.cold_stream(**asdict(task)))
    for _ in range(2):
        before, done = len(fetched(proxy, task)), cold.round(60)
        assert (done.amount, 0 < done.figures["first_batch_s"] < done.seconds) == (images, True), "a whole epoch"
        assert sorted(set(fetched(proxy, task)[before:])) == shards, "each round begins with an empty cache"
    before = len(proxy.asked)
    assert images_of(remote_stages.stream(source="ranges", **asdict(task))) >= 8
    assert any(one.range for one in proxy.asked[before:])
    assert images_of(remote_stages.storage(**asdict(task))) >= min(shard.images for shard in task.reader.shards)


def test_a_row_cannot_beat_the_slower_of_network_and_decoder(url: str, tmp_path: Path) -> None:
    json_file, runner = tmp_path / "bench.json", CliRunner(env={"XDG_CACHE_HOME": str(tmp_path)})
    rows = ["storage-remote", "jpeg-window", "stream-remote-ranges"]
    how = ["--rounds", "1", "--seconds", "0.05", "--batch-images", "8", "--rows", ",".join(rows), "--json"]
    done = runner.invoke(main, ["dataloader", url, *how, str(json_file)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report = read_report(json_file)
    assert report.conditions.data is not None
    assert report.conditions.data.path == url
    found = report.named()
    slower = min(rows[:2], key=lambda name: found[name].wall.median)
    assert list(found["stream-remote-ranges"].shares) == [slower]
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in json_file.read_text()


def test_what_loaders_wrote_is_deleted_and_nothing_else(
    url: str, stand_in: LoaderTask, object_server: ObjectServer
) -> None:
    store = object_server.store(url)
    before = {one["path"] for some in obstore.list(store) for one in some}
    obstore.put(store, f"{own_formats.WRITTEN}/streaming/index.json", b"{}")
    own_formats.delete_written(url)
    assert {one["path"] for some in obstore.list(store) for one in some} == before


def test_loaders_that_read_no_url_are_refused(stand_in: LoaderTask, data_set: Path) -> None:
    with pytest.raises(
        InputError, match=r"^--compare ffcv: is not measured from a URL; must be of webdataset, litdata"
    ):
        cases_of(stand_in, 1, "cpu", compare=("webdataset", "ffcv"))
    local = LoaderTask(data=str(data_set), split="train", batch_images=8, threads=1)
    with pytest.raises(InputError, match=r"^--rows stream-remote-cold: must be of"):
        cases_of(local, 1, "cpu", names=("stream-remote-cold",))


def test_webdataset_opens_what_its_documentation_says(data_set: Path) -> None:
    local = LoaderTask(data=str(data_set), split="train", batch_images=8, threads=1)
    assert baselines._opened(local) == baselines.shards_of(local)
    file = local.reader.shards[0].file
    for url, opened in (("s3://b/d", f"pipe:aws s3 cp s3://b/d/{file} -"), ("https://h/d", f"https://h/d/{file}")):
        assert baselines._opened(replace(local, url=url))[0] == opened
