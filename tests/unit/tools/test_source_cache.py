"""The index is kept: reused as long as the source is the same, rebuilt when it is not, never trusted when torn."""

import io
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import alexnet.tools.convert.sources
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.sources import DEVKIT_TAR, TRAIN_TAR, VAL_TAR, open_source
from alexnet.tools.convert.sources.layout import save_index
from alexnet.tools.samples.layouts import write_files, write_tree
from alexnet.tools.samples.small_sets import write_cifar10


@pytest.fixture
def copy(official: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(official, tmp_path / "copy"))


@pytest.fixture
def saves(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Note each time an index is made and kept, rather than found."""
    saved: list[Path] = []

    def noting(path: Path, key: str, source: Source) -> None:
        saved.append(path)
        save_index(path, key, source)

    monkeypatch.setattr(alexnet.tools.convert.sources, "save_index", noting)
    return saved


def everything(source: Source) -> dict[str, object]:
    fields: dict[str, object] = {
        field: getattr(source, field) for field in Source.__dataclass_fields__ if field != "members"
    }
    return fields | {split: list(members) for split, members in source.members.items()}


@pytest.mark.parametrize("kind", ["archives", "tree", "cifar10"])
def test_the_index_is_kept_and_is_the_same(copy: Path, tmp_path: Path, saves: list[Path], kind: str) -> None:
    root, cache = copy if kind == "archives" else tmp_path / "root", tmp_path / "work" / "index"
    if kind == "tree":
        write_tree(root, {"n00000001": {"\udcff.JPEG": b"x", "b.JPEG": b""}}, [("n00000001", b"y")])
        (root / "train" / "n00000001" / ".hidden").touch()
    elif kind == "cifar10":
        write_cifar10(root, 3)
    fresh = open_source(root)
    assert everything(open_source(root, cache)) == everything(fresh)
    assert everything(open_source(root, cache)) == everything(fresh)
    assert len(saves) == 1
    assert [path.name for path in cache.parent.iterdir()] == ["index"]


def test_it_serves_a_source_that_was_moved(copy: Path, tmp_path: Path, saves: list[Path]) -> None:
    open_source(copy, tmp_path / "index")
    moved = copy.rename(tmp_path / "moved")
    assert open_source(moved, tmp_path / "index").root == moved
    assert len(saves) == 1


def touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def append(path: Path) -> None:
    state = path.stat()
    path.write_bytes(path.read_bytes() + bytes(512))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("name", [TRAIN_TAR, VAL_TAR, DEVKIT_TAR])
@pytest.mark.parametrize("change", [touch, append])
def test_it_is_rebuilt_when_a_files_size_or_mtime_changes(
    copy: Path, tmp_path: Path, saves: list[Path], name: str, change: Callable[[Path], None]
) -> None:
    open_source(copy, tmp_path / "index")
    change(copy / name)
    open_source(copy, tmp_path / "index")
    assert len(saves) == 2


def test_it_is_rebuilt_when_an_archive_comes_or_goes(copy: Path, tmp_path: Path) -> None:
    assert len(open_source(copy, tmp_path / "index").members["val"]) == 7
    (copy / VAL_TAR).rename(tmp_path / VAL_TAR)
    assert len(open_source(copy, tmp_path / "index").members["val"]) == 0
    (tmp_path / VAL_TAR).rename(copy / VAL_TAR)
    assert len(open_source(copy, tmp_path / "index").members["val"]) == 7


def test_it_is_rebuilt_when_a_folder_changes_even_within_one_tick_of_the_clock(tmp_path: Path) -> None:
    root, cache = tmp_path / "root", tmp_path / "index"
    write_tree(root, {"n00000001": {"a.JPEG": b"x"}, "n00000002": {"b.JPEG": b"x"}})
    folder = root / "train" / "n00000002"
    state = folder.stat()
    assert len(open_source(root, cache).members["train"]) == 2
    write_files(folder, {"c.JPEG": b"x"})
    os.utime(folder, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert len(open_source(root, cache).members["train"]) == 3
    (folder / "c.JPEG").rename(folder / "d.JPEG")
    touch(folder)
    assert [m.name for m in open_source(root, cache).members["train"]][-1] == "d.JPEG"


def test_another_source_is_never_served_from_it(copy: Path, tmp_path: Path) -> None:
    open_source(copy, tmp_path / "index")
    write_tree(tmp_path / "tree", {"n00000001": {"a.JPEG": b"x"}})
    assert open_source(tmp_path / "tree", tmp_path / "index").kind == "ilsvrc2012-tree"
    assert open_source(copy, tmp_path / "index").kind == "ilsvrc2012-archives"


def test_a_torn_index_is_rebuilt(copy: Path, tmp_path: Path) -> None:
    cache = tmp_path / "index"
    fresh = everything(open_source(copy, cache))
    whole = cache.read_bytes()
    torn = [whole[: len(whole) * k // 7] for k in range(7)]
    flipped = range(0, len(whole), len(whole) // 40)
    torn += [whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in flipped]
    for data in torn:
        cache.write_bytes(data)
        assert everything(open_source(copy, cache)) == fresh


def test_a_foreign_index_is_rebuilt_and_never_unpickled(copy: Path, tmp_path: Path) -> None:
    fresh, cache = everything(open_source(copy)), tmp_path / "index"
    arrays, pickled = io.BytesIO(), io.BytesIO()
    np.savez(arrays, other=np.zeros(3))
    np.savez(pickled, text=np.array([{"key": 1}], object))
    for data in (b"", b"PK", arrays.getvalue(), pickled.getvalue(), pickle.dumps({"key": 1})):
        cache.write_bytes(data)
        assert everything(open_source(copy, cache)) == fresh


def test_a_disk_that_refuses_the_index_does_not_stop_the_run(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert len(open_source(copy, tmp_path / "file" / "index").members["train"]) == 27
