"""`--out URL`: what is put below a URL is what is written to a folder, however often it is broken off, and no more."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import obstore
import pytest
from obstore.store import S3Store

from alexnet.shards.manifest import ShardRecord
from alexnet.tools.console import StoppedError
from alexnet.tools.convert.bucket import Bucket
from tests.conftest import digests, prep
from tests.faulty_proxy import Fault, FaultyProxy
from tests.object_storage import ObjectServer

SHARD = ("--size", "32", "--shard-images", "9", "--seed", "3")
OTHER = ("--size", "20", "--shard-images", "12", "--seed", "4")
FORBIDDEN = Fault(status=403, body=b"<Error><Code>AccessDenied</Code><Message>Not today</Message></Error>")


class Place(NamedTuple):
    """A URL, what speaks to the server about it, the proxy that `alexnet-prep` meets, and a folder for caches."""

    url: str
    store: S3Store
    proxy: FaultyProxy
    cache: Path

    def digests(self, ending: str = "") -> dict[str, str]:
        names = [meta["path"] for some in obstore.list(self.store) for meta in some if meta["path"].endswith(ending)]
        return {name: sha256(obstore.get(self.store, name).bytes()).hexdigest() for name in names}

    def changes(self) -> list[str]:
        """Return the paths that were put or deleted."""
        return [asked.path for method in ("PUT", "DELETE", "POST") for asked in self.proxy.asked_for("", method)]


@pytest.fixture
def place(object_server: ObjectServer, proxy: FaultyProxy, no_workers: None, tmp_path: Path) -> Place:
    url = object_server.new_url()
    return Place(url, object_server.store(url), proxy, tmp_path / "cache")


@pytest.fixture(scope="module")
def in_folder(official: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the source becomes in a folder."""
    root = tmp_path_factory.mktemp("folder") / "set"
    prep("shard", official, "--out", root, *SHARD)
    return root


class Free(NamedTuple):
    free: int


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_every_object_is_the_file_of_a_run_to_disk_and_nothing_stays_here(
    place: Place, official: Path, in_folder: Path, tmp_path: Path
) -> None:
    shard = ("shard", official, "--out", place.url, "--cache", place.cache)
    said = prep(*shard, *SHARD).output
    assert f"{place.url} is complete: 4 shards; 34 images in" in said
    assert f"rejected images and why: {place.url}/rejected.jsonl" in said
    assert place.digests() == digests(in_folder)
    assert not files_in(place.cache)
    assert "all is well" in prep("verify", place.url).output
    changes = len(place.changes())
    assert f"{place.url} was already complete; nothing to do" in prep(*shard, *SHARD).output
    assert f"{place.url}: already holds another data set (size_px 32 there, 20" in prep(*shard, *OTHER, code=2).output
    assert len(place.changes()) == changes
    prep(*shard, *OTHER, "--overwrite")
    prep("shard", official, "--out", tmp_path / "other", *OTHER)
    assert place.digests() == digests(tmp_path / "other")


def test_planes_are_those_of_a_run_to_disk(place: Place, in_folder: Path, tmp_path: Path) -> None:
    prep("decode", in_folder, "--out", tmp_path / "planes")
    said = prep("decode", in_folder, "--out", place.url, "--cache", place.cache, "--json").output
    assert json.loads(said.splitlines()[-1])["root"] == place.url
    assert place.digests() == digests(tmp_path / "planes")
    assert f"{place.url} was already complete" in prep("decode", in_folder, "--out", place.url).output


def test_rejects_are_there_to_look_at_before_they_are_accepted(place: Place, official: Path, in_folder: Path) -> None:
    shard = ("shard", official, "--out", place.url, "--cache", place.cache, *SHARD, "--max-rejected")
    assert f"Look at {place.url}/rejected.jsonl" in prep(*shard, "0", code=1).output
    assert place.digests()["rejected.jsonl"] == digests(in_folder)["rejected.jsonl"]
    prep(*shard, "3")
    assert place.digests() == digests(in_folder)


@pytest.mark.parametrize("chosen", [False, True])
def test_planes_of_jpegs_at_a_url_are_those_of_jpegs_in_a_folder(
    place: Place, object_server: ObjectServer, in_folder: Path, tmp_path: Path, chosen: bool
) -> None:
    (tmp_path / "classes").write_text("n00000003\nn00000001\n")
    options = ("--classes", tmp_path / "classes") if chosen else ()
    prep("decode", in_folder, "--out", tmp_path / "planes", *options)
    url = object_server.put_folder(in_folder)
    prep("decode", url, "--out", place.url, "--cache", place.cache, *options)
    assert place.digests() == digests(tmp_path / "planes")
    assert len(list(place.cache.glob("shards/*.tar"))) == (0 if chosen else 4)


