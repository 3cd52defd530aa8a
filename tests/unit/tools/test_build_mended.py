"""What was rejected and then mended is taken up by the same command, and nothing else is done again."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from alexnet.tools.convert.build import BuildOptions, build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.shard import ConversionError
from alexnet.tools.convert.sources import TRAIN_TAR, open_source
from alexnet.tools.prep import main
from alexnet.tools.samples.layouts import write_files
from alexnet.tools.samples.official import tar_of
from tests.conftest import digests, encode_picture

SETTINGS = ConvertSettings(size_px=32, shard_images=4, seed=7)
OPTIONS = ("--size", "32", "--shard-images", "4", "--seed", "7")
GOOD = {f"{c}/{i}.jpg": encode_picture(10 * k + i) for k, c in enumerate(("cats", "dogs")) for i in range(10)}
BAD = {"cats/3.jpg": GOOD["cats/3.jpg"][:300], "dogs/4.jpg": b"<html>404</html>"}


pytestmark = pytest.mark.usefixtures("converted")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders with two files that are no images."""
    write(tmp_path / "pictures", {**GOOD, **BAD})
    return tmp_path / "pictures"


def write(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        write_files((root / name).parent, {Path(name).name: data})


def shard(source: Path, root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["shard", str(source), "--out", str(root), *OPTIONS, *arguments])


def fresh(source: Path, root: Path) -> dict[str, str]:
    """Return the data set that a first call would make."""
    build(open_source(source), root, SETTINGS)
    return digests(root)


def shards_of_rejects(root: Path) -> set[str]:
    lines = (root / "rejected.jsonl").read_text().splitlines()
    return {f"{e['split']}-{e['place'] // 4:06d}" for e in map(json.loads, lines)}


def test_mended_rejects_are_taken_up_and_no_other_shard_is_touched(
    folder: Path, tmp_path: Path, converted: list[str]
) -> None:
    root = tmp_path / "set"
    assert shard(folder, root, "--max-rejected", "1").exit_code == 1
    assert shard(folder, root, "--max-rejected", "1").exit_code == 1
    assert len(converted) == 5, "nothing had changed"
    concerned = shards_of_rejects(root)
    for name in BAD:
        (folder / name).write_bytes(GOOD[name])  # in place: the folder shows nothing
    converted.clear()
    result = shard(folder, root, "--max-rejected", "1")
    assert result.exit_code == 0, result.output
    assert "changed since an earlier call, and tried again: 2 rejected images, " in result.output
    assert set(converted) == concerned
    assert "train: 20 in = 20 written + 0 rejected" in result.output
    assert digests(root) == fresh(folder, tmp_path / "fresh")


def test_one_mended_in_place_to_the_same_size_and_time_is_taken_up(
    folder: Path, tmp_path: Path, converted: list[str]
) -> None:
    """As a copy of the original over bits that fell over."""
    root, picture = tmp_path / "set", folder / "cats" / "3.jpg"
    picture.write_bytes(bytes(len(GOOD["cats/3.jpg"])))
    state = picture.stat()
    assert shard(folder, root, "--max-rejected", "0").exit_code == 1
    converted.clear()
    picture.write_bytes(GOOD["cats/3.jpg"])
    os.utime(picture, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert shard(folder, root, "--max-rejected", "1").exit_code == 0
    assert len(converted) == 1
    assert digests(root) == fresh(folder, tmp_path / "fresh")


def test_a_reject_that_is_still_bad_and_another_one_are_what_a_first_call_makes_of_them(
    folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "set"
    assert shard(folder, root, "--max-rejected", "0").exit_code == 1
    (folder / "cats" / "3.jpg").write_bytes(b"worse")
    (folder / "dogs" / "4.jpg").write_bytes(b"")
    assert shard(folder, root, "--max-rejected", "0").exit_code == 1
    assert shard(folder, root, "--max-rejected", "2").exit_code == 0
    assert digests(root) == fresh(folder, tmp_path / "fresh")


def test_a_copy_of_the_source_with_other_times_is_the_same_source(
    official: Path, tmp_path: Path, converted: list[str]
) -> None:
    copy, root = Path(shutil.copytree(official, tmp_path / "copy")), tmp_path / "set"
    with pytest.raises(ConversionError, match="3 images were rejected"):
        build(open_source(copy), root, SETTINGS, BuildOptions(max_rejected=0))
    for path in copy.iterdir():
        os.utime(path, ns=(1, 1))
    converted.clear()
    build(open_source(copy), root, SETTINGS)
    assert converted == []


def test_members_of_a_tar_that_was_downloaded_again(official: Path, tmp_path: Path, converted: list[str]) -> None:
    """All that lie behind move; the empty one, which has no bytes to know it by, too, and stays a reject."""
    copy, root = Path(shutil.copytree(official, tmp_path / "copy")), tmp_path / "set"
    assert shard(copy, root, "--max-rejected", "0").exit_code == 1
    class_tars = {}
    for k in (1, 2, 3):
        files = {f"n0000000{k}_{i}.JPEG": encode_picture(100 * (k - 1) + i) for i in range(9)}
        class_tars[f"n0000000{k}.tar"] = files
    class_tars["n00000002.tar"]["n00000002_3.JPEG"] = b""
    class_tars["n00000003.tar"]["n00000003_6.JPEG"] = encode_picture(2, file_format="PNG")
    (copy / TRAIN_TAR).write_bytes(tar_of({name: tar_of(files) for name, files in sorted(class_tars.items())}))
    total = len(converted)
    converted.clear()
    result = shard(copy, root, "--max-rejected", "1")
    assert result.exit_code == 0, result.output
    assert 0 < len(converted) < total
    assert digests(root) == fresh(copy, tmp_path / "fresh")


def test_one_that_ended_the_run_is_taken_up_once_it_is_mended_and_those_not_reached_yet_too(
    folder: Path, tmp_path: Path, converted: list[str]
) -> None:
    root = tmp_path / "set"
    ended = shard(folder, root, "--on-error", "fail")
    assert ended.exit_code == 1
    assert "--on-error fail: " in ended.output
    write(folder, GOOD)
    result = shard(folder, root, "--on-error", "fail")
    assert result.exit_code == 0, result.output
    assert digests(root) == fresh(folder, tmp_path / "fresh")


def test_a_good_file_of_another_length_has_its_shard_done_again_but_another_source_is_refused(
    folder: Path, tmp_path: Path, converted: list[str]
) -> None:
    root = tmp_path / "set"
    assert shard(folder, root, "--max-rejected", "0").exit_code == 1
    before = digests(root)
    alike = tmp_path / "alike"
    write(alike, {name: encode_picture(k, 90, 70) for k, name in enumerate(GOOD)})
    refused = shard(alike, root, "--max-rejected", "0")
    assert refused.exit_code == 2
    assert "is of the source as it was before (images of every shard had other lengths); give another --out" in (
        refused.output
    )
    assert {name: digest for name, digest in digests(root).items() if ".work" not in name} == {
        name: digest for name, digest in before.items() if ".work" not in name
    }
    write(folder, {"cats/5.jpg": encode_picture(1, 90, 70)})
    (folder / "cats" / "new").touch()
    (folder / "cats" / "new").unlink()  # the folder shows it
    converted.clear()
    assert shard(folder, root, "--max-rejected", "2").exit_code == 0
    assert len(converted) == 1
    assert digests(root) == fresh(folder, tmp_path / "fresh")


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", range(1, 9))
def test_killed_while_it_takes_them_up_it_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The new tar is often as long as the old one, which must not be taken for it."""
    root = tmp_path / "set"
    with pytest.raises(ConversionError):
        build(open_source(folder), root, SETTINGS, BuildOptions(max_rejected=0))
    write(folder, GOOD)
    calls = iter(range(1, 100))

    def failing(ordinary: Callable[..., Any]) -> Callable[..., Any]:
        def function(*arguments: Any, **options: Any) -> Any:
            if next(calls) == step:
                raise Killed
            return ordinary(*arguments, **options)

        return function

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", failing(Path.unlink))
        patch.setattr(Path, "replace", failing(Path.replace))
        with pytest.raises(Killed):
            build(open_source(folder), root, SETTINGS)
    build(open_source(folder), root, SETTINGS)
    assert digests(root) == fresh(folder, tmp_path / "fresh")


def test_a_codec_that_is_there_now_gives_rejects_another_try(
    folder: Path, tmp_path: Path, converted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "set"
    with pytest.raises(ConversionError):
        build(open_source(folder), root, SETTINGS, BuildOptions(max_rejected=0))
    concerned = shards_of_rejects(root)
    for module in ("earlier", "shard"):
        monkeypatch.setattr(f"alexnet.tools.convert.{module}.codecs", lambda: ("jpg", "zlib", "webp"))
    converted.clear()
    build(open_source(folder), root, SETTINGS)
    assert set(converted) == concerned
