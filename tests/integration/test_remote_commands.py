"""Commands take URLs where they take folders: what comes of it is the same, and says the URL and no credential."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from alexnet.shards import storage
from alexnet.tools.train import main as train_command
from tests.conftest import prep
from tests.faulty_proxy import Fault, FaultyProxy
from tests.runs import LENET, losses, model, outcome, records, train

if TYPE_CHECKING:
    from tests.object_storage import ObjectServer

pytest.importorskip("obstore")

SECRETS = ("the-key-of-tests", "the-secret-of-tests")


@pytest.fixture
def url(digits: Path, object_server: "ObjectServer", proxy: FaultyProxy) -> str:
    return object_server.put_folder(digits)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "alexnet" / "remote"


def test_training_is_that_of_the_folder_and_says_the_url(
    digits: Path, url: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALEXNET_DATA", url)
    train(digits, *LENET, "--epochs", 2, "--out", tmp_path / "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    option = ("--storage-option", f"secret_access_key={SECRETS[1]}")
    told = train(*LENET, "--epochs", 2, "--cache-gb", 1, *option)
    run = tmp_path / "runs" / f"{Path(url).name}-lenet-5-seed0"
    assert f"data: {url} (from ALEXNET_DATA); 3 classes" in told
    assert losses(run) == losses(tmp_path / "local")
    fetched = sum(record["fetched_bytes"] for record in records(run, "loss"))
    assert fetched == sum(path.stat().st_size for path in digits.rglob("*.tar")), "every shard once"
    assert re.search("MB  fetched 0 MB, [0-9]+ retries, [0-9] of [1-9] shards from the cache", told), told
    assert "warning" not in told
    assert json.loads((run / "data.json").read_text())["path"] == url
    page = (run / "report.html").read_text()
    assert re.search("From object storage it fetched 0 MB, [0-9]+ retries, [0-9] of [4-9] shards", page)
    assert "validation images, each with its class" in page
    assert not [path for path in (*run.rglob("*"), *cache.rglob("*")) if path.is_file() and holds_a_secret(path)]
    assert not [secret for secret in SECRETS if secret in told]


def holds_a_secret(path: Path) -> bool:
    content = path.read_bytes()
    return any(secret.encode() in content for secret in SECRETS)


def test_an_outage_ends_training_in_a_line_and_the_same_command_goes_on(
    digits: Path, url: str, tmp_path: Path, cache: Path, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_PATIENCE_SECONDS", 0.05)
    blocks = ("--set", "stream.order=blocks", "--set", "stream.window_shards=1")
    options: tuple[object, ...] = (*LENET, "--epochs", 3, "--checkpoint-every", 2, *blocks)
    train(digits, *options, "--out", tmp_path / "local")
    proxy.spoil("train/000002.tar", [Fault(status=503)] * 100_000)
    told = train(url, *options, "--out", tmp_path / "run", code=1)
    (line,) = [line for line in told.splitlines() if line.startswith("Error: ")]
    assert line.startswith(f"Error: {url}/train/000002.tar: 503 Service Unavailable")
    assert "the last good checkpoint is that of step " in line
    assert line.endswith("; mend that and give the same command again")
    proxy._scripts.clear()
    train(url, *options, "--out", tmp_path / "run", "--cache", tmp_path / "another")
    local, remote = outcome(tmp_path / "local"), outcome(tmp_path / "run")
    assert remote["lines"] == local["lines"]


def test_pages_and_errors_of_networks_are_those_of_the_folder(
    digits: Path, url: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(digits, *LENET, "--steps", 2, "--out", tmp_path / "run")
    local, remote = (model("evaluate", tmp_path / "run", data).output for data in (digits, url))
    assert remote.replace(url, str(digits)) == local
    told = prep("show", url).output
    assert f"{Path(url).name}.html: " in told
    prep("show", digits)
    local_page, page = ((tmp_path / f"{Path(data).name}.html").read_text() for data in (digits, url))
    assert page == local_page.replace("digits", Path(url).name)
    model("report", tmp_path / "run", "--data", url)
    assert "validation images, each with its class" in (tmp_path / "run" / "report.html").read_text()


def test_what_is_wrong_with_a_url_is_a_line(url: str, cache: Path, proxy: FaultyProxy, tmp_path: Path) -> None:
    for arguments in (("verify", url[:-1] + "nothing"), ("show", url[:-1] + "nothing")):
        assert f"Error: {arguments[1]}: holds no manifest.json" in prep(*arguments, code=2).output
    assert f"this may be one split: give {url}" in train(f"{url}/train", code=2)
    assert "Error: --storage-option: must read key=value" in train(url, "--storage-option", "secret", code=2)
    for option in ("no_such_option=a-secret", "secret_access_key=a-secret"):
        told = train(url, "--storage-option", option, code=2)
        assert told.startswith("Error: ")
        assert "a-secret" not in told


@pytest.mark.parametrize("order", ["blocks", "global"])
def test_the_least_cache_that_is_advised_holds_training_and_validation(
    url: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    monkeypatch.setattr("alexnet.shards.cache._ROOM_PATIENCE_SECONDS", 1.0)
    options = (url, *LENET, "--epochs", 2, "--set", f"stream.order={order}", "--set", "stream.window_shards=1")
    told, advised = train(*options, "--cache-gb", 1e-6, code=2), ""
    while told.startswith("Error: ") or "sample by sample" in told:
        before, advised = advised, re.findall("cache_gb=([0-9.e-]+)(?:, or fewer|, fetches)", told)[0]
        assert advised != before
        told = CliRunner().invoke(train_command, [*map(str, options), "--cache-gb", advised, "--dry-run"]).output
    told = train(*options, "--cache-gb", advised, "--out", tmp_path / "run")
    assert f"from {url}: whole shards" in told
    assert 0 < cache_bytes(cache) <= float(advised) * 1e9


def cache_bytes(cache: Path) -> int:
    return sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
