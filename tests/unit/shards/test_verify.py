"""Whatever is changed in a data set is found, and the file that was changed is named."""

import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.shards import index
from alexnet.shards.errors import InputError
from alexnet.shards.files import CHECKSUMS_NAME
from alexnet.shards.index import INDEX_DTYPE, official_label_problems
from alexnet.shards.manifest import ClassRecord, SplitCounts, read_manifest
from alexnet.shards.verify import Verification, verify
from alexnet.shards.writer import write_checksums
from alexnet.tools.stored_jpeg import decode_stored
from tests.unit.shards.conftest import PROPERTY
from tests.unit.shards.forging import problems


def files_of(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def named(report: Verification) -> set[str]:
    return {finding.file for finding in report.findings}


# A sound data set


@pytest.mark.parametrize(("workers", "deep"), [(0, False), (1, True), (2, False), (2, True)])
def test_nothing_is_found_in_a_sound_data_set(sealed: Path, workers: int, deep: bool) -> None:
    seen: list[tuple[int, int]] = []
    decode = decode_stored if deep else None
    report = verify(sealed, decode=decode, workers=workers, on_progress=lambda *progress: seen.append(progress))
    assert problems(report) == ""
    assert report.passed
    counts = {split: c.written for split, c in read_manifest(sealed).counts.items()}
    assert report.images == counts
    assert report.decoded == (sum(counts.values()) if deep else 0)
    assert report.files == len(files_of(sealed))
    assert report.bytes == sum((sealed / name).stat().st_size for name in files_of(sealed))
    assert seen[-1] == (report.bytes, report.bytes)


def test_the_bundled_set_is_sound_by_its_pixels(ci_100: Path) -> None:
    report = verify(ci_100, decode=decode_stored)
    assert named(report) <= {CHECKSUMS_NAME}
    assert report.decoded == 120


def test_sha256sum_itself_agrees(sealed: Path, copy: Path) -> None:
    program = shutil.which("sha256sum")
    if program is None:
        pytest.skip("coreutils' sha256sum is not on the PATH")
    command = [program, "--check", "--strict", CHECKSUMS_NAME]
    run = subprocess.run(command, cwd=sealed, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [f"{name}: OK" for name in files_of(sealed) if name != CHECKSUMS_NAME]
    before = (copy / CHECKSUMS_NAME).read_bytes()
    (copy / f".{CHECKSUMS_NAME}.partial").write_text("left by a run that was killed")
    write_checksums(copy)
    assert (copy / CHECKSUMS_NAME).read_bytes() == before
    assert not list(copy.glob(".*.partial"))


# Any single change


@pytest.mark.parametrize("examples", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_any_flipped_byte_and_any_file_of_another_length_is_found_and_named(sealed: Path, examples: int) -> None:
    """A file is cut and something else appended, which may lengthen it, or bits of one byte are flipped."""
    files = {name: (sealed / name).read_bytes() for name in files_of(sealed)}

    @settings(PROPERTY, max_examples=examples)
    @given(st.sampled_from(sorted(files)), st.floats(0, 1), st.integers(1, 255) | st.binary(max_size=2000))
    def change(name: str, share: float, what: int | bytes) -> None:
        data, at = files[name], min(round(share * len(files[name])), len(files[name]) - 1)
        changed = (
            data[: at + 1] + what if isinstance(what, bytes) else data[:at] + bytes([data[at] ^ what]) + data[at + 1 :]
        )
        (sealed / name).write_bytes(changed)
        try:
            report = verify(sealed)
        finally:
            (sealed / name).write_bytes(data)
        assert (name in named(report)) == (changed != data), problems(report)

    change()


def test_every_missing_file_is_named(sealed: Path, tmp_path: Path) -> None:
    for name in files_of(sealed):
        (sealed / name).rename(tmp_path / "away")
        try:
            report = verify(sealed)
        finally:
            (tmp_path / "away").rename(sealed / name)
        assert name in named(report)


def test_everything_else_that_lies_there_is_named(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But what leads elsewhere as a whole split may."""
    (copy / "train").rename(tmp_path / "train")
    (copy / "train").symlink_to(tmp_path / "train")
    assert problems(verify(copy)) == ""
    files = {"train/000009.tar", "notes.txt", "val/.000000.tar.swp", ".work/job.json", "a/b/c", "manifest.json.bak"}
    for name in files:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).touch()
    (copy / "empty").mkdir()
    (copy / "link").symlink_to("/nowhere")
    (copy / "other").symlink_to("val")
    os.mkfifo(copy / "pipe")
    (copy / "secret").mkdir()
    (copy / "secret" / "file").touch()
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if path.name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert named(verify(copy)) == {*files, "empty/", "link", "other", "pipe", "secret/"}


def test_a_file_that_is_no_longer_one_is_named(copy: Path) -> None:
    (copy / "index.npy").unlink()
    os.mkfifo(copy / "index.npy")  # reading it would wait for ever
    assert "index.npy: is no regular file" in problems(verify(copy))


# Who is to blame


def test_a_data_set_from_before_checksums_says_so_and_nothing_else(copy: Path) -> None:
    (copy / CHECKSUMS_NAME).unlink()
    (finding,) = verify(copy).findings
    assert finding.file == CHECKSUMS_NAME
    assert "has no SHA256SUMS" in finding.problem


def test_a_licence_must_be_listed(copy: Path) -> None:
    (copy / "README.md").write_text("about")
    assert [str(f) for f in verify(copy).findings] == ["SHA256SUMS: does not list README.md"]
    write_checksums(copy)
    assert verify(copy).passed


@pytest.mark.parametrize("name", ["train/000000.tar", "index.npy", "manifest.json", "LICENSE", "val/000000.idx"])
def test_a_wrong_digit_is_the_lists_fault(copy: Path, name: str) -> None:
    text = (copy / CHECKSUMS_NAME).read_text()
    line = next(line for line in text.splitlines() if line.endswith(f"  {name}"))
    wrong = ("1" if line[5] != "1" else "2").join((line[:5], line[6:]))
    (copy / CHECKSUMS_NAME).write_text(text.replace(line, wrong))
    assert named(verify(copy)) == {CHECKSUMS_NAME}


def test_without_a_usable_manifest_the_list_still_finds_what_changed(copy: Path) -> None:
    (copy / "manifest.json").write_text("{")
    (copy / "train" / "000001.tar").write_bytes((copy / "train" / "000001.tar").read_bytes()[:-1])
    (copy / "notes.txt").write_text("")
    assert named(verify(copy)) == {"manifest.json", "train/000001.tar", "notes.txt"}


def test_ids_taken_for_labels_are_recognised_on_the_official_classes(
    data_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wnids = [f"n{i:08d}" for i in range(1000)]
    monkeypatch.setattr(
        index, "OFFICIAL_CLASSES_SHA256", hashlib.sha256("".join(f"{w}\n" for w in wnids).encode()).hexdigest()
    )
    manifest = read_manifest(data_set)
    object.__setattr__(manifest, "classes", tuple(ClassRecord(wnid=wnid, words="") for wnid in wnids))
    object.__setattr__(manifest, "counts", {"val": SplitCounts(input=50_000, written=50_000, rejected=0)})
    rows = np.zeros(50_000, INDEX_DTYPE)
    rows["place"] = np.arange(50_000)
    rows["label"] = np.arange(50_000) % 1000
    rows["label"][:4] = (490 - 1, 361 - 1, 171 - 1, 822 - 1)
    wrong = "labels ILSVRC2012_val_00000001 489, which is 65 everywhere else"
    assert wrong in official_label_problems(manifest, rows)
    for place, label in enumerate((65, 970, 230, 809)):  # exchange, so that each class keeps its 50
        rows["label"][place], rows["label"][label] = label, place
    rows["label"][[489, 360, 170, 821]] = (489, 360, 170, 821)
    assert list(official_label_problems(manifest, rows)) == []
    rows["label"][-1] = 0
    assert list(official_label_problems(manifest, rows)) == ["has 51 validation images of class 0: ILSVRC-2012 has 50"]


# What ends it


def test_what_is_no_data_set_is_a_users_mistake(tmp_path: Path, copy: Path) -> None:
    for folder, said in ((tmp_path / "nowhere", "no such folder"), (copy / "train", "one split; give the data set")):
        with pytest.raises(InputError, match=said):
            verify(folder)


def die(_: bytes) -> tuple[Any, int]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("never reached")


def test_a_worker_that_is_killed_ends_the_command_in_one_line(sealed: Path) -> None:
    with pytest.raises(InputError, match=r"a worker process died .* give fewer --workers"):
        verify(sealed, decode=die, workers=2)
