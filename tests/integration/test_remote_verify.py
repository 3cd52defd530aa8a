"""`alexnet-prep verify URL`: what is found of objects is what is found of the same bytes in files."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from alexnet.shards.files import CHECKSUMS_NAME
from alexnet.shards.manifest import MANIFEST_NAME
from tests.conftest import prep
from tests.faulty_proxy import Fault, FaultyProxy

if TYPE_CHECKING:
    from tests.object_storage import ObjectServer

pytest.importorskip("obstore")
pytestmark = pytest.mark.usefixtures("no_workers")

TAR, INDEX = "train/000001.tar", "train/000001.idx"


def flip(root: Path, name: str, at: int) -> None:
    content = bytearray((root / name).read_bytes())
    content[at] ^= 1
    (root / name).write_bytes(content)


def shards_and_foreign_files(root: Path) -> None:
    flip(root, "train/000000.tar", 5_000)
    os.truncate(root / TAR, 3_000)
    (root / "train/000002.tar").unlink()
    flip(root, "val/000000.idx", 7)
    (root / "more").mkdir()
    (root / "more" / "notes.txt").write_text("foreign")


def lists_of_samples(root: Path) -> None:
    flip(root, "index.npy", 200)
    (root / INDEX).unlink()
    os.truncate(root / "mean_image.npy", 0)


def an_index_cut_short(root: Path) -> None:
    os.truncate(root / "index.npy", 200)
    flip(root, CHECKSUMS_NAME, 3)


def a_manifest_that_is_none(root: Path) -> None:
    flip(root, MANIFEST_NAME, 0)
    flip(root, TAR, 600)


def no_manifest(root: Path) -> None:
    (root / MANIFEST_NAME).unlink()


def no_checksums(root: Path) -> None:
    (root / CHECKSUMS_NAME).unlink()


DAMAGES = [
    shards_and_foreign_files,
    lists_of_samples,
    an_index_cut_short,
    a_manifest_that_is_none,
    no_manifest,
    no_checksums,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_findings_are_those_of_files(
    damage: Callable[[Path], None],
    data_set: Path,
    tmp_path: Path,
    proxy: FaultyProxy,
    object_server: "ObjectServer",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    root = Path(shutil.copytree(data_set, tmp_path / "set"))
    damage(root)
    wanted = verified(root, 1)
    assert wanted[:-1]
    assert verified(object_server.put_folder(root), 1) == wanted
    with FaultyProxy(root) as server:
        *found, summary = verified(f"http://{server.address}", 1)
    assert found == [line for line in wanted[:-1] if "is no file of this data set" not in line]
    assert "extra files not looked for (http has no lists)" in summary
    assert not list(scratch.iterdir())


def verified(where: object, code: int) -> list[str]:
    """Return the lines of a verification, with the name of the place and the seconds taken out."""
    text = prep("verify", where, "--deep", code=code).output.replace(str(where), "DATA")
    return re.sub(r"in [0-9.]+ s \([0-9,]+ MB/s\)", "", text).splitlines()


def test_sound_objects_are_sound(data_set: Path, object_server: "ObjectServer", proxy: FaultyProxy) -> None:
    url = object_server.put_folder(data_set)
    (summary,) = verified(url, 0)
    assert summary == verified(data_set, 0)[0]
    assert "all is well" in summary
    assert (
        f"--against: is for data sets in folders, and {url} is none"
        in prep("verify", url, "--against", data_set, code=2).output
    )


def test_a_url_without_a_data_set_is_refused(object_server: "ObjectServer", proxy: FaultyProxy) -> None:
    url = object_server.new_url()
    told = prep("verify", url, code=2).output
    assert told == f"Error: {url}: holds no manifest.json; give the URL of what `alexnet-prep` wrote to the end\n"
    told = prep("verify", url.replace("s3://", "s3://key:secret@"), code=2).output
    assert "credentials" in told
    assert "secret@" not in told


def test_lists_lead_nowhere_else(data_set: Path, tmp_path: Path) -> None:
    """A server may say anything: names in SHA256SUMS that lead out of the copy are not asked for."""
    root = Path(shutil.copytree(data_set, tmp_path / "set"))
    no_manifest(root)
    with (root / CHECKSUMS_NAME).open("a") as file:
        file.write(f"{'0' * 64}  ../../escaped\n{'0' * 64}  /etc/escaped\n")
    with FaultyProxy(root) as server:
        told = verified(f"http://{server.address}", 1)
    assert "../../escaped: is missing" in told
    assert not [asked for asked in server.asked if "escaped" in asked.path]


def test_what_goes_away_meanwhile_is_named(data_set: Path, object_server: "ObjectServer", proxy: FaultyProxy) -> None:
    url = object_server.put_folder(data_set)
    proxy.spoil(TAR, [None, Fault(status=404)])
    told = prep("verify", url, code=2).output
    assert told == f"Error: {url}/{TAR}: there is no such object\n"
