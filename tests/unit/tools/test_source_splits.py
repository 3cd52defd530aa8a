"""Folders of splits and folders of classes are never mixed up: read right, or refused with the command that works."""

import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.convert.sources import find_layout, open_source
from tests.unit.tools.source_layouts import CLASSES, PNG, class_names, folders, parents, refused, write

SPLITS = """Train Val, TRAIN VAL, training validation, training_set validation_set, TrainSet ValidSet, trainset valset,
train_images val_images, images-train images-val, train2017 val2017, seg_train/seg_train seg_val/seg_val, train test,
imagenette2-train imagenette2-val, train/ILSVRC2012_img_train val/ILSVRC2012_img_val, train Valid, train validation"""


@pytest.mark.parametrize("splits", re.split(r",\s", SPLITS))
def test_splits_are_told_by_their_names(tmp_path: Path, splits: str) -> None:
    write(tmp_path, folders(*splits.split()))
    train, val = (Path(split).name for split in splits.split())
    assert parents(tmp_path) == ({train: 4}, {val: 4})
    assert f"validation images are read from {val}" in open_source(tmp_path).notes


READ: list[tuple[Mapping[str, bytes], dict[str, int], dict[str, int], str]] = [
    (
        {
            **folders("train.X1", classes=["cats"]),
            **folders("train.X2", classes=["dogs"]),
            **folders("val.X"),
            "Labels.json": b"{}",
        },
        {"train.X1": 2, "train.X2": 2},
        {"val.X": 4},
        "training images are read from train.X1, train.X2",
    ),
    (folders("train", "val", "test"), {"train": 4}, {"val": 4}, "not read: test"),
    ({**folders("train"), "test/1.jpg": PNG}, {"train": 4}, {}, "not read: test"),
    (folders("train", "train_images", "training", "val"), {"train": 4}, {"val": 4}, "not read: train_images, training"),
    (folders(".", classes=["train", "car"]), {"": 4}, {}, "taken for classes: train"),
]


@pytest.mark.parametrize(("files", "train", "val", "note"), READ)
def test_what_is_sure_is_read_and_what_is_not_read_is_said(
    tmp_path: Path, files: Mapping[str, bytes], train: dict[str, int], val: dict[str, int], note: str
) -> None:
    assert parents(write(tmp_path, files)) == (train, val)
    assert note in open_source(tmp_path).notes


REFUSED: list[tuple[Mapping[str, bytes], str]] = [
    (folders("train_a", "train_b"), r"train_a, train_b may each be the split that is meant"),
    (
        folders("train_images", "training", "val"),
        r"train_images, training may each be .*--train train_images --val DIR",
    ),
    ({**folders("train"), "val/1.jpg": PNG}, "val: its images have no labels; sort them into class f"),
    ({f"{name}/cat.0.jpg": PNG for name in ("train", "test1")}, "not taken for classes: .* sort them into train/CLASS"),
    ({f"{name}/1.jpg": PNG for name in ("Train", "Val", "Test")}, "not taken for classes: Test, "),
    ({f"{name}/1.jpg": PNG for name in ("trainA", "testA", "trainB", "testB")}, "not taken for cl"),
    (folders("cats", "dogs", classes=["train", "test"]), "cats: holds test, train; put splits"),
    ({**folders("."), "cats/dogs/1.jpg": PNG}, "are called like classes beside it.* --train"),
    ({**folders("."), **folders("test")}, "not taken for classes: test.* --train"),
    ({**folders("."), **folders("data/train", "data/val")}, "data: holds train, val;"),
    ({**folders("."), "test/1.jpg": PNG}, "not taken for classes: test.* --train"),
    ({**folders("."), "cats/val/1.png": PNG}, "cats: holds val; put splits above classes"),
    ({**folders("."), "cats/Validation/1.png": PNG}, "cats: holds Validation; put"),
    (
        {**folders(".", classes=[f"c{k:02d}" for k in range(40)]), **folders("c17h", classes=["c00", "c01", "c02"])},
        r"c17h: its folders \(c00, c01, c02\) are called like classes beside it",
    ),
    (
        {**folders("birds"), "meta/classes.txt": b"cats", "meta/train.json": b"{}"},
        r"of its folders only birds holds images, in folders of its own: give .*/birds;",
    ),
    (folders("photos"), "only photos holds images, in folders of its own: give .*/photos;"),
    (
        {f"{name}/1.jpg": PNG for name in ("images", "annotations")},
        "not taken for classes: annotations, images, which name none",
    ),
    (
        {"train/images/1.jpg": PNG, "valid/images/1.jpg": PNG, "labels/train/1.txt": b"0"},
        "not taken for classes: images",
    ),
    (
        folders("cats", "dogs", classes=["front", "side"]),
        r"if they are splits: .* to take each folder of .* --train \.",
    ),
    (folders("amazon/images", "dslr/images", "webcam/images"), r"sub-folders of the same names \(cats, dogs\)"),
    (
        {**folders("Training"), **folders("Validation", classes=[*CLASSES, "birds"])},
        "Validation: birds is none of the 2 classes",
    ),
    *(
        (folders(".", classes=[*CLASSES, copy]), "looks like a copy of the class beside it")
        for copy in ("cats (1)", "cats (copy)", "cats - Copy", "cats copy 2")
    ),
    ({}, "no known layout; found nothing"),
]


