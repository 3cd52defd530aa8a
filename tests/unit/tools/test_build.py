"""A data set is the same bytes for every number of workers and every interruption, and nothing is lost on the way."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import MANIFEST_NAME, read_manifest
from alexnet.shards.verify import verify
from alexnet.tools.convert.build import BuildOptions, Progress, build
from alexnet.tools.convert.folder import held, refuse_early
from alexnet.tools.convert.plan import ConvertSettings, plan_shards
from alexnet.tools.convert.shard import ConversionError, is_done
from alexnet.tools.convert.sources import open_source
from alexnet.tools.prep import main
from tests.conftest import digests
from tests.sources import write_files

SETTINGS = ConvertSettings(size_px=40, shard_images=10, seed=7)  # those of `data_set`
OTHER = ConvertSettings(size_px=32, shard_images=20, seed=7)


class Killed(BaseException):
    pass


def times(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*.tar")}


def test_every_entry_is_written_in_a_shuffled_place_or_rejected_with_a_reason(data_set: Path, official: Path) -> None:
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
    source = open_source(official)
    plans = plan_shards(source, SETTINGS)
    for plan, record in zip(plans, manifest.shards, strict=True):  # rejects leave their shard short and move nothing
        bad = [r for r in rejected if r["split"] == plan.split and r["place"] // 10 == plan.number]
        assert record.images == len(plan.member_ids) - len(bad)
    assert {member.label for member in plans[0].members(source)} == {0, 1, 2}
    text = (data_set / "manifest.json").read_text()
    for trace in (str(data_set), str(official), "time", "worker", "host"):
        assert trace not in text
    assert not (data_set / ".work").exists()


def test_neither_workers_nor_an_interruption_change_a_byte_of_it_or_of_the_source(
    official: Path, data_set: Path, tmp_path: Path
) -> None:
    source, root = open_source(official), tmp_path / "set"
    before = {path: (path.stat().st_mtime_ns, digests(official)) for path in official.rglob("*")}

    def interrupt(progress: Progress) -> None:
        if progress.written >= 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(source, root, SETTINGS, BuildOptions(workers=1), interrupt)
    assert not (root / "manifest.json").exists()
    done = [
        root / f"{plan.split}/{plan.number:06d}.tar" for plan in plan_shards(source, SETTINGS) if is_done(root, plan)
    ]
    earlier = times(root)
    build(source, root, SETTINGS, BuildOptions(workers=3))
    assert digests(root) == digests(data_set)
    assert {path: times(root)[path] for path in done} == {path: earlier[path] for path in done}
    assert {path: (path.stat().st_mtime_ns, digests(official)) for path in official.rglob("*")} == before
    assert build(source, root, SETTINGS) == read_manifest(data_set)


@pytest.mark.usefixtures("here")
def test_too_many_rejects_keep_the_shards_and_write_no_manifest_and_torn_notes_are_done_again(
    official: Path, data_set: Path, tmp_path: Path
) -> None:
    root, source = tmp_path / "set", open_source(official)
    with pytest.raises(ConversionError, match=r"3 images were rejected and 2 are allowed; .*--max-rejected 3"):
        build(source, root, SETTINGS, BuildOptions(max_rejected=2))
    assert not (root / "manifest.json").exists()
    assert len((root / "rejected.jsonl").read_text().splitlines()) == 3
    before = times(root)
    notes = root / ".work" / "train-000001.notes"
    notes.write_bytes(notes.read_bytes()[:100])
    build(source, root, SETTINGS, BuildOptions(max_rejected=3))
    assert digests(root) == digests(data_set)
    assert [path.name for path, time in times(root).items() if time != before[path]] == ["000001.tar"]
    with pytest.raises(ConversionError, match=r"--on-error fail: .*n0000000\d_\d\.JPEG at byte [\d,]+: "):
        build(source, tmp_path / "other", SETTINGS, BuildOptions(on_error="fail"))


@pytest.mark.usefixtures("here")
def test_another_data_set_or_something_else_is_refused_and_untouched_and_overwrite_replaces_its_own_alone(
    official: Path, data_set: Path, tmp_path: Path
) -> None:
    root, source = Path(shutil.copytree(data_set, tmp_path / "set")), open_source(official)
    before = digests(root)
    with pytest.raises(InputError, match=r"another data set \(seed 7 there, 8 asked for\); give another --out"):
        build(source, root, ConvertSettings(size_px=40, shard_images=10, seed=8))
    for name in ("notes.txt", "train/notes.txt", ".work/notes.txt"):
        write_files((root / name).parent, {"notes.txt": b"mine"})
        with pytest.raises(InputError, match=rf"also holds {re.escape(name)}, so nothing was deleted"):
            build(source, root, SETTINGS, BuildOptions(overwrite=True))
        (root / name).unlink()
        assert digests(root) == before
    assert build(source, root, OTHER, BuildOptions(overwrite=True)).size_px == 32
    for name in ("thesis.tex", ".work/thesis.tex"):
        write_files((tmp_path / "mine" / name).parent, {"thesis.tex": b"years of work"})
        for overwrite in (True, False):
            with pytest.raises(InputError, match="is no data set of alexnet-prep"):
                build(source, tmp_path / "mine", SETTINGS, BuildOptions(overwrite=overwrite))
        assert (tmp_path / "mine" / name).exists()
        shutil.rmtree(tmp_path / "mine")
    (root / "train").rename(tmp_path / "train")
    (root / "train").symlink_to(tmp_path / "train")
    with pytest.raises(InputError, match=r"also holds train, so nothing was deleted; .* what is a link, replace"):
        build(source, root, OTHER, BuildOptions(overwrite=True))
    assert verify(root).passed


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(("call", "step"), [("unlink", 1), ("unlink", 2), ("unlink", 5), ("rmdir", 1), ("rmdir", 2)])
def test_killed_at_any_step_of_overwriting_the_same_command_goes_on_with_and_without_it(
    official: Path,
    data_set: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished: bool,
    call: str,
    step: int,
) -> None:
    source, made = open_source(official), set[str]()
    for again in (False, True):
        root = Path(shutil.copytree(data_set, tmp_path / str(again)))
        if not finished:
            write_files(root / ".work", {"job.json": (root / MANIFEST_NAME).read_bytes()})
            (root / MANIFEST_NAME).unlink()
        with monkeypatch.context() as patch:
            patch.setattr(Path, call, failing(getattr(Path, call), step))
            with pytest.raises(Killed):
                build(source, root, OTHER, BuildOptions(overwrite=True))
        refuse_early(root, OTHER.as_manifest(), overwrite=again)
        build(source, root, OTHER, BuildOptions(overwrite=again))
        made.add(json.dumps(digests(root)))
    build(source, tmp_path / "fresh", OTHER)
    assert made == {json.dumps(digests(tmp_path / "fresh"))}


def failing(ordinary: Callable[..., Any], step: int, calls: Iterator[int] | None = None) -> Callable[..., Any]:
    """Return a function of which the call number `step` never happens."""
    calls = calls or iter(range(1, 100))

    def function(*arguments: Any, **options: Any) -> Any:
        if next(calls) == step:
            raise Killed
        return ordinary(*arguments, **options)

    return function


def test_a_folder_that_is_another_runs_or_another_users_is_one_line(tmp_path: Path) -> None:
    with held(tmp_path / "set"), pytest.raises(InputError, match="another alexnet-prep is writing there"):
        held(tmp_path / "set").__enter__()
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / ".work" / "job.json"))
    with pytest.raises(InputError, match=r"job\.json: Permission denied; all of .* must be yours"), held(tmp_path):
        raise denied


def test_a_command_that_finds_no_disk_space_leaves_nothing_and_deletes_nothing(
    official: Path, data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, before = Path(shutil.copytree(data_set, tmp_path / "made")), digests(data_set)
    monkeypatch.setattr("alexnet.tools.convert.build.shutil.disk_usage", lambda _: SimpleNamespace(free=10_000))
    with pytest.raises(InputError, match=r"about [\d.]+ kB are needed and 10\.0 kB are free"):
        build(open_source(official), tmp_path / "set", SETTINGS)
    assert not list((tmp_path / "set").iterdir()), "a smaller size may be tried next, in the same folder"
    for root, options in ((tmp_path / "a" / "b", ()), (made, ("--overwrite", "--size", "512"))):
        refused = CliRunner().invoke(main, ["shard", str(official), "--out", str(root), *options])
        assert refused.exit_code == 2, refused.output
        said = r"Error: --out .*: about [\d.]+ MB are needed and .* are free; make room.*\n"
        assert re.fullmatch(said, refused.stderr)
    assert not (tmp_path / "a").exists()
    assert digests(made) == before
    classes = ["shard", str(official), "--out", str(tmp_path / "c"), "--classes", str(tmp_path / "nowhere")]
    assert CliRunner().invoke(main, classes).exit_code == 2
    assert not (tmp_path / "c").exists()


@pytest.mark.usefixtures("here")
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
    before = times(root)
    build(source, root, SETTINGS)
    assert digests(root) == digests(data_set)
    assert times(root) == before


@pytest.mark.usefixtures("here")
def test_all_bytes_are_on_the_disk_before_the_manifest_has_its_name(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut, a rename may have happened and the writing before it not; and .work would be gone by then."""
    settled: set[int] = set()
    missing: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting(descriptor: int) -> None:
        settled.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def checking(self: Path, target: Path) -> Path:
        if target.name == MANIFEST_NAME:
            files = [path for path in target.parent.rglob("*") if path.is_file() and path.name != "job.json"]
            missing.extend(path.name for path in files if path.stat().st_ino not in settled)
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(Path, "replace", checking)
    build(open_source(official), tmp_path / "set", SETTINGS)
    assert missing == []
    assert verify(tmp_path / "set").passed
