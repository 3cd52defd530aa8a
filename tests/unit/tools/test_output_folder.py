"""One writer a folder, however its name is reached and whatever becomes of it; too little disk space shows."""

import fcntl
import os
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.output_folder import locked, needed_and_free


def refused(folder: Path) -> None:
    with pytest.raises(InputError, match="another alexnet-prep is writing there"), locked(folder, "alexnet-prep"):
        raise AssertionError("two hold it")


def test_who_is_refused_leaves_the_folder_of_who_holds_it_be_it_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("set")
    with locked(tmp_path / "set", "alexnet-prep"):
        refused(tmp_path / "set")
        refused(tmp_path / "link")
        assert (tmp_path / "set").is_dir()
    assert not (tmp_path / "set").exists(), "nothing came of it"
    (tmp_path / "set").mkdir()
    with locked(tmp_path / "link", "alexnet-prep"):
        refused(tmp_path / "set")


@pytest.mark.parametrize("made_anew", [True, False])
def test_a_folder_that_is_removed_before_it_is_held_is_not_taken_for_the_one_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_anew: bool
) -> None:
    folder, ordinary = tmp_path / "set", fcntl.flock
    others = [folder]

    def removing(handle: int, how: int) -> None:
        while others:
            others.pop().rmdir()
            if made_anew:
                (tmp_path / "kept").mkdir()  # so that the new one does not get the old one's inode
                folder.mkdir()
        ordinary(handle, how)

    monkeypatch.setattr(fcntl, "flock", removing)
    with locked(folder, "alexnet-prep"):
        refused(folder)
        assert folder.is_dir()


def test_what_was_made_goes_if_nothing_comes_of_it_and_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "a" / "b" / "set"):
        with locked(folder, "alexnet-prep"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    with locked(tmp_path / "a" / "set", "alexnet-prep"):
        (tmp_path / "a" / "set" / "file").touch()
    assert (tmp_path / "a" / "set" / "file").exists()


def test_a_folder_that_is_deleted_under_a_run_and_made_anew_is_the_other_runs(tmp_path: Path) -> None:
    with locked(tmp_path / "set", "alexnet-prep") as check:
        check()
        (tmp_path / "set").rename(tmp_path / "moved")
        with pytest.raises(InputError, match="was deleted or moved while alexnet-prep wrote there; give the same"):
            check()
        (tmp_path / "set").mkdir()
        with pytest.raises(InputError, match="was deleted or moved"):
            check()
    assert (tmp_path / "set").exists()


@pytest.mark.parametrize("place", ["/proc/set", "file/set", "a" * 300, "without locks"])
def test_one_that_cannot_be_made_or_locked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(38, os.strerror(38))

    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    if place == "without locks":
        monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(InputError, match=r"^--out .*: .*; give a folder that can be written"):
        locked(Path(place), "alexnet-prep").__enter__()


@pytest.mark.parametrize(
    ("needed", "free", "said"),
    [
        (2.5e11, 1e11, "about 250.0 GB are needed and 100.0 GB are free"),
        (14e6, 13e6, "about 14.0 MB are needed and 13.0 MB are free"),
        (14_000, 0, "about 14.0 kB are needed and 0.0 kB are free"),
        (400, 100, "about 0.4 kB are needed and 0.1 kB are free"),
        (2.0004e9, 2.0003e9, "about 2.000 GB are needed and 2.000 GB are free"),
        (2.04e9, 2.03e9, "about 2.04 GB are needed and 2.03 GB are free"),
    ],
)
def test_that_there_is_too_little_shows_however_small_the_numbers(needed: float, free: float, said: str) -> None:
    assert needed_and_free(needed, free) == said
