"""A data set is the same bytes for every number of workers and every interruption, and nothing is lost on the way."""

import errno
import json
import os
import re
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import MANIFEST_NAME, read_manifest
from alexnet.shards.verify import verify
from alexnet.tools.convert.build import BuildOptions, build
from alexnet.tools.convert.folder import held
from alexnet.tools.convert.plan import ConvertSettings, plan_shards
from alexnet.tools.convert.shard import ConversionError, Notes, ShardJob, convert_shard, notes_file, read_notes
from alexnet.tools.convert.sources import open_source
from alexnet.tools.progress import Amount
from tests.conftest import HERE, digests, encode_picture, prep
from tests.sources import write_class_tars, write_files

SETTINGS = ConvertSettings(size_px=40, shard_images=10, seed=7)  # those of `data_set`
OTHER = ConvertSettings(size_px=32, shard_images=20, seed=7)


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

    def interrupt(amount: Amount) -> None:
        if amount.done >= 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(source, root, SETTINGS, BuildOptions(workers=1), interrupt)
    assert not (root / "manifest.json").exists()
    earlier = times(root)
    build(source, root, SETTINGS, BuildOptions(workers=3))
    assert digests(root) == digests(data_set)
    assert earlier
    assert {path: times(root)[path] for path in earlier} == earlier
    assert {path: (path.stat().st_mtime_ns, digests(official)) for path in official.rglob("*")} == before
    assert build(source, root, SETTINGS, HERE) == read_manifest(data_set)


@pytest.mark.usefixtures("here")
def test_too_many_rejects_keep_the_shards_and_write_no_manifest_and_torn_notes_are_done_again(
    official: Path, data_set: Path, tmp_path: Path
) -> None:
    root, source = tmp_path / "set", open_source(official)
    with pytest.raises(ConversionError, match=r"3 images were rejected and 2 are allowed; .*--max-rejected 3"):
        build(source, root, SETTINGS, BuildOptions(workers=0, max_rejected=2))
    assert not (root / "manifest.json").exists()
    assert len((root / "rejected.jsonl").read_text().splitlines()) == 3
    before = times(root)
    notes = root / ".work" / "train-000001.notes"
    notes.write_bytes(notes.read_bytes()[:-100])
    build(source, root, SETTINGS, BuildOptions(workers=0, max_rejected=3))
    assert digests(root) == digests(data_set)
    assert [path.name for path, time in times(root).items() if time != before[path]] == ["000001.tar"]
    with pytest.raises(ConversionError, match=r"--on-error fail: .*n0000000\d_\d\.JPEG at byte [\d,]+: "):
        build(source, tmp_path / "other", SETTINGS, BuildOptions(workers=0, on_error="fail"))


@pytest.mark.usefixtures("here")
def test_another_data_set_or_something_else_is_refused_and_untouched_and_overwrite_replaces_its_own_alone(
    official: Path, data_set: Path, tmp_path: Path
) -> None:
    root, source = Path(shutil.copytree(data_set, tmp_path / "set")), open_source(official)
    before = digests(root)
    with pytest.raises(InputError, match=r"another data set \(seed 7 there, 8 asked for\); give another --out"):
        build(source, root, ConvertSettings(size_px=40, shard_images=10, seed=8), HERE)
    for name in ("notes.txt", "train/notes.txt", ".work/notes.txt"):
        write_files((root / name).parent, {"notes.txt": b"mine"})
        with pytest.raises(InputError, match=rf"also holds {re.escape(name)}, so nothing was deleted"):
            build(source, root, SETTINGS, BuildOptions(workers=0, overwrite=True))
        (root / name).unlink()
        assert digests(root) == before
    assert build(source, root, OTHER, BuildOptions(workers=0, overwrite=True)).size_px == 32
    for name in ("thesis.tex", ".work/thesis.tex"):
        write_files((tmp_path / "mine" / name).parent, {"thesis.tex": b"years of work"})
        for overwrite in (True, False):
            with pytest.raises(InputError, match="is no data set of alexnet-prep"):
                build(source, tmp_path / "mine", SETTINGS, BuildOptions(workers=0, overwrite=overwrite))
        assert (tmp_path / "mine" / name).exists()
        shutil.rmtree(tmp_path / "mine")
    (root / "train").rename(tmp_path / "train")
    (root / "train").symlink_to(tmp_path / "train")
    with pytest.raises(InputError, match=r"also holds train, so nothing was deleted; .* what is a link, replace"):
        build(source, root, OTHER, BuildOptions(workers=0, overwrite=True))
    assert verify(root).passed


