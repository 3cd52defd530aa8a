"""Odd folders and labels: refused before anything is written, or adopted and found well."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import webdataset

from alexnet.shards.manifest import read_manifest
from alexnet.shards.reader import SplitReader
from tests.conftest import digests, encode_picture, prep

SIZE = 24


pytestmark = pytest.mark.usefixtures("no_workers")


def write_tar(path: Path, labels: list[str], size: int = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, webdataset.TarWriter(file) as tar:
        for i, label in enumerate(labels):
            tar.write({"__key__": f"{i}", "jpg": encode_picture(i, size + i // 3, size + i // 3), "cls": label})


def test_labels_verify_as_webdataset_reads_them(tmp_path: Path) -> None:
    write_tar(tmp_path / "train.tar", ["+1", "0" * 20 + "2", " " * 20 + "1\n"])
    write_tar(tmp_path / "val.tar", ["-0", "0_2", "01"])
    prep("adopt", tmp_path)
    assert "all is well" in prep("verify", tmp_path).output
    assert [SplitReader(tmp_path, split).labels.tolist() for split in ("train", "val")] == [[1, 2, 1], [0, 2, 1]]


def _linked_split(root: Path) -> None:
    write_tar(root.parent / "elsewhere" / "0.tar", ["0"])
    (root / "training").symlink_to(root.parent / "elsewhere")


UNLISTABLE: dict[str, Callable[[Path], Any]] = {
    "an empty folder": lambda root: (root / "logs").mkdir(),
    "a link to nothing": lambda root: (root / "a").symlink_to("nowhere"),
    "a link to a folder of tars": _linked_split,
    "a pipe": lambda root: os.mkfifo(root / "a"),
    "a line break": lambda root: (root / "a\nb").write_text(""),
    "a backslash in a tar's name": lambda root: write_tar(root / "train\\1.tar", ["0"]),
}


@pytest.mark.parametrize("case", UNLISTABLE)
def test_what_no_list_can_hold_is_refused_before_anything_is_written(case: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_tar(root / "train.tar", ["0"])
    UNLISTABLE[case](root)
    before = digests(tmp_path)
    assert "SHA256SUMS cannot list" in prep("adopt", root, code=2).output
    assert digests(tmp_path) == before


def test_a_tar_that_no_manifest_can_name_is_refused(tmp_path: Path) -> None:
    write_tar(Path(os.fsdecode(os.fsencode(tmp_path) + b"/train-\xff.tar")), ["0"])
    before = digests(tmp_path)
    assert "a manifest cannot name that tar" in prep("adopt", tmp_path, code=2).output
    assert digests(tmp_path) == before


def test_an_index_file_that_was_there_stays_when_an_adoption_begins_anew(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", ["0", "1"])
    prep("adopt", tmp_path)
    for name in (*(record.file for record in read_manifest(tmp_path).files), "manifest.json", "SHA256SUMS"):
        (tmp_path / name).unlink()
    mine = (tmp_path / "train-0.idx").read_bytes()
    write_tar(tmp_path / "train-1.tar", ["0", "0", "0", "0"])  # of which the last has another size
    prep("adopt", tmp_path, code=2)
    write_tar(tmp_path / "train-0.tar", ["0", "1", "1", "1"])
    prep("adopt", tmp_path, code=2)
    assert (tmp_path / "train-0.idx").read_bytes() == mine
