"""Under a conversion: one file that cannot be read is a reject, a disk that is gone or a file that changes is not."""

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from alexnet.shards.errors import InputError
from alexnet.tools.convert.build import BuildOptions, build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.shard import ConversionError
from alexnet.tools.convert.sources import TRAIN_TAR, open_source
from alexnet.tools.prep import main
from tests.conftest import digests
from tests.unit.tools.conftest import NAMES, SETTINGS


class Broken(io.BytesIO):
    """A file that opens and cannot be read from a byte on."""

    def __init__(self, data: bytes, number: int, first: int = 0, end: int = 1 << 40) -> None:
        super().__init__(data)
        self.number, self.range = number, range(first, end)

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


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EIO, errno.EUCLEAN])
@pytest.mark.parametrize("when", ["opening", "reading"])
def test_a_file_that_cannot_be_read_is_a_reject_and_taken_up_once_it_can(
    folder: Path, tmp_path: Path, faults: dict[str, Any], number: int, when: str
) -> None:
    source, root = open_source(folder), tmp_path / "set"
    faults["cats/3.jpg"] = number if when == "opening" else Broken(b"", number)
    with pytest.raises(ConversionError, match="1 images were rejected and 0 are allowed"):
        build(source, root, SETTINGS, BuildOptions(max_rejected=0))
    assert (
        f'"sha256": null, "reason": "cannot be read ({os.strerror(number)})"' in (root / "rejected.jsonl").read_text()
    )
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.tar")}
    with pytest.raises(ConversionError):
        build(source, root, SETTINGS, BuildOptions(max_rejected=0))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    faults.clear()
    assert build(source, root, SETTINGS, BuildOptions(max_rejected=0)).counts["train"].rejected == 0
    build(source, tmp_path / "fresh", SETTINGS)
    assert digests(root) == digests(tmp_path / "fresh")


@pytest.mark.usefixtures("before")
def test_it_ends_a_run_that_is_to_end_at_the_first(folder: Path, tmp_path: Path, faults: dict[str, Any]) -> None:
    faults["cats/3.jpg"] = errno.EACCES
    with pytest.raises(ConversionError, match=r"cats/3.jpg: 3.jpg at byte 0: cannot be read \(Permission denied\)"):
        build(open_source(folder), tmp_path / "set", SETTINGS, BuildOptions(on_error="fail"))


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.ESTALE, errno.ENOENT, errno.ENODEV, errno.EMFILE])
@pytest.mark.parametrize("when", ["opening", "reading"])
def test_what_is_not_about_one_file_ends_the_run_and_names_the_file(
    folder: Path, tmp_path: Path, faults: dict[str, Any], number: int, when: str
) -> None:
    faults["cats/3.jpg"] = number if when == "opening" else Broken(b"", number)
    said = rf"^{os.strerror(number)}: {folder}/cats/3.jpg; mend it and give the same command again$"
    with pytest.raises(ConversionError, match=said):
        build(open_source(folder), tmp_path / "set", SETTINGS)
    faults.clear()
    assert build(open_source(folder), tmp_path / "set", SETTINGS).counts["train"].written == 16


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_source_of_which_nothing_can_be_read_ends_the_run(
    folder: Path, tmp_path: Path, faults: dict[str, Any], before: list[Callable[[], object]], number: int
) -> None:
    """Not a file of it: a disk was pulled out, a ticket expired."""
    before.append(lambda: faults.update(dict.fromkeys(NAMES, number)))
    with pytest.raises(ConversionError, match=rf"^{os.strerror(number)}: {folder}/\w+/\d.jpg; mend it and give"):
        build(open_source(folder), tmp_path / "set", SETTINGS)
    assert not list((tmp_path / "set").rglob("*.tar"))


def test_a_source_that_is_not_there_any_more_ends_the_run(
    folder: Path, tmp_path: Path, before: list[Callable[[], object]]
) -> None:
    """Unmounted: its folder is empty, or gone."""
    before.append(lambda: folder.rename(tmp_path / "elsewhere"))
    with pytest.raises(ConversionError, match=r"^No such file or directory: "):
        build(open_source(folder), tmp_path / "set", SETTINGS)
    assert not list((tmp_path / "set").rglob("*.tar"))


@pytest.mark.usefixtures("before")
def test_a_folder_that_was_closed_ends_the_run(
    folder: Path, tmp_path: Path, faults: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(folder)
    ordinary = os.scandir

    def closed(path: Any = ".") -> Any:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return ordinary(path)

    faults["cats/3.jpg"] = errno.EACCES
    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(ConversionError, match=f"^Permission denied: {folder}; mend it"):
        build(source, tmp_path / "set", SETTINGS)


@pytest.mark.usefixtures("before")
def test_a_bad_sector_in_a_tar_costs_its_image_and_a_tar_that_cannot_be_opened_ends_the_run(
    official: Path, tmp_path: Path, faults: dict[str, Any]
) -> None:
    source, root = open_source(official), tmp_path / "set"
    settings = ConvertSettings(size_px=40, shard_images=10, seed=7)
    tar, victim = f"{official.name}/{TRAIN_TAR}", source.members["train"][1]
    faults[tar] = Broken((official / TRAIN_TAR).read_bytes(), errno.EIO, victim.offset, victim.offset + 1)
    assert build(source, root, settings).counts["train"].rejected == 4
    assert f'"member": "{victim.name}"' in (root / "rejected.jsonl").read_text()
    faults[tar] = errno.EACCES
    with pytest.raises(ConversionError, match=f"Permission denied: .*{TRAIN_TAR}; mend it"):
        build(source, tmp_path / "other", settings)


def test_a_file_that_may_not_be_opened_does_not_hide_the_layout(
    folder: Path, tmp_path: Path, faults: dict[str, Any], before: list[Callable[[], object]]
) -> None:
    faults["cats/0.jpg"] = faults["dogs/0.jpg"] = errno.EACCES
    result = CliRunner().invoke(main, ["shard", str(folder), "--out", str(tmp_path / "set"), "--size", "32"])
    assert result.exit_code == 0, result.output
    assert "train: 16 in = 14 written + 2 rejected" in result.output


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
        with pytest.raises(
            InputError, match=r"cats.*: cannot be read \(Permission denied\); make it readable, or move"
        ):
            open_source(folder)
    finally:
        os.seteuid(0)
