"""Folders of classes and of splits: what is an image of them, which names are left out, and what a user may say."""

import shlex
import shutil
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.convert.sources import find_layout, open_source
from alexnet.tools.convert.sources.folders import is_junk
from alexnet.tools.convert.sources.names import split_names
from tests.unit.tools.source_layouts import (
    CLASSES,
    PNG,
    bytes_of,
    class_names,
    folders,
    parents,
    refused,
    write,
)


def test_a_class_is_all_that_lies_below_its_folder(tmp_path: Path) -> None:
    files = {"cats/a.jpg": PNG, "cats/deeper.dir/no_extension": b"GIF89a", "dogs/images/b.jpg": PNG, "c.jpg": PNG}
    source = open_source(write(tmp_path, files))
    assert bytes_of(source, "train") == [
        ("cats", "a.jpg", PNG),
        ("cats", "deeper.dir/no_extension", b"GIF89a"),
        ("dogs", "images/b.jpg", PNG),
    ]
    beside = f"1 file lies beside the class folders of {tmp_path.name} and without a class, so not read: c.jpg"
    assert beside in source.notes
    assert source.ignored == 0
    write(tmp_path, {**folders("birds", classes=["front", "side"])})
    note = "each class is taken with all folders below it: birds with front, side"
    assert note in open_source(tmp_path).notes


@pytest.mark.parametrize("link", ["kitty", "val", "train/kitty"])
def test_a_folder_that_is_there_twice_by_a_link_is_refused(tmp_path: Path, link: str) -> None:
    write(tmp_path, folders("." if link == "kitty" else "train"))
    to = tmp_path / "train" if link == "val" else (tmp_path / link).parent / "cats"
    (tmp_path / link).symlink_to(to, target_is_directory=True)
    refused(tmp_path, "by a link, and would be read twice")


def test_names_say_less_alone_than_side_by_side() -> None:
    assert split_names(["seg_train", "seg_test", "seg_pred"]) == {"seg_train": "train", "seg_test": "test"}
    assert split_names(["bullet_train", "test_tube", "train"]) == {"train": "train"}
    assert split_names(["Food11-training", "Food11-validation", "Food11-evaluation"]) == {
        "Food11-training": "train", "Food11-validation": "val", "Food11-evaluation": "test",
    }  # fmt: skip


JUNK = (
    *("1.jpg:Zone.Identifier", "1.jpg\uf03aZone.Identifier", ".DS_Store", "._1.jpg", "Thumbs.db", "~$list.docx"),
    *("@eaDir/1.jpg", "$RECYCLE.BIN/1.jpg", "lost+found/1.jpg", "System Volume Information/1.jpg"),
    *("__MACOSX/1.jpg", "#recycle/1.jpg", ".Trash-1000/1.jpg"),
)


def test_what_other_systems_leave_behind_is_no_class_and_no_image(tmp_path: Path) -> None:
    write(tmp_path, folders("train", "val"))
    clean = open_source(tmp_path)
    for folder in (".", "train", "val/dogs"):
        write(tmp_path / folder, dict.fromkeys(JUNK, PNG))
    source = open_source(tmp_path)
    assert source.digest() == clean.digest()
    assert source.ignored == 2 * len(JUNK)


@pytest.mark.parametrize(
    "name", ["Icon.png", "recycler", "@home", "thumbs.db.jpg", "lost and found", "zone.identifier.jpg"]
)
def test_names_that_only_look_like_junk_are_read(name: str) -> None:
    assert not is_junk(name)


def test_names_that_print_alike_are_refused_and_composed_letters_are_one_class(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    write(tmp_path / "a/train", {f"{decomposed}/1.jpg": PNG, "bar/1.jpg": PNG})  # unpacked on a Mac
    write(tmp_path / "a/val", {f"{composed}/1.jpg": PNG, "bar/1.jpg": PNG})
    source = open_source(tmp_path / "a")
    assert [source.classes[m.label].wnid for m in source.members["val"]] == ["bar", composed]
    for k, other in enumerate((decomposed, f"{composed} ", f"\u200b{composed}")):
        write(tmp_path / f"b{k}", folders(".", classes=[composed, other]))
        refused(tmp_path / f"b{k}", r"two classes are called 'café' as far as print shows: .*xe9'")


def test_names_that_are_no_utf_8_can_be_read_and_printed(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, {"caf\udce9/\udcff.jpg": PNG, "other/1.jpg": b"GIF89a"}))
    assert class_names(source) == ["caf\\xe9", "other"]
    assert bytes_of(source, "train")[0] == ("caf\\xe9", "\udcff.jpg", PNG)
    source.digest()


def test_what_is_no_source_is_described_with_what_would_be(tmp_path: Path, ci_100: Path) -> None:
    files = {"src/main.c": b"int main", "winter21_whole.tar.gz": b"\x1f\x8b", "thesis.tex": b"years of work"}
    with pytest.raises(InputError) as refusal:
        open_source(write(tmp_path, files))
    text = str(refusal.value)
    assert "1 folder (src) and 2 files (thesis.tex, winter21_whole.tar.gz)" in text
    assert "gunzip it first" in text
    for layout in ("ILSVRC2012_img_train.tar", "CLS-LOC", "class tars", "sub-folder", "cifar-10", "train-images-idx3"):
        assert layout in text
    assert "\n" not in text
    for wrong, said in (
        (ci_100, "is a data set of alexnet-prep already"),
        (tmp_path / "nowhere", "there is no such folder"),
        (tmp_path / "thesis.tex", "is not a folder"),
    ):
        refused(wrong, said)


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
