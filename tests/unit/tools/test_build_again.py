"""The same command again: what was rejected and then mended is taken up, and another source is refused by name."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from alexnet.shards.errors import InputError
from alexnet.tools.convert.build import BuildOptions, build
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.shard import ConversionError
from alexnet.tools.convert.sources import TRAIN_TAR, open_source
from tests.conftest import digests, encode_picture, prep
from tests.unit.tools.conftest import Here
from tests.unit.tools.source_layouts import write

SETTINGS = ConvertSettings(size_px=32, shard_images=4, seed=7)
OPTIONS = ("--size", "32", "--shard-images", "4", "--seed", "7")
GOOD = {f"{c}/{i}.jpg": encode_picture(10 * k + i) for k, c in enumerate(("cats", "dogs")) for i in range(10)}
BAD = {"cats/3.jpg": GOOD["cats/3.jpg"][:300], "dogs/4.jpg": b"<html>404</html>"}
pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class folders with two files that are no images."""
    return write(tmp_path / "pictures", {**GOOD, **BAD})


def shard(source: Path, root: Path, *more: str, code: int = 0) -> Result:
    return prep("shard", source, "--out", root, *OPTIONS, *more, code=code)


def refused_for_rejects(source: Path, root: Path) -> set[str]:
    """Convert a source whose rejects are not accepted; return the names of their shards."""
    with pytest.raises(ConversionError):
        build(open_source(source), root, SETTINGS, BuildOptions(max_rejected=0))
    lines = (root / "rejected.jsonl").read_text().splitlines()
    return {f"{e['split']}-{e['place'] // 4:06d}" for e in map(json.loads, lines)}


def fresh(source: Path, root: Path) -> dict[str, str]:
    """Return the data set that a first call would make."""
    build(open_source(source), root, SETTINGS)
    return digests(root)


def kept(root: Path) -> dict[str, str]:
    return {name: digest for name, digest in digests(root).items() if ".work/index" not in name}


def test_mended_rejects_are_taken_up_and_no_other_shard_is_touched(folder: Path, tmp_path: Path, here: Here) -> None:
    root = tmp_path / "set"
    assert "--on-error fail: " in shard(folder, root, "--on-error", "fail", code=1).output
    for _ in range(2):
        shard(folder, root, "--max-rejected", "1", code=1)
    assert len(here.converted) == 5 + 1, "the shard that ended the run is done again, and no other"
    concerned = refused_for_rejects(folder, root)
    write(folder, {name: GOOD[name] for name in BAD})  # in place: the folder shows nothing
    here.converted.clear()
    result = shard(folder, root, "--max-rejected", "1")
    assert "changed since an earlier call, and tried again: 2 rejected images, " in result.output
    assert set(here.converted) == concerned
    assert "train: 20 in = 20 written + 0 rejected" in result.output
    assert digests(root) == fresh(folder, tmp_path / "fresh")


@pytest.mark.parametrize(
    ("first", "then", "shards"),
    [
        ({"cats/3.jpg": bytes(len(GOOD["cats/3.jpg"]))}, {"cats/3.jpg": GOOD["cats/3.jpg"]}, 1),
        ({}, {"cats/3.jpg": b"worse", "dogs/4.jpg": b""}, 2),
        ({}, {"cats/5.jpg": encode_picture(1, 90, 70)}, 1),
    ],
    ids=["the same size and time", "still bad", "a good one of another length"],
)
def test_whatever_was_changed_the_end_is_what_a_first_call_makes_of_it(
    folder: Path, tmp_path: Path, here: Here, first: dict[str, bytes], then: dict[str, bytes], shards: int
) -> None:
    root = tmp_path / "set"
    write(folder, first)
    times = {name: (folder / name).stat().st_mtime_ns for name in first}
    shard(folder, root, "--max-rejected", "0", code=1)
    here.converted.clear()
    write(folder, then)
    for name, time in times.items():
        os.utime(folder / name, ns=(time, time))
    (folder / "cats" / "new").touch()
    (folder / "cats" / "new").unlink()  # the folder shows it
    shard(folder, root, "--max-rejected", "2")
    assert 1 <= len(here.converted) <= shards
    assert digests(root) == fresh(folder, tmp_path / "fresh")


def test_a_copy_of_the_source_with_other_times_is_the_same_source_and_its_tar_may_be_downloaded_again(
    official: Path, tmp_path: Path, here: Here
) -> None:
    """All members that lie behind move; the empty one, which has no bytes to know it by, too, and stays a reject."""
    copy, root = Path(shutil.copytree(official, tmp_path / "copy")), tmp_path / "set"
    refused_for_rejects(copy, root)
    total = len(here.converted)
    for path in copy.iterdir():
        os.utime(path, ns=(1, 1))
    here.converted.clear()
    refused_for_rejects(copy, root)
    assert here.converted == []
    class_tars = {
        f"n0000000{k}.tar": {f"n0000000{k}_{i}.JPEG": encode_picture(100 * (k - 1) + i) for i in range(9)}
        for k in (1, 2, 3)
    }
    class_tars["n00000002.tar"]["n00000002_3.JPEG"] = b""
    class_tars["n00000003.tar"]["n00000003_6.JPEG"] = encode_picture(2, file_format="PNG")
    write(copy, {TRAIN_TAR: class_tars})
    shard(copy, root, "--max-rejected", "1")
    assert 0 < len(here.converted) < total
    assert digests(root) == fresh(copy, tmp_path / "fresh")


