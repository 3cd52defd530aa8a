"""`alexnet-prep synth` as a user types it: a data set, or archives as ImageNet's, the same bytes however they came."""

import io
import json
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from alexnet.shards.manifest import SPLITS, read_manifest
from alexnet.shards.reader import SplitReader
from alexnet.tools.convert import engines
from alexnet.tools.convert.sources import open_source
from alexnet.tools.synth import archives
from alexnet.tools.synth.classes import Choices, SynthSettings, traits_of, wnid_of
from alexnet.tools.synth.image import encode_photograph
from alexnet.tools.synth.run import synthetic_source
from tests.conftest import digests, pool_of_none, prep

SET = ("--classes", "5", "--images", "31", "--val-images", "7")
SMALL: dict[str, tuple[str, ...]] = {
    "shards": (*SET, "--shard-images", "16", "--size", "48", "--seed", "3"),
    "official": ("--layout", "official", *SET, "--seed", "3"),
}
SETTINGS = SynthSettings(classes=5, images=31, val_images=7, seed=3)


def refused(*arguments: object, saying: str = "") -> None:
    said = prep("synth", *arguments, code=2).output
    assert said.startswith("Error: ")
    assert len(said.splitlines()) == 1
    assert saying in said
    assert "--out" not in said


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a set in each layout, each made by two workers."""
    root = tmp_path_factory.mktemp("synth")
    for layout, options in SMALL.items():
        result = prep("synth", root / layout, *options, "--workers", "2")
    assert "in ILSVRC-2012's layout; 38 images" in result.output
    return root


@pytest.fixture(autouse=True)
def in_this_process(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (engines, archives):
        monkeypatch.setattr(module, "WorkerPool", pool_of_none)


def test_shards_are_a_data_set_like_any_other(made: Path) -> None:
    assert "38 images decoded: all is well" in prep("verify", "--deep", made / "shards", "--workers", "1").output
    manifest = read_manifest(made / "shards")
    assert (manifest.source["kind"], manifest.settings["seed"]) == ("synthetic-1", 3)
    assert [record.wnid for record in manifest.classes] == [f"n9000000{k}" for k in range(1, 6)]
    assert manifest.classes[0].words == "disc of coarse steep stripes on fine upright stripes"
    assert np.bincount(SplitReader(made / "shards", "train").labels).tolist() == [7, 6, 6, 6, 6]


def test_any_tar_reader_reads_the_archives(made: Path) -> None:
    names = ("ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "synth.json")
    assert sorted(path.name for path in (made / "official").iterdir()) == sorted(names)
    with tarfile.open(made / "official" / names[1]) as outer:
        assert outer.getnames() == [f"{wnid_of(k)}.tar" for k in range(5)]
        for label, member in enumerate(outer):
            with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                assert_holds(inner, [f"{stem}.JPEG" for stem in SETTINGS.train_stems(label)], [label] * 7)
    with tarfile.open(made / "official" / names[2]) as flat:
        assert_holds(flat, [f"ILSVRC2012_val_{k:08d}.JPEG" for k in range(1, 8)], [0, 1, 2, 3, 4, 0, 1])


def assert_holds(tar: tarfile.TarFile, names: list[str], labels: list[int]) -> None:
    assert tar.getnames() == names
    for name, label in zip(names, labels, strict=False):
        data = (tar.extractfile(name) or io.BytesIO()).read()
        assert data == encode_photograph(traits_of(label), Choices(f"3 {name.removesuffix('.JPEG')}"))
        Image.open(io.BytesIO(data)).load()


def test_a_tar_ends_as_the_standard_library_ends_one() -> None:
    for images in range(25):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for k in range(images):
                tar.addfile(tarfile.TarInfo(f"{k}"))
        assert len(buffer.getvalue()) == 512 * images + len(archives.end_of_tar(512 * images))


def test_both_layouts_have_the_same_classes_labels_places_and_names(made: Path, tmp_path: Path) -> None:
    found, synthetic = open_source(made / "official"), synthetic_source(SETTINGS)
    assert (found.kind, found.classes) == ("ilsvrc2012-archives", synthetic.classes)
    out, options = tmp_path / "out", ("--seed", "3", "--size", "48", "--shard-images", "16")
    prep("shard", made / "official", "--out", out, *options)
    assert read_manifest(made / "shards").classes == read_manifest(out).classes
    for split in SPLITS:
        ours, theirs = (SplitReader(root, split) for root in (made / "shards", out))
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert [ours.key(i) for i in range(len(ours))] == [theirs.key(i) for i in range(len(theirs))]


@pytest.mark.parametrize("layout", SMALL)
def test_bytes_depend_on_the_seed_and_on_nothing_else(layout: str, made: Path, tmp_path: Path) -> None:
    root, other = tmp_path / "same", (*SMALL[layout][:-1], "4")
    prep("synth", root, *SMALL[layout], "--workers", "1")
    assert digests(root) == digests(made / layout)
    assert "already complete; nothing to do" in prep("synth", root, *SMALL[layout]).output
    assert digests(root) == digests(made / layout)
    refused(root, *other, saying="seed 3 there, 4 asked for")
    prep("synth", root, *other, "--overwrite")
    ours, others = digests(made / layout), digests(root)
    assert ours.keys() == others.keys()
    same = [name for name in ours if ours[name] == others[name]]
    assert same == (["_info.json", "rejected.jsonl"] if layout == "shards" else ["ILSVRC2012_devkit_t12.tar.gz"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--classes", "0"), "classes=0: must be between 1 and 4,096"),
        (("--classes", "5000"), "classes=5000: must be between 1 and 4,096"),
        (("--images", "999"), "images=999: must be between 1,000 and 20,000,000, one for each class"),
        (("--val-images", "-3"), "val_images=-3: must be between 0 and 20,000,000"),
        (("--seed", "-1"), "seed=-1: must be between 0 and"),
        (("--size", "257"), "size_px=257: must be at most 256, as large as images are made"),
        (("--size", "15"), "size_px=15: must be between 16 and"),
        (("--shard-images", "0"), "shard_images=0: must be between 1 and"),
        (("--layout", "official", "--size", "64"), "--size 64: is for --layout shards"),
        (("--layout", "official", "--val-images", "50000"), "val_images=50000: with 1,000 classes they would be taken"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    refused(tmp_path / "set", *arguments, saying=message)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
@pytest.mark.parametrize("layout", SMALL)
def test_nothing_that_it_did_not_make_is_touched(
    layout: str, more: tuple[str, ...], made: Path, official: Path, tmp_path: Path
) -> None:
    other = "official" if layout == "shards" else "shards"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    for folder in (tmp_path / "thesis", made / other, official):
        before = digests(folder)
        refused(folder, *SMALL[layout], *more)
        assert digests(folder) == before
    refused(tmp_path / "thesis" / "thesis.tex", *SMALL[layout], *more)
    if more:
        root = Path(shutil.copytree(made / layout, tmp_path / "set"))
        (root / "thesis.tex").write_text("years of work")
        refused(root, *SMALL[layout], *more, saying="nothing was deleted")
        assert digests(made / layout).items() < digests(root).items()


def test_a_set_that_does_not_fit_is_refused_before_anything_is_deleted(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(made / "official", tmp_path / "set"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3e9))
    message = "about 13.1 GB are needed and 3.0 GB are free; make room"
    refused(tmp_path / "other", "--layout", "official", saying=message)
    refused(root, "--layout", "official", "--overwrite", saying=message)
    assert digests(root) == digests(made / "official")


@pytest.mark.parametrize("layout", SMALL)
def test_events_for_machines_and_no_archive_of_no_validation_images(layout: str, tmp_path: Path) -> None:
    options = ("--layout", layout, "--classes", "2", "--images", "4", "--val-images", "0", "--json")
    events = [json.loads(line) for line in prep("synth", tmp_path / "set", *options).output.splitlines()]
    assert [events[0]["event"], events[-2]["event"], events[-1]["event"]] == ["source", "progress", "complete"]
    assert events[0]["entries"] == {"train": 4, "val": 0}
    assert (events[-2]["done"], events[-2]["total"]) == (4, 4)
    if layout == "official":
        assert not (tmp_path / "set" / "ILSVRC2012_img_val.tar").exists()
        assert [len(open_source(tmp_path / "set").members[split]) for split in SPLITS] == [4, 0]


@pytest.mark.parametrize(("layout", "goes_on"), [("shards", "continues"), ("official", "starts over")])
def test_interrupted_it_says_so_in_one_line(layout: str, goes_on: str, tmp_path: Path) -> None:
    options = ("--layout", layout, "--classes", "40", "--images", "30000", "--workers", "1", "--json")
    command = [sys.executable, "-m", "alexnet.tools.prep", "synth", str(tmp_path), *options]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in run.stdout or ():
        if json.loads(line)["event"] == "progress" and json.loads(line)["done"] > 0:
            break
    run.send_signal(signal.SIGINT)
    errors = run.communicate(timeout=60)[1]
    assert (run.returncode, errors) == (130, f"interrupted; the same command {goes_on}\n")
    assert (tmp_path / ".work").exists()


def test_a_full_disk_ends_in_one_line_and_the_next_call_makes_the_set(made: Path, tmp_path: Path) -> None:
    """A file size limit of 1 MB makes writing fail as a full disk does."""
    command, limits = ("synth", tmp_path / "set", *SMALL["official"]), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        stopped = prep(*command, code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(stopped.output.splitlines()) == 1
    assert stopped.output.startswith("Error: File too large: ")
    prep(*command)
    assert digests(tmp_path / "set") == digests(made / "official")