def test_a_shard_of_other_bytes_is_not_decoded(
    place: Place, object_server: ObjectServer, in_folder: Path, tmp_path: Path
) -> None:
    url = object_server.put_folder(in_folder)
    tar = bytearray((in_folder / "train/000001.tar").read_bytes())
    tar[1000] ^= 1
    obstore.put(object_server.store(url), "train/000001.tar", bytes(tar))
    said = prep("decode", url, "--out", tmp_path / "planes", "--cache", place.cache, code=2).output
    assert f"{url}/train/000001.tar: its sha256 is not the manifest's" in said


def refused_put(proxy: FaultyProxy) -> Iterator[Fault | None]:
    while proxy.asked[-1].method != "PUT":
        yield None
    yield FORBIDDEN


@pytest.mark.parametrize(
    ("name", "done"), [(".work/job.json", 0), ("000001.idx", 1), ("train/000001.tar", 1), ("manifest.json", 4)]
)
def test_what_cannot_be_put_is_one_line_and_another_machine_goes_on(
    place: Place, official: Path, in_folder: Path, name: str, done: int
) -> None:
    place.proxy.spoil(name, refused_put(place.proxy))
    shard = ("shard", official, "--out", place.url, *SHARD, "--cache")
    last = prep(*shard, place.cache / "here", code=1).output.splitlines()[-1]
    assert name in last
    assert last.endswith("403 Forbidden: AccessDenied: Not today; mend it and give the same command again")
    assert len(place.digests(".tar")) == done
    assert "manifest.json" not in place.digests()
    before = len(place.changes())
    prep(*shard, place.cache / "elsewhere")
    assert place.digests() == digests(in_folder)
    assert sum(path.endswith(".tar") for path in place.changes()[before:]) == 4 - done


def test_two_that_begin_at_once_with_other_settings_do_not_mix(
    place: Place, official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = ("shard", official, "--out", place.url, "--cache")
    list_ = Bucket.list

    def killed(*_: object) -> NoReturn:
        raise StoppedError("killed")

    def while_listing(bucket: Bucket) -> dict[str, int]:
        found = list_(bucket)
        monkeypatch.setattr(Bucket, "list", list_)
        with monkeypatch.context() as patched:
            patched.setattr(Bucket, "put_shard", killed)
            prep(*shard, place.cache / "first", *SHARD, code=1)
        return found

    monkeypatch.setattr(Bucket, "list", while_listing)
    assert "another alexnet-prep" in prep(*shard, place.cache / "second", *OTHER, code=1).output
    assert list(place.digests()) == [".work/job.json"]


def test_a_run_that_another_replaced_meanwhile_puts_nothing_more(
    place: Place, official: Path, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = ("shard", official, "--out", place.url, "--cache")
    put_shard = Bucket.put_shard

    def after_another(bucket: Bucket, record: ShardRecord, notes: str) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Bucket, "put_shard", put_shard)
            prep(*shard, place.cache / "another", *SHARD, "--overwrite")
        put_shard(bucket, record, notes)

    monkeypatch.setattr(Bucket, "put_shard", after_another)
    assert "another alexnet-prep" in prep(*shard, place.cache, *OTHER, code=1).output
    assert place.digests() == digests(in_folder)


def test_what_a_run_that_was_replaced_put_last_is_no_part_of_what_replaced_it(
    place: Place, official: Path, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = ("shard", official, "--out", place.url, "--cache", place.cache, *SHARD)
    tidy = Bucket.tidy

    def after_late_puts(bucket: Bucket, *arguments: Any) -> None:
        for name in ("train/000001.tar", "train/000007.tar", "val/000007.idx"):
            obstore.put(place.store, name, b"of another size")
        tidy(bucket, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "tidy", after_late_puts)
        said = prep(*shard, code=1).output
    assert f"{place.url}/train/000001.tar: was replaced or deleted meanwhile; give the same command again" in said
    assert not {"manifest.json", "train/000001.tar"} & place.digests().keys()
    prep(*shard)
    assert place.digests() == digests(in_folder)
    obstore.put(place.store, "train/000009.tar", b"of somebody else")
    obstore.delete(place.store, "SHA256SUMS")
    prep(*shard)
    assert {"train/000009.tar", "SHA256SUMS"} <= place.digests().keys()


def test_what_lies_there_already_is_neither_replaced_nor_deleted(place: Place, official: Path, in_folder: Path) -> None:
    shard = ("shard", official, "--out", place.url, *SHARD, "--cache", place.cache)
    obstore.put(place.store, "train/000000.tar", b"of somebody else")
    assert f"Error: {place.url}: exists and is no data set of alexnet-prep" in prep(*shard, code=2).output
    obstore.put(place.store, "train/cat.jpg", b"of somebody else")
    for more in ((), ("--overwrite",)):
        assert f"Error: {place.url}: holds train/cat.jpg, which is not" in prep(*shard, *more, code=2).output
    assert not place.changes()
    obstore.delete(place.store, "train/000000.tar")
    obstore.delete(place.store, "train/cat.jpg")
    prep(*shard)
    obstore.put(place.store, "README", b"of somebody else")
    assert "already complete" in prep(*shard).output
    prep(*shard, "--overwrite", code=2)
    assert place.digests().items() > digests(in_folder).items()


def test_images_that_changed_are_taken_up_in_place_of_what_is_there(
    place: Place, official: Path, in_folder: Path, tmp_path: Path
) -> None:
    before = Path(shutil.copytree(official, tmp_path / "source"))
    archive = before / "ILSVRC2012_img_train.tar"
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"<html>404</html>", b"<html>403</html>"))
    shard = ("shard", before, "--out", place.url, *SHARD, "--cache", place.cache)
    place.proxy.spoil("manifest.json", refused_put(place.proxy))
    prep(*shard, code=1)
    archive.write_bytes(content)
    prep(*shard)
    assert place.digests() == digests(in_folder)