@pytest.mark.parametrize(("files", "said"), REFUSED)
def test_what_may_be_wrong_is_refused_in_one_line(tmp_path: Path, files: Mapping[str, bytes], said: str) -> None:
    line = refused(write(tmp_path, files), said)
    if "to take each folder" in line:
        command = shlex.split(line.rpartition(" for a class: ")[2])
        assert command[:3] == ["alexnet-prep", "shard", str(tmp_path)]
        options = list(zip(command[3::2], command[4::2], strict=True))
        train, val = (tuple(name for option, name in options if option == wanted) for wanted in ("--train", "--val"))
        if "copy" not in said:
            assert len(open_source(tmp_path, layout=find_layout(tmp_path, train, val)).members["train"])


@pytest.mark.parametrize(
    "splits", ["Train Test", "training_set test_set", "seg_train/seg_train seg_test/seg_test", "TRAIN Testing"]
)
def test_a_test_set_is_no_validation_set_unless_the_user_says_so(tmp_path: Path, splits: str) -> None:
    train, test = splits.split()
    write(tmp_path, folders(train, test))
    refused(tmp_path, f"alexnet-prep shard {tmp_path} --train {train} --val {test}")
    assert parents(tmp_path, (train,), (test,)) == ({Path(train).name: 4}, {Path(test).name: 4})
    assert parents(tmp_path, (str(tmp_path / train),))[1] == {}


def test_splits_with_names_of_their_own_are_refused_with_both_commands(tmp_path: Path) -> None:
    write(tmp_path, {**folders("lernen", "prüfen"), "lernen/labels.csv": b"a,b"})
    line = refused(tmp_path, r"no images of their own and sub-folders of the same names \(ca")
    command = shlex.join(["alexnet-prep", "shard", str(tmp_path), "--train", "lernen", "--val", "prüfen"])
    assert command in line
    assert parents(tmp_path, ("lernen",), ("prüfen",)) == ({"lernen": 4}, {"prüfen": 4})
    assert class_names(open_source(tmp_path, layout=find_layout(tmp_path, (".",)))) == ["lernen", "prüfen"]


def test_the_command_for_classes_keeps_the_validation_set(tmp_path: Path) -> None:
    write(tmp_path, folders("train", "val", classes=[*CLASSES, "test"]))
    refused(tmp_path, rf"for a class: alexnet-prep shard {tmp_path} --train train --val val")
    assert parents(tmp_path, ("train",), ("val",)) == ({"train": 6}, {"val": 6})


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (["nowhere"], [], "--train nowhere: there is no folder .*; give it as a path from"),
        ([], ["b"], "--val b: say where the training images are, too"),
        (["a/cats"], [], "--train a/cats: holds no class folders"),
        (["a"], ["a"], "--train a: .* lies inside it and would be read twice"),
        (["."], ["b"], r"--train \.: .*b lies inside it"),
        ([".."], [], r"--train \.\.: lies outside of"),
    ],
)
def test_folders_not_meant_are_refused(tmp_path: Path, train: list[str], val: list[str], message: str) -> None:
    write(tmp_path / "root", folders("a", "b"))
    with pytest.raises(InputError, match=message):
        find_layout(tmp_path / "root", tuple(train), tuple(val))


def test_folders_may_be_named_through_a_link_to_the_source(tmp_path: Path) -> None:
    write(tmp_path / "real", folders("learn"))
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    assert parents(tmp_path / "link", (str(tmp_path / "real" / "learn"),)) == ({"learn": 4}, {})


def test_the_train_folder_alone_points_to_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path, folders("train", "val"))
    assert f"no validation images: give {tmp_path} to have those of val, too" in open_source(tmp_path / "train").notes
    shutil.rmtree(tmp_path / "val")
    assert any("there is no folder val with class folders beside train" in n for n in open_source(tmp_path).notes)


def test_a_train_folder_that_was_not_unpacked_to_the_end_is_refused(tmp_path: Path) -> None:
    """Unpacking the training archive gives 1,000 class tars: many stop there, or half-way to folders."""
    images = {"0.JPEG": PNG, "1.JPEG": PNG}
    write(tmp_path, {**{f"train/n0000000{k}.tar": images for k in range(3)}, "val/0.JPEG": PNG})
    refused(tmp_path, r"not unpacked, n00000000\.tar the first of 3; .* or give .*/train its")
    assert len(open_source(tmp_path / "train").classes) == 3
    write(tmp_path / "train/n00000000", images)
    shutil.rmtree(tmp_path / "val")
    refused(tmp_path, r"train: .*, n00000001\.tar the first of 2; unpack each into .* name$")
    (tmp_path / "train" / "n00000000.tar").unlink()
    refused(tmp_path / "train", "class tars, and folders of other classes, n00000000 the first of 1; unpack")
    for k in (1, 2):  # tars that are kept beside their folders do no harm
        write(tmp_path / f"train/n0000000{k}", images)
    source = open_source(tmp_path)
    assert (len(source.classes), len(source.members["train"]), source.ignored) == (3, 6, 0)
    assert "2 files lie beside the class folders of train and without a class, so not read" in " ".join(source.notes)