def test_another_source_of_the_same_names_is_refused(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    refused_for_rejects(folder, root)
    before = kept(root)
    write(tmp_path / "alike", {name: encode_picture(k, 90, 70) for k, name in enumerate(GOOD)})
    said = "is of the source as it was before (images of every shard had other lengths); give another --out"
    assert said in shard(tmp_path / "alike", root, "--max-rejected", "0", code=2).output
    assert {**kept(root), ".work/job.json": ""} == {**before, ".work/job.json": ""}


def test_a_codec_that_is_there_now_gives_rejects_another_try(
    folder: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    concerned = refused_for_rejects(folder, tmp_path / "set")
    for module in ("earlier", "shard"):
        monkeypatch.setattr(f"alexnet.tools.convert.{module}.codecs", lambda: ("jpg", "zlib", "webp"))
    here.converted.clear()
    build(open_source(folder), tmp_path / "set", SETTINGS)
    assert set(here.converted) == concerned


@pytest.mark.parametrize("mended", [GOOD["cats/3.jpg"], bytes(300)])
def test_a_complete_set_whose_rejects_changed_is_refused_and_says_so(
    folder: Path, tmp_path: Path, mended: bytes
) -> None:
    """Of another length, and of the same: its list of images is then what it was, and its hash, too."""
    root = tmp_path / "set"
    made = fresh(folder, root)
    assert "already complete; nothing to do" in shard(folder, root).output
    write(folder, {"cats/3.jpg": mended})
    assert shard(folder, root, code=2).stderr == (
        f"Error: {root}: is of the source as it was before (changed since, or gone: 1 rejected image, cats/3.jpg); "
        "give another --out, or --overwrite to make it anew\n"
    )
    assert digests(root) == made
    shard(folder, root, "--overwrite")
    assert digests(root) == fresh(folder, tmp_path / "fresh")


def test_a_complete_set_of_an_earlier_version_stays_complete(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    fresh(folder, root)
    lines = [json.loads(line) for line in (root / "rejected.jsonl").read_text().splitlines()]
    old = [{key: value for key, value in entry.items() if key not in ("bytes", "sha256")} for entry in lines]
    for text in ("".join(json.dumps(entry) + "\n" for entry in old), "damaged\n", "[]\n"):
        (root / "rejected.jsonl").write_text(text)
        assert "already complete; nothing to do" in shard(folder, root).output


def test_what_an_earlier_version_began_is_done_again_or_refused(folder: Path, tmp_path: Path, here: Here) -> None:
    """Its notes had another form; its job, before that, fewer fields."""
    root = tmp_path / "set"
    refused_for_rejects(folder, root)
    for notes in (root / ".work").glob("*.notes"):
        notes.rename(notes.with_suffix(".npz"))
    here.converted.clear()
    shard(folder, root)
    assert len(here.converted) == 5
    assert digests(root) == fresh(folder, tmp_path / "fresh")
    refused_for_rejects(folder, tmp_path / "older")
    job = tmp_path / "older" / ".work" / "job.json"
    job.write_text(json.dumps({key: value for key, value in json.loads(job.read_text()).items() if key != "listed"}))
    said = shard(folder, tmp_path / "older", code=2).stderr
    assert "job.json: cannot be read (Object missing required field `listed`); give another --out, or" in said
    shard(folder, tmp_path / "older", "--overwrite")
    assert digests(tmp_path / "older") == digests(root)


def rename(old: str, new: str) -> Callable[[Path], object]:
    return lambda root: (root / old).rename(root / new)


def add_val(root: Path) -> None:
    root.rename(root.parent / "moved")
    root.mkdir()
    (root.parent / "moved").rename(root / "train")
    write(root, {"val/cats/1.jpg": GOOD["cats/1.jpg"]})


CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "an image gone": (lambda root: (root / "cats/7.jpg").unlink(), "20 train images there, 19 in the source"),
    "a reject gone": (
        lambda root: (root / "dogs/4.jpg").unlink(),
        "20 train images there, 19 in the source; changed since, or gone: 1 rejected image, dogs/4.jpg",
    ),
    "a reject renamed": (rename("dogs/4.jpg", "dogs/4a.jpg"), "changed since, or gone: 1 rejected image, dogs/4.jpg"),
    "an image renamed": (rename("cats/7.jpg", "cats/7a.jpg"), r"train image \d+ is 7 there, 7a.jpg in the source"),
    "a class renamed": (rename("dogs", "hounds"), "class dogs there only; class hounds in the source only; changed"),
    "classes added": (
        lambda root: write(root, {"ants/1.jpg": b"", "bees/1.jpg": b""}),
        "class ants in the source only, the first of 2; 20 train images there, 22 in the source",
    ),
    "a validation set added": (add_val, "0 val images there, 1 in the source"),
    "another length": (
        lambda root: write(root, {"cats/1.jpg": GOOD["cats/1.jpg"] + b"\0"}),
        r"as it was before \(images had other names, labels or lengths\)",
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_source_that_changed_otherwise_is_refused_with_what_changed(folder: Path, tmp_path: Path, kind: str) -> None:
    """Of a set that was only begun, images may have other lengths."""
    (change, said), begun, finished = CHANGES[kind], tmp_path / "begun", tmp_path / "finished"
    shard(folder, begun, "--max-rejected", "0", code=1)
    shard(folder, finished)
    change(folder)
    for root in (begun, finished) if kind != "another length" else (finished,):
        before = kept(root)
        with pytest.raises(InputError, match=said):
            build(open_source(folder), root, SETTINGS)
        assert kept(root) == before