def test_what_was_half_deleted_is_no_data_set_and_goes_with_the_next_call(
    place: Place, official: Path, in_folder: Path
) -> None:
    shard = ("shard", official, "--out", place.url, "--cache", place.cache)
    prep(*shard, *OTHER)
    place.proxy.spoil("?delete", iter([None, FORBIDDEN]))
    prep(*shard, *SHARD, "--overwrite", code=1)
    assert {".clearing", "train/000000.tar"} <= place.digests().keys()
    assert "manifest.json" not in place.digests()
    prep(*shard, *SHARD)
    assert place.digests() == digests(in_folder)


def test_the_disk_holds_no_more_than_the_shards_at_work(
    place: Place, official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, put_shard = [], Bucket.put_shard

    def measured(bucket: Bucket, record: ShardRecord, notes: str) -> None:
        tars = [path for path in files_in(place.cache) if path.suffix == ".tar"]
        taken.append(sum(path.stat().st_blocks > 0 for path in tars))
        put_shard(bucket, record, notes)

    monkeypatch.setattr(Bucket, "put_shard", measured)
    shard = ("shard", official, "--out", place.url, "--cache", place.cache, *SHARD, "--workers", "1")
    free_bytes = 25_000 + 4 * 32 * 32 * 24  # a shard, and the colour sums of all
    monkeypatch.setattr("shutil.disk_usage", lambda _: Free(free_bytes))
    prep(*shard)
    assert taken == [1] * 4
    monkeypatch.setattr("shutil.disk_usage", lambda _: Free(1000))
    place.store.delete(list(place.digests()))
    said = prep(*shard, code=2).output
    assert re.search(
        rf"Error: --cache {place.cache}: about .* and 1.0 kB are free; make room, or give another --cache", said
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", ["shard", "decode"])
def test_killed_at_any_moment_and_gone_on_with_elsewhere_every_object_is_the_same(
    place: Place, official: Path, in_folder: Path, tmp_path: Path, command: str
) -> None:
    source, options = (official, SHARD) if command == "shard" else (in_folder, ())
    wanted = tmp_path / "wanted"
    prep(command, source, "--out", wanted, *options)
    begin = [sys.executable, "-m", "alexnet.tools.prep", command, str(source), "--out", place.url, "--workers", "2"]
    moments, kills = random.Random(command), 0
    for _ in range(6):
        place.store.delete(list(place.digests()))
        finished, seconds = False, 0.5
        while not finished:
            shutil.rmtree(place.cache, ignore_errors=True)
            process = subprocess.Popen([*begin, "--cache", str(place.cache), *options], start_new_session=True)
            with suppress(subprocess.TimeoutExpired):
                assert process.wait(seconds + moments.random()) == 0
                finished = True
            if not finished:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills, seconds = kills + 1, seconds + 0.2
                # What it asked the server to delete may go just now.
                assert place.digests(".tar").items() <= digests(wanted).items()
        assert place.digests() == digests(wanted)
    assert kills > 6
