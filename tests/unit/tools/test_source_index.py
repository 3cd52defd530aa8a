"""The pass over headers says how far it is; its result is kept while the source is the same, and no longer."""

import io
import os
import pickle
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alexnet.tools.convert.sources
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.sources import DEVKIT_TAR, TRAIN_TAR, VAL_TAR, find_layout, open_source
from alexnet.tools.convert.sources.layout import Walk, save_index
from alexnet.tools.progress import Amount
from tests.conftest import encode_picture
from tests.sources import write_cifar10, write_devkit, write_entries, write_files, write_mnist, write_tree
from tests.unit.tools.source_layouts import folders, packed, write

PICTURES = {f"{i}.JPEG": encode_picture(i) for i in range(3)}
WNIDS = [f"n0000000{k}" for k in range(4)]


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
    fields = Source.__dataclass_fields__.keys() - {"members", "since_ns"}
    members = {split: list(members) for split, members in source.members.items()}
    return {field: getattr(source, field) for field in fields} | members


@pytest.mark.parametrize("kind", ["archives", "tree", "cifar10"])
def test_the_index_serves_a_moved_source_too(copy: Path, tmp_path: Path, saves: list[Path], kind: str) -> None:
    root, cache = copy if kind == "archives" else tmp_path / "root", tmp_path / "work" / "index"
    if kind == "tree":
        write_tree(root, {"n00000001": {"\udcff.JPEG": b"x", "b.JPEG": b""}}, [("n00000001", b"y")])
        (root / "train" / "n00000001" / ".hidden").touch()
    elif kind == "cifar10":
        write_cifar10(root, 3)
    fresh = open_source(root)
    assert everything(open_source(root, cache)) == everything(fresh)
    assert everything(open_source(root, cache)) == everything(fresh)
    moved = root.rename(tmp_path / "moved")
    assert everything(open_source(moved, cache)) == everything(fresh) | {"root": moved}
    assert len(saves) == 1
    assert [path.name for path in cache.parent.iterdir()] == ["index"]


def touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def append(path: Path) -> None:
    state = path.stat()
    path.write_bytes(path.read_bytes() + bytes(512))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("name", [TRAIN_TAR, VAL_TAR, DEVKIT_TAR])
@pytest.mark.parametrize("change", [touch, append])
def test_a_change_rebuilds_it(copy: Path, tmp_path: Path, saves: list[Path], name: str, change: Any) -> None:
    open_source(copy, tmp_path / "index")
    change(copy / name)
    open_source(copy, tmp_path / "index")
    assert len(saves) == 2


def test_it_is_rebuilt_when_an_archive_comes_or_goes_or_the_source_is_another(copy: Path, tmp_path: Path) -> None:
    assert len(open_source(copy, tmp_path / "index").members["val"]) == 7
    (copy / VAL_TAR).rename(tmp_path / VAL_TAR)
    assert len(open_source(copy, tmp_path / "index").members["val"]) == 0
    (tmp_path / VAL_TAR).rename(copy / VAL_TAR)
    assert len(open_source(copy, tmp_path / "index").members["val"]) == 7
    write_tree(tmp_path / "tree", {"n00000001": {"a.JPEG": b"x"}})
    assert open_source(tmp_path / "tree", tmp_path / "index").kind == "ilsvrc2012-tree"
    assert open_source(copy, tmp_path / "index").kind == "ilsvrc2012-archives"


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


def test_which_folder_is_which_split_is_part_of_it(tmp_path: Path) -> None:
    root = write(tmp_path / "root", folders("a", "b"))
    for train, val in ((("a", "b"), ()), (("a",), ("b",))):
        source = open_source(root, tmp_path / "index", layout=find_layout(root, train, val))
        assert len(source.members["val"]) == 4 * len(val)


