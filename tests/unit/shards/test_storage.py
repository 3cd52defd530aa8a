"""Objects read and written over a network that fails: against a real S3 server behind a proxy, and plain http."""

import hashlib
import itertools
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest

from alexnet.shards import storage
from alexnet.shards.errors import InputError
from alexnet.shards.storage import ReplacedError, Storage
from alexnet.shards.url import OPTIONS, MissingError, StorageError, set_options
from tests.faulty_proxy import Fault, FaultyProxy
from tests.object_storage import CREDENTIALS, ObjectServer

CONTENT = random.Random(1).randbytes(300_000)
PASSING = {
    "busy": Fault(status=503, headers={"Retry-After": "1"}),
    "too many requests": Fault(status=429),
    "an error of the server's": Fault(status=500),
    "a gateway's": Fault(status=502),
    "a timeout of the server's": Fault(status=408),
    "no answer": Fault(cut_at=-1),
    "a cut before the body": Fault(cut_at=0),
    "a cut": Fault(cut_at=100_000),
}


@pytest.fixture
def s3(proxy: FaultyProxy, object_server: ObjectServer) -> Storage:
    """A prefix that holds one object, `train/000000.tar`."""
    url = object_server.new_url()
    obstore.put(object_server.store(url), "train/000000.tar", CONTENT)
    return Storage(url)


@pytest.fixture
def http(tmp_path: Path) -> Iterator[tuple[Storage, FaultyProxy]]:
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "000000.tar").write_bytes(CONTENT)
    with FaultyProxy(tmp_path) as proxy:
        yield Storage(f"http://{proxy.address}/data"), proxy


def fetched(store: Storage, to: Path, name: str = "train/000000.tar", size: int = len(CONTENT)) -> bytes:
    """Fetch an object into a file; return what was written, which has the sha256 that was said."""
    with to.open("wb") as file:
        digest = store.run(store.fetch(name, file.fileno(), size))
    content = to.read_bytes()
    assert digest == hashlib.sha256(content).hexdigest()
    return content


def fails(store: Storage, kind: type[Exception] = StorageError, name: str = "train/000000.tar") -> str:
    """Return what is said of an object that cannot be read: one line with its name, without a credential."""
    with pytest.raises(kind) as caught:
        store.read(name, 1 << 30)
    said = str(caught.value)
    assert "\n" not in said
    assert f"{store.url}/{name}" in said
    assert not any(secret in said for secret in CREDENTIALS.values())
    return said


