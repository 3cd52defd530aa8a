"""What a URL is, what its parts mean, and what the environment must say to reach it."""

from pathlib import Path

import obstore
import pytest
from obstore.store import HTTPStore

from alexnet.shards.errors import InputError
from alexnet.shards.storage import Storage
from alexnet.shards.url import StorageError, as_url
from tests.faulty_proxy import FaultyProxy
from tests.object_storage import ObjectServer


@pytest.fixture
def url(proxy: FaultyProxy, object_server: ObjectServer) -> str:
    """A prefix that holds one object, `train/000000.tar`."""
    url = object_server.new_url()
    obstore.put(object_server.store(url), "train/000000.tar", b"content")
    return url


@pytest.mark.parametrize(
    ("where", "meant"),
    [
        ("s3://bucket/data/", "s3://bucket/data"),
        (Path("s3://bucket/data"), "s3://bucket/data"),
        ("https://host:8080/a b", "https://host:8080/a b"),
        ("/data/s3", None),
        ("s3", None),
        ("C:/data", None),
        ("12:30/data", None),
    ],
)
def test_what_is_a_url(where: str, meant: str | None) -> None:
    assert as_url(where) == meant


@pytest.mark.parametrize("where", ["S3://b/x", "s3n://b/x", "file:///x", "s3:b/x", "s3://", "s3://[b/x", "s3://b/../x"])
def test_a_url_that_is_none_is_not_taken_for_a_folder(where: str) -> None:
    for place in (where, Path(where)):
        with pytest.raises(InputError, match=r"(?i)^(s3|file)"):
            as_url(place)


def test_a_bucket_that_is_none_is_a_line() -> None:
    with pytest.raises(InputError, match=r"^s3://b ad/x: .*; see --storage-option and the environment"):
        Storage("s3://b ad/x")


def test_keys_mean_what_they_say(url: str) -> None:
    for name in ("a%20b", "a b", "100%", "ü", "x~*[1]"):
        Storage(f"{url}/{name}").put("one", name.encode())
        assert Storage(url).list()[f"{name}/one"] == len(name.encode())


def test_a_bucket_of_amazon_is_read_by_http_as_any_server() -> None:
    assert isinstance(Storage("https://bucket.s3.eu-central-1.amazonaws.com/x").store, HTTPStore)


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_endpoint_is_a_url_in_whichever_variable(
    url: str, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT")
    monkeypatch.setenv(variable, f"http://{proxy.address}")
    assert Storage(url).read("train/000000.tar", 9) == b"content"
    for endpoint in ("", proxy.address, f"me:hunter2@{proxy.address}"):
        monkeypatch.setenv(variable, endpoint)
        with pytest.raises(InputError, match=f"{variable}=.*: must begin with http://") as caught:
            Storage(url)
        assert "hunter2" not in str(caught.value)


def test_a_setting_that_cannot_be_sent_is_a_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "hunter2\n")
    with pytest.raises(StorageError, match=r"train/000000.tar: .*; see --storage-option and the environment"):
        Storage(url).read("train/000000.tar", 9)


@pytest.mark.parametrize("where", ["https://me:hunter2@host/data", "s3://b/data?token=hunter2", "https://h/a#hunter2"])
def test_a_url_with_a_credential_is_refused_without_showing_it(where: str) -> None:
    with pytest.raises(InputError, match="--storage-option") as caught:
        as_url(where)
    assert "hunter2" not in str(caught.value)
