"""Under a conversion: a source that changes or a disk that is gone ends it, one file that cannot be read is a reject.

Sound images are never rejected, and none is taken for another.
"""

import errno
import io
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import read_manifest
from alexnet.tools.convert.build import BuildOptions, build
from alexnet.tools.convert.folder import held
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.shard import ConversionError
from alexnet.tools.convert.source_files import SourceChangedError, check_archives
from alexnet.tools.convert.sources import TRAIN_TAR, open_source
from tests.conftest import digests, encode_picture, prep
from tests.unit.tools.conftest import NAMES, SETTINGS, Here

pytestmark = pytest.mark.usefixtures("here")
VICTIM = "cats/3.jpg"


def overwrite(path: Path, at_ns: int | None = None) -> None:
    """Put nonsense into a file, as long as it was, now or at some other time."""
    path.write_bytes(bytes(path.stat().st_size))
    if at_ns is not None:
        os.utime(path, ns=(at_ns, at_ns))


def replaced_by_a_copy(path: Path) -> None:
    """As `rsync -a` does, which keeps times."""
    copy = path.parent.parent.parent / "copy"
    copy.write_bytes(path.read_bytes())
    overwrite(copy, 1)
    copy.replace(path)


CHANGES: dict[str, tuple[Any, str]] = {
    "it grew": (lambda path: path.write_bytes(path.read_bytes() + bytes(9)), "3.jpg has more than its"),
    "it shrank": (lambda path: path.write_bytes(path.read_bytes()[:500]), r"3.jpg has 500 of its [\d,]+ bytes"),
    "it was overwritten": (overwrite, "was written to meanwhile"),
    "it was replaced by a copy": (replaced_by_a_copy, "was written to meanwhile"),
    "another image is in its place": (
        lambda path: path.write_bytes(encode_picture(99, 20, 20).ljust(path.stat().st_size, b"\0")),
        "was written to meanwhile",
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_file_that_changes_after_it_was_listed_ends_the_run_and_is_no_bad_image(
    folder: Path, tmp_path: Path, here: Here, kind: str
) -> None:
    change, said = CHANGES[kind]
    here.before.append(lambda: change(folder / VICTIM))
    with pytest.raises(SourceChangedError, match=f"{folder}/{VICTIM}: .*{said}"):
        build(open_source(folder), tmp_path / "set", SETTINGS)
    assert not (tmp_path / "set" / "manifest.json").exists()


def test_one_of_another_time_is_a_reject(folder: Path, tmp_path: Path) -> None:
    for k, at_ns in enumerate((time.time_ns(), 1 << 62)):  # before it is listed; to come, as some cameras have
        overwrite(folder / VICTIM, at_ns)
        assert build(open_source(folder), tmp_path / str(k), SETTINGS).counts["train"].rejected == 1


@pytest.mark.parametrize("when", ["cut short", "before its images are read", "when all of it was read"])
def test_nor_may_an_archive_change_and_the_next_call_goes_on(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Here, when: str
) -> None:
    copy, root = Path(shutil.copytree(official, tmp_path / "copy")), tmp_path / "set"
    tar, source = copy / TRAIN_TAR, open_source(copy)
    whole = tar.read_bytes()

    def changing(*arguments: Any) -> None:
        overwrite(tar)
        check_archives(*arguments)

    with monkeypatch.context() as patch:
        if when == "cut short":
            tar.write_bytes(whole[: len(whole) // 2])
        elif when == "before its images are read":
            here.before.append(lambda: overwrite(tar))
        else:
            patch.setattr("alexnet.tools.convert.build.check_archives", changing)
        with pytest.raises(SourceChangedError, match=rf"{TRAIN_TAR}: .*: the source changed after it was indexed"):
            build(source, root, SETTINGS)
    assert not (root / "manifest.json").exists()
    tar.write_bytes(whole)
    build(open_source(copy), root, SETTINGS)
    build(open_source(official), tmp_path / "fresh", SETTINGS)
    assert digests(root) == digests(tmp_path / "fresh")


def test_one_that_is_made_whole_between_its_reject_and_the_end_is_named_and_taken_up_by_the_next_call(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, root = folder / VICTIM, tmp_path / "set"
    whole = image.read_bytes()
    overwrite(image)
    with monkeypatch.context() as patch:
        patch.setattr("alexnet.tools.convert.build.write_index", lambda _, rows: [*rows, image.write_bytes(whole)])
        with pytest.raises(ConversionError, match=rf"changed meanwhile: 1 rejected image, {VICTIM}; give"):
            build(open_source(folder), root, SETTINGS)
    build(open_source(folder), root, SETTINGS)
    assert read_manifest(root).counts["train"].written == 16


@pytest.mark.parametrize("kept", [True, False])
def test_the_same_command_lists_anew_what_changed_since_its_index_was_kept(
    folder: Path, tmp_path: Path, here: Here, kept: bool
) -> None:
    arguments = ("shard", folder, "--out", tmp_path / "set", "--size", 32, "--seed", 7)

    def stop() -> None:
        raise ConversionError("stopped")

    here.before.append(stop if kept else lambda: (folder / VICTIM).write_bytes(encode_picture(99, 90, 90)))
    ended = prep(*arguments, code=1 if kept else 2).stderr
    assert ("3.jpg has more than its" in ended) == (not kept)
    (folder / VICTIM).write_bytes(encode_picture(99, 90, 90))
    assert prep(*arguments).output.count("reading the headers of") == 1 + kept
    build(open_source(folder), tmp_path / "fresh", ConvertSettings(size_px=32, seed=7))
    assert digests(tmp_path / "set") == digests(tmp_path / "fresh")


class Broken(io.BytesIO):
    """A file that opens and cannot be read from a byte on."""

    def __init__(self, data: bytes, number: int, first: int = 0, end: int = 1 << 40) -> None:
        super().__init__(data)
        self.number, self.range = number, range(first, end)
        self.old = os.open(__file__, os.O_RDONLY)

    def fileno(self) -> int:
        """Return the descriptor of a file that nobody writes to."""
        return self.old

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() in self.range:
            raise OSError(self.number, os.strerror(self.number))
        return super().read(size)

    def close(self) -> None:
        """Stay open: whoever opens it next gets the same one."""


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Files by their name that do not open, given a number of an error, or are opened as something else."""
    wrong: dict[str, Any] = {}
    ordinary = Path.open

    def opened(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        fault = wrong.get(f"{self.parent.name}/{self.name}") if mode == "rb" else None
        if isinstance(fault, int):
            raise OSError(fault, os.strerror(fault), str(self))
        return fault or ordinary(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr("alexnet.tools.convert.source_files.open_file", lambda path: opened(path, "rb"))
    return wrong


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EIO, errno.EUCLEAN])
@pytest.mark.parametrize("when", ["opening", "reading"])
def test_a_file_that_cannot_be_read_is_a_reject_and_taken_up_once_it_can(
    folder: Path, tmp_path: Path, faults: dict[str, Any], here: Here, number: int, when: str
) -> None:
    source, root, few = open_source(folder), tmp_path / "set", BuildOptions(max_rejected=0)
    faults[VICTIM] = number if when == "opening" else Broken(b"", number)
    why = f"cannot be read ({os.strerror(number)})"
    with pytest.raises(ConversionError, match=re.escape(f"{VICTIM}: 3.jpg at byte 0: {why}")):
        build(source, tmp_path / "first", SETTINGS, BuildOptions(on_error="fail"))
    for shards in (2, 0):
        here.converted.clear()
        with pytest.raises(ConversionError, match="1 images were rejected and 0 are allowed"):
            build(source, root, SETTINGS, few)
        assert len(here.converted) == shards
    assert f'"sha256": null, "reason": "{why}"' in (root / "rejected.jsonl").read_text()
    faults.clear()
    assert build(source, root, SETTINGS, few).counts["train"].rejected == 0
    build(source, tmp_path / "fresh", SETTINGS)
    assert digests(root) == digests(tmp_path / "fresh")


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.ESTALE, errno.ENOENT, errno.ENODEV, errno.EMFILE])
@pytest.mark.parametrize("when", ["opening", "reading"])
def test_what_is_not_about_one_file_ends_the_run_and_names_the_file(
    folder: Path, tmp_path: Path, faults: dict[str, Any], number: int, when: str
) -> None:
    faults[VICTIM] = number if when == "opening" else Broken(b"", number)
    said = rf"^{os.strerror(number)}: {folder}/{VICTIM}; mend it and give the same command again$"
    with pytest.raises(ConversionError, match=said), held(tmp_path / "set"):
        build(open_source(folder), tmp_path / "set", SETTINGS)


@pytest.mark.parametrize("kind", ["pulled out", "ticket expired", "unmounted", "closed"])
def test_a_source_of_which_nothing_can_be_read_ends_the_run(
    folder: Path, tmp_path: Path, faults: dict[str, Any], here: Here, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    source, ordinary = open_source(folder), os.scandir

    def closed(path: Any = ".") -> Any:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return ordinary(path)

    if kind == "unmounted":
        here.before.append(lambda: folder.rename(tmp_path / "elsewhere"))
    elif kind == "closed":
        faults[VICTIM] = errno.EACCES
        monkeypatch.setattr(os, "scandir", closed)
    else:
        faults.update(dict.fromkeys(NAMES, errno.EIO if kind == "pulled out" else errno.EACCES))
    said = "^(Input/output error|Permission denied|No such file or directory): .*; mend it and give"
    with pytest.raises(ConversionError, match=said), held(tmp_path / "set"):
        build(source, tmp_path / "set", SETTINGS)
    assert kind == "closed" or not list((tmp_path / "set").rglob("*.tar"))


def test_a_bad_sector_in_a_tar_costs_its_image_and_a_tar_that_cannot_be_opened_ends_the_run(
    official: Path, tmp_path: Path, faults: dict[str, Any]
) -> None:
    source, root = open_source(official), tmp_path / "set"
    tar, victim = f"{official.name}/{TRAIN_TAR}", source.members["train"][1]
    faults[tar] = Broken((official / TRAIN_TAR).read_bytes(), errno.EIO, victim.offset, victim.offset + 1)
    assert build(source, root, SETTINGS).counts["train"].rejected == 4
    assert f'"member": "{victim.name}"' in (root / "rejected.jsonl").read_text()
    faults[tar] = errno.EACCES
    with pytest.raises(ConversionError, match=f"Permission denied: .*{TRAIN_TAR}; mend it"), held(tmp_path / "other"):
        build(source, tmp_path / "other", SETTINGS)


def test_a_file_that_may_not_be_opened_does_not_hide_the_layout(folder: Path, faults: dict[str, Any]) -> None:
    faults["cats/0.jpg"] = faults["dogs/0.jpg"] = errno.EACCES
    assert "train: 16 in = 14 written + 2 rejected" in prep("shard", folder, "--size", 32).output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_folder_that_may_not_be_read_or_searched_is_one_line(folder: Path, tmp_path: Path, mode: int) -> None:
    """One that may be listed and not searched would look empty."""
    for above in (tmp_path, *tmp_path.parents):
        if not above.stat().st_mode & 0o077:
            above.chmod(0o755)
    (folder / "cats").chmod(mode)
    os.seteuid(65534)
    try:
        with pytest.raises(InputError, match=r"cats.*: cannot be read \(Permission denied\); make it readable, or"):
            open_source(folder)
    finally:
        os.seteuid(0)
