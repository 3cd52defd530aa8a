"""Folders of classes: what is a class, what is an image of it, and which names are left out or refused."""

from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.convert.sources import open_source
from alexnet.tools.convert.sources.folders import is_junk
from alexnet.tools.convert.sources.names import split_names
from tests.unit.tools.source_layouts import PNG, bytes_of, class_names, folders, parents, refused, write


@pytest.mark.parametrize(
    "classes",
    [
        ("bus", "car", "train"),
        ("bullet_train", "steam train", "test_tube", "valve"),
        ("valid", "invalid"),
        ("cats (1)", "lions"),
        ("mask", "no mask"),
        ("images", "drawings"),
        ("train_station", "testes", "trainers"),
        ("n01440764", "validation stamp"),
        ("straße", "dots.in.it", "white space", "n00000001", "Ünïcödé 猫"),
    ],
)
def test_classes_with_such_names_stay_classes(tmp_path: Path, classes: tuple[str, ...]) -> None:
    write(tmp_path, folders(".", classes=classes))
    assert parents(tmp_path) == ({"": 2 * len(classes)}, {})
    source = open_source(tmp_path)
    assert class_names(source) == sorted(classes)
    assert (source.kind, source.label_order) == ("image-folder", "place of the folder's name in sorted order")


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
