"""A data set is the same bytes for every number of workers and every interruption, and nothing is lost on the way."""

import errno
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import read_manifest
from alexnet.tools.convert.build import BuildOptions, Progress, build
from alexnet.tools.convert.folder import held
from alexnet.tools.convert.plan import ConvertSettings, plan_shards
from alexnet.tools.convert.shard import ConversionError, is_done
from alexnet.tools.convert.sources import open_source
from alexnet.tools.prep import main
from tests.conftest import digests

SETTINGS = ConvertSettings(size_px=40, shard_images=10, seed=7)


def test_every_entry_is_written_or_rejected_with_a_reason(data_set: Path) -> None:
    manifest = read_manifest(data_set)
    train, val = manifest.counts["train"], manifest.counts["val"]
    assert (train.input, train.written, train.rejected) == (27, 24, 3)
    assert (val.input, val.written, val.rejected) == (7, 7, 0)
    rejected = [json.loads(line) for line in (data_set / "rejected.jsonl").read_text().splitlines()]
    assert {r["member"]: r["reason"].split(":")[0] for r in rejected} == {
        "n00000002_3.JPEG": "empty file",
        "n00000002_4.JPEG": "OSError",
        "n00000003_5.JPEG": "not an image of any known format",
    }


def test_rejected_images_leave_their_shard_short_and_move_nothing(data_set: Path, official: Path) -> None:
    manifest = read_manifest(data_set)
    plans = plan_shards(open_source(official), SETTINGS)
    rejected = [json.loads(line) for line in (data_set / "rejected.jsonl").read_text().splitlines()]
    for plan, record in zip(plans, manifest.shards, strict=True):
        bad = [r for r in rejected if r["split"] == plan.split and r["place"] // 10 == plan.number]
        assert record.images == len(plan.member_ids) - len(bad)


def test_training_images_are_shuffled_across_classes(official: Path) -> None:
    source = open_source(official)
    plans = [plan for plan in plan_shards(source, SETTINGS) if plan.split == "train"]
    labels = [m.label for plan in plans for m in plan.members(source)]
    assert sorted(labels) != labels
    assert len({m.label for m in plans[0].members(source)}) == 3


def test_workers_do_not_change_a_byte(official: Path, data_set: Path, tmp_path: Path) -> None:
    build(open_source(official), tmp_path / "set", SETTINGS, BuildOptions(workers=3))
    assert digests(tmp_path / "set") == digests(data_set)


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(official: Path, data_set: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    source = open_source(official)

    def interrupt(progress: Progress) -> None:
        if progress.written >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(source, root, SETTINGS, on_progress=interrupt)
    assert not (root / "manifest.json").exists()
    done = [p for p in plan_shards(source, SETTINGS) if is_done(root, p)]
    before = {p.name: (root / f"{p.split}/{p.number:06d}.tar").stat().st_mtime_ns for p in done}
    build(source, root, SETTINGS)
    assert digests(root) == digests(data_set)
    after = {p.name: (root / f"{p.split}/{p.number:06d}.tar").stat().st_mtime_ns for p in done}
    assert after == before, "a shard that was complete was written again"


def test_a_finished_set_is_left_alone(official: Path, data_set: Path) -> None:
    before = digests(data_set)
    manifest = build(open_source(official), data_set, SETTINGS)
    assert manifest == read_manifest(data_set)
    assert digests(data_set) == before


def test_a_folder_with_another_data_set_is_refused_and_untouched(official: Path, data_set: Path) -> None:
    before = digests(data_set)
    other = ConvertSettings(size_px=40, shard_images=10, seed=8)
    with pytest.raises(InputError, match=r"another data set \(seed 7 there, 8 asked for\); give another --out"):
        build(open_source(official), data_set, other)
    assert digests(data_set) == before


def test_a_folder_with_something_else_is_refused_and_untouched(official: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is no data set"):
        build(open_source(official), tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_source_is_only_read(official: Path, tmp_path: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, digest) for path, digest in zip(*_files(official), strict=True)}
    build(open_source(official), tmp_path / "set", SETTINGS)
    assert {path: (path.stat().st_mtime_ns, digest) for path, digest in zip(*_files(official), strict=True)} == before


def _files(root: Path) -> tuple[list[Path], list[str]]:
    found = digests(root)
    return [root / name for name in found], list(found.values())


def test_nothing_of_the_machine_is_in_the_manifest(data_set: Path, official: Path) -> None:
    text = (data_set / "manifest.json").read_text()
    for trace in (str(data_set), str(official), "time", "worker", "host"):
        assert trace not in text
    assert not (data_set / ".work").exists()


@pytest.mark.parametrize("field", ["size_px", "quality", "shard_images"])
def test_settings_out_of_range_are_named(field: str) -> None:
    with pytest.raises(InputError, match=f"{field}=0: must be between"):
        replace(SETTINGS, **{field: 0})  # type: ignore[arg-type]


def test_too_many_rejects_keep_the_shards_and_write_no_manifest(official: Path, data_set: Path, tmp_path: Path) -> None:
    root, source = tmp_path / "set", open_source(official)
    with pytest.raises(ConversionError, match=r"3 images were rejected and 2 are allowed; .*--max-rejected 3"):
        build(source, root, SETTINGS, BuildOptions(max_rejected=2))
    assert not (root / "manifest.json").exists()
    assert len((root / "rejected.jsonl").read_text().splitlines()) == 3
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.tar")}
    build(source, root, SETTINGS, BuildOptions(max_rejected=3))
    assert digests(root) == digests(data_set)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.tar")} == before


def test_a_bad_image_can_be_made_to_end_the_run(official: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"n0000000\d_\d\.JPEG at byte [\d,]+: "):
        build(open_source(official), tmp_path / "set", SETTINGS, BuildOptions(on_error="fail"))


def test_overwrite_replaces_a_data_set_and_nothing_else(official: Path, data_set: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data_set, tmp_path / "set"))
    other = ConvertSettings(size_px=32, shard_images=10, seed=7)
    assert build(open_source(official), root, other, BuildOptions(overwrite=True)).size_px == 32
    for name in ("notes.txt", "train/notes.txt", ".work/notes.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("mine")
        before = digests(root)
        with pytest.raises(InputError, match=rf"also holds {re.escape(name)}, so nothing was deleted"):
            build(open_source(official), root, SETTINGS, BuildOptions(overwrite=True))
        assert digests(root) == before
        (root / name).unlink()
    for name in ("thesis.tex", ".work/thesis.tex"):
        mine = tmp_path / "mine" / name
        mine.parent.mkdir(parents=True)
        mine.touch()
        for overwrite in (True, False):
            with pytest.raises(InputError, match="is no data set of alexnet-prep"):
                build(open_source(official), tmp_path / "mine", SETTINGS, BuildOptions(overwrite=overwrite))
        assert mine.exists()
        shutil.rmtree(tmp_path / "mine")


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    with held(tmp_path / "set"), pytest.raises(InputError, match="another alexnet-prep is writing there"):
        held(tmp_path / "set").__enter__()
    with held(tmp_path / "set"):
        assert list((tmp_path / "set").iterdir()) == [], "the lock leaves no file"


def test_a_folder_that_is_another_users_is_one_line(tmp_path: Path) -> None:
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / ".work" / "job.json"))
    with pytest.raises(InputError, match=r"job\.json: Permission denied; all of .* must be yours"), held(tmp_path):
        raise denied


def test_a_disk_that_is_too_small_is_refused_before_the_start(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alexnet.tools.convert.build.shutil.disk_usage", lambda _: SimpleNamespace(free=10_000))
    with pytest.raises(InputError, match=r"about [\d.]+ kB are needed and 10\.0 kB are free"):
        build(open_source(official), tmp_path / "set", SETTINGS)
    assert not list((tmp_path / "set").iterdir()), "a smaller size may be tried next, in the same folder"


def test_a_command_that_finds_no_room_leaves_nothing_and_deletes_nothing(
    official: Path, data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, before = Path(shutil.copytree(data_set, tmp_path / "made")), digests(data_set)
    monkeypatch.setattr("alexnet.tools.convert.build.shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    for root, options in ((tmp_path / "a" / "b", ()), (made, ("--overwrite", "--size", "512"))):
        refused = CliRunner().invoke(main, ["shard", str(official), "--out", str(root), *options])
        assert refused.exit_code == 2, refused.output
        assert re.fullmatch(
            r"Error: --out .*: about [\d.]+ MB are needed and .* are free; make room.*\n", refused.stderr
        )
    assert not (tmp_path / "a").exists()
    assert digests(made) == before
    classes = ["shard", str(official), "--out", str(tmp_path / "set"), "--classes", str(tmp_path / "nowhere")]
    assert CliRunner().invoke(main, classes).exit_code == 2
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("last_step", ["write_index", "write_checksums"])
def test_a_disk_that_is_full_at_the_last_step_ends_in_one_line_and_the_next_call_continues(
    official: Path, data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "index.npy")

    root, source = tmp_path / "set", open_source(official)
    with monkeypatch.context() as patch:
        patch.setattr(f"alexnet.tools.convert.build.{last_step}", full)
        with pytest.raises(ConversionError, match=r"No space left on device: index\.npy; mend it and give the same"):
            build(source, root, SETTINGS)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.tar")}
    build(source, root, SETTINGS)
    assert digests(root) == digests(data_set)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.tar")} == before


def test_a_source_cut_short_under_a_run_is_no_bad_image(official: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(official, tmp_path / "source"))
    source = open_source(copy)
    tar = copy / "ILSVRC2012_img_train.tar"
    data = tar.read_bytes()
    tar.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="the source changed after it was indexed"):
        build(source, tmp_path / "set", SETTINGS)
    tar.write_bytes(data)
    build(source, tmp_path / "set", SETTINGS)


def test_a_shard_with_torn_notes_is_done_again(official: Path, data_set: Path, tmp_path: Path) -> None:
    root, source = tmp_path / "set", open_source(official)
    with pytest.raises(ConversionError):
        build(source, root, SETTINGS, BuildOptions(max_rejected=0))
    notes = root / ".work" / "train-000001.notes"
    notes.write_bytes(notes.read_bytes()[:100])
    build(source, root, SETTINGS)
    assert digests(root) == digests(data_set)
