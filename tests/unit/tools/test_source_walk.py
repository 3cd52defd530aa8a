"""The pass over the headers says how far it is, whatever the layout, and seldom enough to cost nothing."""

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.convert.sources import open_source
from alexnet.tools.convert.sources.layout import Walk, Walked
from alexnet.tools.samples.layouts import write_class_tars, write_tree
from alexnet.tools.samples.official import write_devkit
from alexnet.tools.samples.small_sets import write_cifar10, write_mnist
from tests.class_tars import write_entries
from tests.conftest import encode_picture


def stages(told: list[Walked]) -> dict[str, tuple[Walked, Walked]]:
    """Return the first and the last that was told of each stage."""
    found: dict[str, tuple[Walked, Walked]] = {}
    for walked in told:
        found[walked.stage] = (found[walked.stage][0] if walked.stage in found else walked, walked)
    return found


def walk(root: Path, cache: Path | None = None) -> dict[str, tuple[Walked, Walked]]:
    told: list[Walked] = []
    open_source(root, cache, told.append)
    for first, last in stages(told).values():
        assert (first.entries, first.done) == (0, 0)
        assert last.total is None or last.done == last.total, "a stage ends with all of its total"
    return stages(told)


def test_archives_are_measured_in_bytes(official: Path) -> None:
    found = walk(official)
    assert list(found) == ["class tars", "train", "val"]
    assert {stage: last.entries for stage, (_, last) in found.items()} == {"class tars": 3, "train": 27, "val": 7}
    assert {last.unit for _, last in found.values()} == {"bytes"}
    assert found["val"][1].total == (official / "ILSVRC2012_img_val.tar").stat().st_size


@pytest.mark.parametrize("flat", [True, False])
def test_trees_are_measured_in_folders(tmp_path: Path, flat: bool) -> None:
    pictures = {f"{i}.JPEG": encode_picture(i) for i in range(3)}
    classes = [f"n0000000{k}" for k in range(4)]
    val = [(wnid, encode_picture(9)) for wnid in classes]
    write_tree(tmp_path, dict.fromkeys(classes, pictures), val, flat=flat)
    write_devkit(tmp_path, dict.fromkeys(classes, "thing"), classes)
    found = walk(tmp_path)
    assert {stage: (last.entries, last.total, last.unit) for stage, (_, last) in found.items()} == {
        "train": (12, 4, "folders"),
        "val": (4, None, "files") if flat else (4, 4, "folders"),
    }


def test_a_kept_index_is_compared_folder_by_folder(tmp_path: Path) -> None:
    write_tree(tmp_path / "root", {f"n0000000{k}": {"a.JPEG": encode_picture(k)} for k in range(4)})
    assert list(walk(tmp_path / "root", tmp_path / "index")) == ["changes", "train"]
    again = walk(tmp_path / "root", tmp_path / "index")
    assert list(again) == ["changes"]
    assert (again["changes"][1].done, again["changes"][1].total) == (5, None)


@pytest.mark.parametrize("nested", [True, False])
def test_class_tars_are_looked_for_and_then_measured_in_bytes(tmp_path: Path, nested: bool) -> None:
    pictures = {f"{i}.JPEG": encode_picture(i) for i in range(3)}
    root = tmp_path / "tars"
    write_class_tars(root, {f"n0000000{k}": pictures for k in range(4)})
    sizes = [path.stat().st_size for path in root.iterdir()]
    if nested:
        with tarfile.open(tmp_path / "all.tar", "w") as tar:
            for path in sorted(root.iterdir()):
                tar.add(path, path.name)
        shutil.rmtree(root)
        root.mkdir()
        (tmp_path / "all.tar").rename(root / "all.tar")
    found = walk(root)
    assert list(found) == ["class tars", "train"]
    assert (found["class tars"][1].total, found["class tars"][1].unit) == (1 if nested else 4, "files")
    assert (found["train"][1].entries, found["train"][1].total) == (12, sum(sizes))


def test_small_sets_are_measured_in_files(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "cifar", 3)
    last = walk(tmp_path / "cifar")["train"][1]
    assert (last.entries, last.done, last.unit) == (18, 7, "files")
    write_mnist(tmp_path / "mnist", 3, 2)
    assert walk(tmp_path / "mnist") == {}, "two small files of labels"


def test_a_long_pass_tells_ten_times_a_second_and_not_more() -> None:
    told: list[Walked] = []
    now = 0.0
    progress = Walk(told.append, clock=lambda: now)
    progress.begin("train", "bytes", 50_000)
    for _ in range(5_000):
        now += 0.001
        progress.advance(10, 2)
    progress.end()
    assert 45 <= len(told) <= 52
    assert told[-1] == Walked(stage="train", entries=10_000, done=50_000, total=50_000, unit="bytes")
    assert [w.done for w in told] == sorted(w.done for w in told)


def test_entries_are_reported_some_hundred_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    ordinary = Walk.advance

    def advance(self: Walk, done: int, entries: int = 0) -> None:
        calls.append((done, entries))
        ordinary(self, done, entries)

    monkeypatch.setattr(Walk, "advance", advance)
    write_entries(tmp_path / "tars", 2, 4_000)
    open_source(tmp_path / "tars")
    assert sum(entries for _, entries in calls) == 4_000
    assert len(calls) < 4_000 / 100
    tars = tmp_path / "tars.tar"
    assert sum(done for done, entries in calls if entries) == 2 * tars.stat().st_size


def test_a_damaged_archive_is_named_all_the_same(official: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(official, tmp_path / "copy"))
    tar = copy / "ILSVRC2012_img_train.tar"
    tar.write_bytes(tar.read_bytes()[:-20_000])
    told: list[Walked] = []
    with pytest.raises(InputError, match=r"ILSVRC2012_img_train\.tar"):
        open_source(copy, None, told.append)
    assert told[-1].stage in ("class tars", "train")


def test_links_and_folders_in_a_tar_are_passed_by(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with tarfile.open(tmp_path / "root" / "n00000001.tar", "w") as tar:
        for name, kind in (("folder", tarfile.DIRTYPE), ("link", tarfile.SYMTYPE), ("a.JPEG", tarfile.REGTYPE)):
            member = tarfile.TarInfo(name)
            member.type = kind
            data = encode_picture(1) if kind == tarfile.REGTYPE else b""
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert walk(tmp_path / "root")["train"][1].entries == 3
