"""What a kill or a power cut in the last and the first steps of a conversion leaves behind: enough to go on."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import MANIFEST_NAME
from alexnet.shards.verify import verify
from alexnet.tools.convert.build import BuildOptions, build
from alexnet.tools.convert.folder import refuse_early
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source
from tests.conftest import digests

SETTINGS = ConvertSettings(size_px=40, shard_images=10, seed=7)
OTHER = ConvertSettings(size_px=32, shard_images=20, seed=7)


class Killed(BaseException):
    pass


pytestmark = pytest.mark.usefixtures("converted")


def failing(ordinary: Callable[..., object], step: int) -> Callable[..., object]:
    """Return a function of which the call number `step` never happens."""
    calls = iter(range(1, 100))

    def function(*arguments: object, **options: object) -> object:
        if next(calls) == step:
            raise Killed
        return ordinary(*arguments, **options)

    return function


@pytest.mark.parametrize("finished", [True, False])
def test_killed_at_any_step_of_overwriting_the_same_command_goes_on_with_and_without_it(
    official: Path, data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    source = open_source(official)
    build(source, tmp_path / "fresh", OTHER)
    for name, step in (("unlink", 1), ("unlink", 2), ("unlink", 5), ("rmdir", 1), ("rmdir", 2)):
        for again in (False, True):
            root = Path(shutil.copytree(data_set, tmp_path / f"{name}-{step}-{again}"))
            if not finished:
                (root / MANIFEST_NAME).unlink()
                (root / ".work").mkdir()
                (root / ".work" / "job.json").write_text('{"settings": {}}')
            with monkeypatch.context() as patch:
                patch.setattr(Path, name, failing(getattr(Path, name), step))
                with pytest.raises(Killed):
                    build(source, root, OTHER, BuildOptions(overwrite=True))
            refuse_early(root, OTHER.as_manifest(), overwrite=again)
            build(source, root, OTHER, BuildOptions(overwrite=again))
            assert digests(root) == digests(tmp_path / "fresh"), (name, step, again)


def test_overwrite_leaves_a_split_alone_that_lies_elsewhere(official: Path, data_set: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(data_set, tmp_path / "set"))
    (root / "train").rename(tmp_path / "train")
    (root / "train").symlink_to(tmp_path / "train")
    with pytest.raises(InputError, match=r"also holds train, so nothing was deleted; .* what is a link, replace"):
        build(open_source(official), root, OTHER, BuildOptions(overwrite=True))
    assert verify(root).passed


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