def test_what_was_put_is_listed_and_read_and_gone_when_deleted(s3: Storage, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(CONTENT * 20)  # more than one part of an upload
    names = ["manifest.json", "train/a b+c%20é#?.tar", "val/0.tar"]
    s3.put(names[0], b"{}")
    s3.put(names[1], CONTENT)
    s3.put(names[2], large)
    assert s3.list() == {"train/000000.tar": 300_000, names[0]: 2, names[1]: 300_000, names[2]: 6_000_000}
    assert s3.read(names[1], 300_000) == CONTENT
    assert s3.run(s3.size(names[2])) == 6_000_000
    assert fetched(s3, tmp_path / "copy", names[2], 6_000_000) == CONTENT * 20
    s3.put(names[0], b"[1]")
    assert s3.read(names[0], 3) == b"[1]"
    s3.delete([*names, "never-there"])
    assert s3.list() == {"train/000000.tar": 300_000}
    assert "there is no such object" in fails(s3, MissingError, names[0])


def test_more_than_can_be_right_is_not_read(s3: Storage) -> None:
    with pytest.raises(StorageError, match="has 300,000 bytes; at most 1,000 are right"):
        s3.read("train/000000.tar", 1000)
    assert s3.traffic.bytes < 300_000


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_passes_is_tried_again(s3: Storage, proxy: FaultyProxy, tmp_path: Path, fault: Fault) -> None:
    proxy.spoil("000000.tar", [fault] * 3)
    assert fetched(s3, tmp_path / "copy") == CONTENT
    proxy.spoil("000000.tar", [fault] * 2)
    assert s3.read("train/000000.tar", len(CONTENT)) == CONTENT
    proxy.spoil("000000.tar", [fault] * 2)
    assert s3.run(s3.part("train/000000.tar", 1000, 299_000, len(CONTENT))) == CONTENT[1000:299_000]
    assert s3.traffic.retries == 7


def test_a_body_that_is_cut_goes_on_where_it_ended(
    s3: Storage, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_CHUNK_BYTES", 1000)
    proxy.spoil("000000.tar", [Fault(cut_at=100_000), Fault(status=503), Fault(cut_at=50_000), Fault(cut_at=0)])
    assert fetched(s3, tmp_path / "copy") == CONTENT
    asked = proxy.asked_for("000000.tar")
    begins = [int(one.range.removeprefix("bytes=").removesuffix("-") or 0) for one in asked]
    assert begins[0] == 0
    assert begins == sorted(begins)
    assert 0 < begins[-1] <= 150_000, "nothing that came is asked for again"
    assert len({one.if_match for one in asked[1:]} - {""}) == 1, "and only of the object that it was"
    assert (s3.traffic.bytes, s3.traffic.requests, s3.traffic.retries) == (300_000, 5, 4)


def test_an_object_that_is_replaced_meanwhile_is_not_mixed_with_the_other(
    s3: Storage, proxy: FaultyProxy, object_server: ObjectServer, tmp_path: Path
) -> None:
    def replaced_after_a_cut() -> Iterator[Fault | None]:
        yield Fault(cut_at=100_000)
        obstore.put(object_server.store(s3.url), "train/000000.tar", bytes(300_000))
        yield None

    assert s3.run(s3.part("train/000000.tar", 0, 10, 300_000)) == CONTENT[:10]
    proxy.spoil("000000.tar", replaced_after_a_cut())
    with pytest.raises(ReplacedError, match="was replaced by another object while it was read"):
        fetched(s3, tmp_path / "copy")
    with pytest.raises(ReplacedError, match="was replaced"):
        s3.run(s3.part("train/000000.tar", 10, 20, 300_000))


def test_a_weak_etag_matches_nothing_so_it_is_not_asked_for(http: tuple[Storage, FaultyProxy], tmp_path: Path) -> None:
    store, proxy = http
    proxy.spoil("000000.tar", [Fault(cut_at=100_000, headers={"ETag": 'W/"1"'})])
    assert fetched(store, tmp_path / "copy") == CONTENT
    assert [asked.if_match for asked in proxy.asked] == ["", ""]


@pytest.mark.parametrize("said", [5, 300_001])
def test_another_length_is_refused(s3: Storage, proxy: FaultyProxy, tmp_path: Path, said: int) -> None:
    proxy.spoil("000000.tar", itertools.repeat(Fault(headers={"Content-Length": str(said)}, cut_at=300_000)))
    with pytest.raises(StorageError, match=f"has {said:,} bytes where 300,000 are expected"):
        fetched(s3, tmp_path / "copy")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(status=403, body=b"<Error><Code>ExpiredToken</Code></Error>"), "403.*ExpiredToken"),
        (Fault(status=403, body=b"<Error><Code>AccessDenied</Code></Error>"), "403.*AccessDenied"),
        (Fault(status=401), "401"),
        (Fault(status=400, body=b"<Error><Code>AuthorizationHeaderMalformed</Code></Error>"), "400.*Malformed"),
    ],
)
@pytest.mark.parametrize("after", [[], [Fault(cut_at=9)]], ids=["at once", "once it worked"])
def test_what_stays_is_said_without_trying_again(
    s3: Storage, proxy: FaultyProxy, fault: Fault, expected: str, after: list[Fault]
) -> None:
    proxy.spoil("000000.tar", [*after, fault])
    with pytest.raises(StorageError, match=expected):
        s3.read("train/000000.tar", 1 << 30)
    assert len(proxy.asked_for("000000.tar")) == len(after) + 1


def test_wrong_credentials_are_said_and_not_shown(s3: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, f"wrong-{value}")
    assert "403" in fails(Storage(s3.url))


