"""Whatever is changed in a data set is found, and the file that was changed is named."""

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alexnet.shards.errors import InputError
from alexnet.shards.files import CHECKSUMS_NAME
from alexnet.shards.manifest import read_manifest
from alexnet.shards.verify import Report, verify
from alexnet.shards.writer import write_checksums
from alexnet.tools.stored_jpeg import decode_stored

FAST = settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SLOW = settings(FAST, max_examples=10_000)


def files_of(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def named(report: Report) -> set[str]:
    return {finding.file for finding in report.findings}


def problems(report: Report) -> str:
    return "\n".join(map(str, report.findings))


# A sound data set


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("deep", [False, True])
def test_nothing_is_found_in_a_sound_data_set(sealed: Path, workers: int, deep: bool) -> None:
    seen: list[tuple[int, int]] = []
    report = verify(
        sealed,
        decode=decode_stored if deep else None,
        workers=workers,
        on_progress=lambda *progress: seen.append(progress),
    )
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
    listing = subprocess.run([program, *files_of(sealed)], cwd=sealed, capture_output=True, check=True).stdout
    ours = (sealed / CHECKSUMS_NAME).read_bytes()
    assert ours == b"".join(line for line in listing.splitlines(True) if CHECKSUMS_NAME.encode() not in line)
    (copy / "val" / "000000.idx").write_text("altered")
    assert subprocess.run(command, cwd=copy, capture_output=True, check=False).returncode == 1


def test_writing_the_list_again_changes_nothing_and_leaves_nothing(copy: Path) -> None:
    before = (copy / CHECKSUMS_NAME).read_bytes()
    (copy / f".{CHECKSUMS_NAME}.partial").write_text("left by a run that was killed")
    write_checksums(copy)
    assert (copy / CHECKSUMS_NAME).read_bytes() == before
    assert not list(copy.glob(".*.partial"))


# Any single change


def flips(sealed: Path, file: int, place: float, xor: int) -> None:
    """Flip bits of one byte of one file, verify, put it back."""
    names = [name for name in files_of(sealed) if (sealed / name).stat().st_size]
    path = sealed / names[file % len(names)]
    data = path.read_bytes()
    at = min(int(place * len(data)), len(data) - 1)
    path.chmod(0o644)
    path.write_bytes(data[:at] + bytes([data[at] ^ xor]) + data[at + 1 :])
    try:
        report = verify(sealed)
    finally:
        path.write_bytes(data)
    assert names[file % len(names)] in named(report), problems(report)


FLIP = {"file": st.integers(0, 1000), "place": st.floats(0, 1), "xor": st.integers(1, 255)}


@FAST
@given(**FLIP)
def test_any_flipped_byte_is_found_and_its_file_named(sealed: Path, file: int, place: float, xor: int) -> None:
    flips(sealed, file, place, xor)


@pytest.mark.slow
@SLOW
@given(**FLIP)
def test_any_flipped_byte_is_found_and_its_file_named_at_length(
    sealed: Path, file: int, place: float, xor: int
) -> None:
    flips(sealed, file, place, xor)


@pytest.mark.parametrize("name", [CHECKSUMS_NAME, "manifest.json"])
@pytest.mark.parametrize("step", [23, pytest.param(1, marks=pytest.mark.slow)])
def test_every_byte_of_the_lists_matters(copy: Path, name: str, step: int) -> None:
    """The two lists are what all else relies on: their bytes in turn, each as another digit or letter."""
    data = (copy / name).read_bytes()
    for at in range(0, len(data), step):
        (copy / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert name in named(verify(copy)), at


@FAST
@given(file=st.integers(0, 1000), share=st.floats(0, 1, exclude_max=True), extra=st.binary(max_size=2000))
def test_any_shortened_or_lengthened_file_is_found(sealed: Path, file: int, share: float, extra: bytes) -> None:
    """Cut a file and append something else: with an empty `extra` it is cut short, with a share near 1 lengthened."""
    names = files_of(sealed)
    path = sealed / names[file % len(names)]
    data = path.read_bytes()
    changed = data[: round(share * len(data))] + extra
    path.chmod(0o644)
    path.write_bytes(changed)
    try:
        report = verify(sealed)
    finally:
        path.write_bytes(data)
    assert (names[file % len(names)] in named(report)) == (changed != data), problems(report)


def test_every_missing_file_is_named(sealed: Path, tmp_path: Path) -> None:
    for name in files_of(sealed):
        (sealed / name).rename(tmp_path / "away")
        try:
            report = verify(sealed)
        finally:
            (tmp_path / "away").rename(sealed / name)
        assert name in named(report)


@pytest.mark.parametrize(
    "name",
    [
        "train/000009.tar",
        "notes.txt",
        ".DS_Store",
        "val/.000000.tar.swp",
        ".work/job.json",
        "a/b/c",
        "manifest.json.bak",
    ],
)
def test_every_extra_file_is_named(copy: Path, name: str) -> None:
    (copy / name).parent.mkdir(parents=True, exist_ok=True)
    (copy / name).write_text("")
    assert named(verify(copy)) == {name}


def test_extra_folders_and_links_are_named(copy: Path) -> None:
    (copy / "empty").mkdir()
    (copy / "link").symlink_to("/nowhere")
    (copy / "other").symlink_to("train")
    os.mkfifo(copy / "pipe")
    assert named(verify(copy)) == {"empty/", "link", "other", "pipe"}


def test_a_folder_that_cannot_be_looked_into_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "secret").mkdir()
    (copy / "secret" / "file").touch()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert named(verify(copy)) == {"secret/"}


def test_a_file_that_is_no_longer_one_is_named(copy: Path) -> None:
    (copy / "index.npy").unlink()
    os.mkfifo(copy / "index.npy")  # reading it would wait for ever
    assert "index.npy: is no regular file" in problems(verify(copy))


def test_shards_may_lie_elsewhere_behind_links(copy: Path, tmp_path: Path) -> None:
    (copy / "train").rename(tmp_path / "train")
    (copy / "train").symlink_to(tmp_path / "train")
    assert problems(verify(copy)) == ""


def test_two_shards_exchanged_are_both_named(copy: Path) -> None:
    a, b = copy / "train" / "000000.tar", copy / "train" / "000001.tar"
    contents = a.read_bytes(), b.read_bytes()
    a.write_bytes(contents[1])
    b.write_bytes(contents[0])
    assert {"train/000000.tar", "train/000001.tar"} <= named(verify(copy))


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


def test_what_is_no_data_set_is_a_users_mistake(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        verify(tmp_path / "nowhere")
    with pytest.raises(InputError, match="one split; give the data set itself"):
        verify(copy / "train")


# Workers


def die(_: bytes) -> tuple[Any, int]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("never reached")


def test_a_worker_that_is_killed_ends_the_command_in_one_line(sealed: Path) -> None:
    with pytest.raises(InputError, match=r"a worker process died .* give fewer --workers"):
        verify(sealed, decode=die, workers=2)


ORPHANS = """
import os, signal, sys
from pathlib import Path
from alexnet.shards.verify import verify

def wait(_):
    print(os.getpid(), flush=True)
    signal.pause()

if __name__ == "__main__":
    verify(Path(sys.argv[1]), decode=wait, workers=2)
"""


def test_workers_leave_when_the_command_is_killed(sealed: Path, tmp_path: Path) -> None:
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    command = [sys.executable, str(script), str(sealed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        try:
            workers = [os.pidfd_open(int(parent.stdout.readline())) for _ in range(2)]
        finally:
            parent.kill()
        for worker in workers:
            assert select.select([worker], [], [], 20)[0], "a worker outlives its parent"
            os.close(worker)
