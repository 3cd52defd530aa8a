"""A source that changes under a conversion ends it: sound images are never rejected, and none is taken for another."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from alexnet.shards.manifest import read_manifest
from alexnet.tools.convert.build import BuildOptions, build
from alexnet.tools.convert.plan import ConvertSettings, plan_shards
from alexnet.tools.convert.shard import ConversionError, ShardJob, convert_shard
from alexnet.tools.convert.source_files import SourceChangedError, check_archives
from alexnet.tools.convert.sources import TRAIN_TAR, open_source
from alexnet.tools.prep import main
from tests.conftest import digests, encode_picture
from tests.unit.tools.conftest import SETTINGS


def job_of(source: Path, root: Path) -> ShardJob:
    found = open_source(source)
    plan = plan_shards(found, ConvertSettings(size_px=32, shard_images=100))[0]
    for name in ("train", ".work"):
        (root / name).mkdir(parents=True, exist_ok=True)
    return ShardJob(
        root=root,
        source=source,
        encoding="file",
        settings=ConvertSettings(size_px=32),
        on_error="reject",
        plan=plan,
        members=plan.members(found),
    )


@pytest.mark.parametrize("data", [encode_picture(3) + bytes(1000), encode_picture(3)[:500]])
def test_a_file_that_grew_or_shrank_after_it_was_listed_is_no_bad_image(
    folder: Path, tmp_path: Path, data: bytes
) -> None:
    job = job_of(folder, tmp_path / "set")
    (folder / "cats" / "3.jpg").write_bytes(data)
    with pytest.raises(SourceChangedError, match=f"{folder}/cats/3.jpg: 3.jpg has "):
        convert_shard(job, [0, 0])


def overwrite(path: Path, at_ns: int) -> None:
    """Put nonsense into a file, as long as it was, at some time."""
    path.write_bytes(bytes(path.stat().st_size))
    os.utime(path, ns=(at_ns, at_ns))


def test_a_file_that_is_written_to_meanwhile_is_no_bad_image_even_if_its_length_stays(
    folder: Path, tmp_path: Path
) -> None:
    job = job_of(folder, tmp_path / "set")
    overwrite(folder / "cats" / "3.jpg", time.time_ns())
    with pytest.raises(SourceChangedError):
        convert_shard(job, [0, 0])
    for at_ns in (time.time_ns(), 1 << 62):  # bad before it was listed; of a time to come, as on some cameras
        overwrite(folder / "cats" / "3.jpg", at_ns)
        assert len(convert_shard(job_of(folder, tmp_path / "set"), [0, 0]).rejected) == 1


def test_one_that_is_replaced_by_a_copy_that_keeps_its_time_is_none_either(folder: Path, tmp_path: Path) -> None:
    job, picture = job_of(folder, tmp_path / "set"), folder / "cats" / "3.jpg"
    (tmp_path / "copy").write_bytes(picture.read_bytes())
    overwrite(tmp_path / "copy", 1)
    (tmp_path / "copy").replace(picture)
    with pytest.raises(SourceChangedError, match=r"cats/3\.jpg: was written to meanwhile"):
        convert_shard(job, [0, 0])


def test_a_sound_picture_of_the_same_length_in_the_place_of_another_ends_the_run_too(
    folder: Path, tmp_path: Path
) -> None:
    job, picture = job_of(folder, tmp_path / "set"), folder / "cats" / "3.jpg"
    data = picture.read_bytes()
    picture.write_bytes(encode_picture(99, 20, 20).ljust(len(data), b"\0"))
    with pytest.raises(SourceChangedError):
        convert_shard(job, [0, 0])
    assert not list((tmp_path / "set").rglob("*.tar"))


@pytest.mark.usefixtures("before")
def test_one_that_changes_while_the_rest_is_listed_ends_the_run(folder: Path, tmp_path: Path) -> None:
    source, began_ns = open_source(folder), time.time_ns()
    overwrite(folder / "cats" / "3.jpg", time.time_ns())
    with pytest.raises(SourceChangedError, match=r"cats/3\.jpg: was written to meanwhile"):
        build(source, tmp_path / "set", SETTINGS, BuildOptions(since_ns=began_ns))


def test_nor_is_an_archive_that_is(official: Path, tmp_path: Path, before: list[Callable[[], object]]) -> None:
    copy = Path(shutil.copytree(official, tmp_path / "copy"))
    whole = (copy / TRAIN_TAR).read_bytes()
    before.append(lambda: overwrite(copy / TRAIN_TAR, time.time_ns()))
    with pytest.raises(SourceChangedError, match=f"{TRAIN_TAR}: was written to meanwhile: the source changed"):
        build(open_source(copy), tmp_path / "set", SETTINGS)
    (copy / TRAIN_TAR).write_bytes(whole)
    assert build(open_source(copy), tmp_path / "set", SETTINGS).counts["train"].rejected == 3


def test_an_archive_that_changes_when_all_of_it_was_read_ends_the_run_before_the_manifest(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: list[Callable[[], object]]
) -> None:
    copy, root = Path(shutil.copytree(official, tmp_path / "copy")), tmp_path / "set"
    whole, source = (copy / TRAIN_TAR).read_bytes(), open_source(copy)

    def changing(*arguments: Any) -> None:
        overwrite(copy / TRAIN_TAR, time.time_ns())
        check_archives(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("alexnet.tools.convert.build.check_archives", changing)
        with pytest.raises(SourceChangedError, match=f"{TRAIN_TAR}: was written to meanwhile"):
            build(source, root, SETTINGS)
    assert not (root / "manifest.json").exists()
    (copy / TRAIN_TAR).write_bytes(whole)
    build(open_source(copy), root, SETTINGS)
    build(open_source(official), tmp_path / "fresh", SETTINGS)
    assert digests(root) == digests(tmp_path / "fresh")


def test_one_that_is_made_whole_between_its_reject_and_the_end_is_named_and_taken_up_by_the_next_call(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: list[Callable[[], object]]
) -> None:
    picture, root = folder / "cats" / "3.jpg", tmp_path / "set"
    whole = picture.read_bytes()
    picture.write_bytes(bytes(len(whole)))
    with monkeypatch.context() as patch:
        patch.setattr("alexnet.tools.convert.build.write_index", lambda _, rows: [*rows, picture.write_bytes(whole)])
        with pytest.raises(ConversionError, match=r"changed meanwhile: 1 rejected image, cats/3.jpg; give"):
            build(open_source(folder), root, SETTINGS)
    build(open_source(folder), root, SETTINGS)
    assert read_manifest(root).counts["train"].written == 16


def test_files_overwritten_since_the_index_was_kept_have_it_made_anew_by_the_same_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: list[Callable[[], object]]
) -> None:
    arguments = ["shard", str(folder), "--out", str(tmp_path / "set"), "--size", "32", "--seed", "7"]
    before.append(lambda: (_ for _ in ()).throw(ConversionError("stopped")))
    assert CliRunner().invoke(main, arguments).exit_code == 1
    (folder / "cats" / "3.jpg").write_bytes(encode_picture(99, 90, 90))
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert result.output.count("reading the headers of") == 2
    build(open_source(folder), tmp_path / "fresh", ConvertSettings(size_px=32, seed=7))
    assert digests(tmp_path / "set") == digests(tmp_path / "fresh")


def test_files_that_change_while_they_are_converted_end_the_run_and_the_next_call_lists_them_anew(
    folder: Path, tmp_path: Path, before: list[Callable[[], object]]
) -> None:
    arguments = ["shard", str(folder), "--out", str(tmp_path / "set"), "--size", "32"]
    before.append(lambda: (folder / "cats" / "3.jpg").write_bytes(encode_picture(99, 90, 90)))
    ended = CliRunner().invoke(main, arguments)
    assert ended.exit_code == 2
    assert "3.jpg has more than its" in ended.stderr
    assert CliRunner().invoke(main, arguments).exit_code == 0