def test_patience_ends(s3: Storage, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sooner where nothing worked yet, as settings may be wrong."""
    monkeypatch.setattr(storage, "_FIRST_PATIENCE_SECONDS", 0.05)
    proxy.spoil("000000.tar", itertools.repeat(Fault(status=503)))
    assert re.search("503.*; tried for 0 s", fails(s3))
    assert len(proxy.asked) > 1


def test_patience_is_longer_once_it_worked(s3: Storage, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_FIRST_PATIENCE_SECONDS", 0)
    assert s3.run(s3.size("train/000000.tar")) == 300_000
    proxy.spoil("000000.tar", [Fault(status=503)] * 9)
    assert s3.read("train/000000.tar", 300_000) == CONTENT
    monkeypatch.setattr(storage, "_PATIENCE_SECONDS", 0.05)
    proxy.spoil("000000.tar", itertools.repeat(Fault(cut_at=-1)))
    assert "tried for 0 s" in fails(s3)


def test_names_that_cannot_be_looked_up_and_servers_that_are_not_there(
    s3: Storage, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_FIRST_PATIENCE_SECONDS", 0.01)
    monkeypatch.setenv("AWS_ENDPOINT", "http://nowhere.invalid")
    assert "dns error" in fails(Storage(s3.url))
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")
    assert "tried for" in fails(Storage(s3.url))


def test_what_consoles_make_of_folders_is_no_object(proxy: FaultyProxy) -> None:
    listed = (("set/", 0), ("set/train/", 0), ("set/train/0.tar", 7), ("set/empty", 0))
    keys = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>{size}</Size></Contents>"
        for key, size in listed
    )
    answer = f"<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated>{keys}</ListBucketResult>"
    proxy.spoil("list-type", [Fault(status=200, body=answer.encode())])
    assert Storage("s3://bucket/set").list() == {"train/0.tar": 7, "empty": 0}


def test_http_is_read_by_ranges_and_not_listed(
    http: tuple[Storage, FaultyProxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_BACKOFF_SECONDS", 0.001)
    store, proxy = http
    proxy.spoil("000000.tar", [Fault(cut_at=1000), Fault(status=503), Fault(cut_at=-1)])
    assert fetched(store, tmp_path / "copy") == CONTENT
    assert store.run(store.part("train/000000.tar", 5, 99, len(CONTENT))) == CONTENT[5:99]
    assert store.run(store.size("train/000000.tar")) == len(CONTENT)
    fails(store, MissingError, "none.tar")
    with pytest.raises(StorageError):
        store.list()


def test_options_reach_the_store_and_child_processes(
    s3: Storage, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT")
    set_options([f"endpoint=http://{proxy.address}", "timeout=30s"])
    assert Storage(s3.url).read("train/000000.tar", 1 << 20) == CONTENT
    code = f"from alexnet.shards.storage import Storage; print(Storage({s3.url!r}).list())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert told == "{'train/000000.tar': 300000}\n"


@pytest.mark.parametrize("assignment", ["region", "=x", "regoin=x"])
def test_an_option_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, assignment: str) -> None:
    monkeypatch.setenv(OPTIONS, "{}")
    with pytest.raises(InputError, match="--storage-option"):
        _store_with(assignment)


def _store_with(assignment: str) -> Storage:
    set_options([assignment])
    return Storage("s3://bucket/data")


@pytest.mark.parametrize("options", ["[1]", "{", "3"])
def test_a_variable_that_holds_no_options_is_refused(monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    monkeypatch.setenv(OPTIONS, options)
    with pytest.raises(InputError, match="must be a JSON object"):
        Storage("s3://bucket/data")


def test_without_obstore_the_line_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    storage._obstore.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'alexnet\[remote\]'"):
        Storage("s3://bucket/data")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the fork leaves a coroutine
def test_a_fork_of_a_process_that_read_says_what_to_do(s3: Storage) -> None:
    """The threads that would answer did not come along."""
    assert s3.run(s3.size("train/000000.tar")) == 300_000
    if (pid := os.fork()) == 0:
        try:
            Storage(s3.url).read("train/000000.tar", 1 << 20)
        except StorageError as error:
            os._exit(7 if "spawn" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_disk_that_takes_a_part_of_what_came_is_said(
    http: tuple[Storage, FaultyProxy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel does before it says that there is no room."""
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, chunk, at: write(descriptor, chunk[: len(chunk) // 2], at))
    with pytest.raises(OSError, match="No space left"):
        fetched(http[0], tmp_path / "copy")
    assert len(http[1].asked) == 1