def test_a_complete_set_that_lacks_a_shard_is_said_to_with_its_counts(
    official: Path, data_set: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(data_set, tmp_path / "set"))
    (root / "train" / "000000.tar").unlink()
    said = prep("shard", official, "--out", root, "--size", 40, "--shard-images", 10, "--seed", 7, code=2)
    assert "train: 27 in = 24 written + 3 rejected\n" in said.stdout
    assert "000000.tar: No such file or directory; the manifest names it, so bring it back" in said.stderr


def test_a_folder_that_is_another_users_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "set" / ".work" / "job.json"))
    for root in (tmp_path / "set", Path("set")):
        with pytest.raises(InputError, match=r"job\.json: Permission denied; all of .*set must be yours"), held(root):
            raise denied


@pytest.mark.parametrize("source", ["/source/train.tar", None])
def test_a_source_that_may_not_be_read_is_not_blamed_on_the_folder(tmp_path: Path, source: str | None) -> None:
    with pytest.raises(ConversionError, match=r"^Permission denied: .*; mend it and give the same"), held(tmp_path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), source)


def test_a_command_that_finds_no_disk_space_leaves_nothing_and_deletes_nothing(
    official: Path, data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, before = Path(shutil.copytree(data_set, tmp_path / "made")), digests(data_set)
    monkeypatch.setattr("alexnet.tools.convert.build.shutil.disk_usage", lambda _: SimpleNamespace(free=10_000))
    with pytest.raises(InputError, match=r"about [\d.]+ kB are needed and 10\.0 kB are free"):
        build(open_source(official), tmp_path / "set", SETTINGS, HERE)
    assert not list((tmp_path / "set").iterdir()), "a smaller size may be tried next, in the same folder"
    for root, options in ((tmp_path / "a" / "b", ()), (made, ("--overwrite", "--size", "512"))):
        refused = prep("shard", official, "--out", root, *options, code=2).stderr
        assert re.fullmatch(r"Error: --out .*: about [\d.]+ MB are needed and .* are free; make room.*\n", refused)
    assert not (tmp_path / "a").exists()
    assert digests(made) == before
    prep("shard", official, "--out", tmp_path / "c", "--classes", tmp_path / "nowhere", code=2)
    assert not (tmp_path / "c").exists()


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
    build(open_source(official), tmp_path / "set", SETTINGS, HERE)
    assert missing == []
    assert verify(tmp_path / "set").passed


def convert_only_shard(source: Path, root: Path) -> tuple[Path, Notes]:
    """Convert a source of one shard in this process; return its notes, and their file."""
    found, settings = open_source(source), ConvertSettings(size_px=32)
    (plan,) = plan_shards(found, settings)
    for folder in ("train", ".work"):
        (root / folder).mkdir(parents=True)
    members = plan.members(found)
    job = ShardJob(root=root, source=found, settings=settings, on_error="reject", plan=plan, members=members)
    return notes_file(root, plan.name), convert_shard(job, [0, 0])


def test_a_shard_from_more_class_tars_than_files_may_be_open(tmp_path: Path) -> None:
    """ImageNet-21k: 5,000 images from nearly as many tars, and 1,024 open files are what most systems grant."""
    write_class_tars(tmp_path / "tars", {f"n{k:08d}": {f"{k}.JPEG": encode_picture(k)} for k in range(40)})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 10, hard))
    try:
        _, notes = convert_only_shard(tmp_path / "tars", tmp_path / "set")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert notes.record.images == 40


def test_a_file_too_large_to_be_an_image_is_rejected_unread_and_damaged_notes_are_none(tmp_path: Path) -> None:
    write_files(tmp_path / "source" / "cat", {"1.jpg": encode_picture(1), "film.mp4": b""})
    os.truncate(tmp_path / "source" / "cat" / "film.mp4", 5 << 30)
    file, notes = convert_only_shard(tmp_path / "source", tmp_path / "set")
    said = "has more than 150,000,000 bytes, and is not read; store it smaller, or as JPEG"
    assert [(reject.member, reject.reason) for reject in notes.rejected] == [("film.mp4", said)]
    whole = file.read_bytes()
    assert read_notes(file) == notes
    for at in (*range(0, whole.index(b"PK"), 5), *range(0, len(whole), 499), len(whole) - 1):
        for data in (whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :], whole[:at]):
            file.write_bytes(data)
            assert read_notes(file) is None