def test_a_torn_or_foreign_index_is_rebuilt_and_never_unpickled(copy: Path, tmp_path: Path) -> None:
    cache = tmp_path / "index"
    fresh = everything(open_source(copy, cache))
    whole, arrays, pickled = cache.read_bytes(), io.BytesIO(), io.BytesIO()
    torn = [whole[: len(whole) * k // 7] for k in range(7)]
    flipped = range(0, len(whole), len(whole) // 16)
    torn += [whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in flipped]
    np.savez(arrays, other=np.zeros(3))
    np.savez(pickled, text=np.array([{"key": 1}], object))
    for data in (*torn, b"PK", arrays.getvalue(), pickled.getvalue(), pickle.dumps({"key": 1})):
        cache.write_bytes(data)
        assert everything(open_source(copy, cache)) == fresh


def test_a_disk_that_refuses_the_index_does_not_stop_the_run(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert len(open_source(copy, tmp_path / "file" / "index").members["train"]) == 27


# How far it is


def walk(root: Path, cache: Path | None = None) -> dict[str, tuple[int, int, int | None, str]]:
    """Read a source; return entries, done, total and unit at the end of each stage."""
    told: dict[str, list[tuple[int, int, int | None, str]]] = defaultdict(list)
    open_source(root, cache, lambda a: told[a.stage].append((a.counts["entries"], a.done, a.total, a.unit)))
    for first, *_, (_, done, total, _) in told.values():
        assert first[:2] == (0, 0)
        assert total in (None, done), "a stage ends with all of its total"
    return {stage: states[-1] for stage, states in told.items()}


def test_archives_are_measured_in_bytes(official: Path) -> None:
    found = walk(official)
    val_bytes = (official / VAL_TAR).stat().st_size
    assert [(stage, entries, unit) for stage, (entries, _, _, unit) in found.items()] == [
        ("class tars", 3, "bytes"),
        ("train", 27, "bytes"),
        ("val", 7, "bytes"),
    ]
    assert found["val"][1:3] == (val_bytes, val_bytes)


@pytest.mark.parametrize("flat", [True, False])
def test_trees_are_measured_in_folders_also_where_they_are_compared_with_an_index(tmp_path: Path, flat: bool) -> None:
    root, cache = tmp_path / "root", tmp_path / "index"
    write_tree(root, dict.fromkeys(WNIDS, PICTURES), [(wnid, encode_picture(9)) for wnid in WNIDS], flat=flat)
    write_devkit(root, dict.fromkeys(WNIDS, "thing"), WNIDS)
    val = (4, 4, None, "files") if flat else (4, 4, 4, "folders")
    changes = {"changes": (0, 6 if flat else 10, None, "folders")}
    assert walk(root, cache) == {**changes, "train": (12, 4, 4, "folders"), "val": val}
    assert walk(root, cache) == changes


@pytest.mark.parametrize("nested", [True, False])
def test_class_tars_are_looked_for_and_then_measured_in_bytes(tmp_path: Path, nested: bool) -> None:
    tars = {f"{wnid}.tar": PICTURES for wnid in WNIDS}
    size = len(WNIDS) * len(packed(PICTURES))
    found = walk(write(tmp_path, {"all.tar": tars} if nested else tars))
    assert list(found) == ["class tars", "train"]
    assert found["class tars"][2:] == (1 if nested else 4, "files")
    assert found["train"] == (12, size, size, "bytes")


def test_small_sets_are_measured_in_files(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "cifar", 3)
    assert walk(tmp_path / "cifar")["train"] == (18, 7, 7, "files")
    write_mnist(tmp_path / "mnist", 3, 2)
    assert walk(tmp_path / "mnist") == {}, "two small files of labels"


def test_a_long_pass_tells_ten_times_a_second_and_not_more() -> None:
    told: list[Amount] = []
    now = 0.0
    progress = Walk(told.append, clock=lambda: now)
    progress.begin("train", "bytes", 50_000)
    for _ in range(5_000):
        now += 0.001
        progress.advance(10, 2)
    progress.end()
    assert 45 <= len(told) <= 52
    assert told[-1] == Amount(
        event="index", stage="train", done=50_000, total=50_000, unit="bytes", counts={"entries": 10_000}
    )
    assert [w.done for w in told] == sorted(w.done for w in told)


def test_entries_of_tars_are_told_some_hundred_at_a_time(tmp_path: Path) -> None:
    told: list[int] = []
    write_entries(tmp_path / "tars", 2, 4_000)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Walk, "advance", lambda _, done, entries=0: told.append(entries))
        open_source(tmp_path / "tars")
    assert sum(told) == 4_000
    assert len(told) < 4_000 / 100
