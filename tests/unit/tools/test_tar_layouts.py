"""Tars of classes, splits, parts and of everything: read where every label is certain, refused where it is not."""

from pathlib import Path
from typing import Any

import pytest

from alexnet.tools.convert.sources import TRAIN_TAR, open_source
from tests.conftest import encode_picture
from tests.unit.tools.source_layouts import bytes_of, class_names, refused, write

FISH, DOG, TENCH = "n01443537", "n02084071", "n01440764"
IMAGES = [encode_picture(i) for i in range(12)]
X, Y, Z = IMAGES[:3]
GZIPPED = b"\x1f\x8b"


def flat(*numbers: int, val: bool = False) -> dict[str, bytes]:
    """Return images whose names end in their WNID; every second one is a fish."""
    wnids = {i: (TENCH, FISH)[i % 2] for i in numbers}
    first = (f"ILSVRC2012_val_{i:08d}" if val else f"{wnid}_{i}" for i, wnid in wnids.items())
    return {f"{stem}_{wnids[i]}.JPEG": IMAGES[i] for stem, i in zip(first, numbers, strict=True)}


def folders(*names: str, first: int = 0) -> dict[str, bytes]:
    """Return an image in each of some folders."""
    return {f"{name}/{i}.jpg": IMAGES[i] for i, name in enumerate(names, start=first)}


ONE_SPLIT: dict[str, Any] = {
    "lone tar": {"any.tar": folders("cat", "dog")},
    "lone tar with a folder around": {"imagenette2.tar": folders("imagenette2/cat", "imagenette2/dog")},
    "folders around": {"data.tar": folders("a/b/cat", "a/b/dog")},
    "packed from within": {"any.tar": folders("./cat", "./dog")},
    "a file beside the classes": {"any.tar": {"a/README.txt": b"read me", **folders("a/cat", "a/dog")}},
    "a folder without images": {"any.tar": {"docs/README.txt": b"read me", **folders("data/cat", "data/dog")}},
    "parts with a class each": {"part1.tar": folders("cat"), "part2.tar": folders("dog", first=1)},
    "parts called alike": {"zoo_part_1.tar": folders("cat"), "zoo_part_2.tar": folders("zoo/dog", first=1)},
    "a split in a tar": {"train.tar": folders("train/cat", "train/dog")},
    "class tars": {"cat.tar": {"0.jpg": X}, "dog.tar": {"1.jpg": Y}},
    "class tars in a tar": {"mine.tar": {"cat.tar": {"0.jpg": X}, "dog.tar": {"1.jpg": Y}}},
    "class tars in a folder in a tar": {"mine.tar": {"fall/cat.tar": {"0.jpg": X}, "fall/dog.tar": {"1.jpg": Y}}},
}


def test_images_a_level_below_their_class_are_called_as_in_a_tree(tmp_path: Path) -> None:
    files = folders("cat/images", "dog/images")
    tree = open_source(write(tmp_path / "tree", files))
    assert open_source(write(tmp_path / "tars", {"any.tar": files})).digest() == tree.digest()


TWO_SPLITS: dict[str, Any] = {
    "two tars": {"train.tar": folders("cat", "dog"), "val.tar": folders("cat", first=2)},
    "usual names": {"Train_Set.tar": folders("cat", "dog"), "Validation_Set.tar": folders("./val/cat", first=2)},
    "names that say more": {"zoo_train.tar": folders("cat", "dog"), "zoo-val.tar": folders("cat", first=2)},
    "one tar": {"zoo.tar": folders("zoo/train/cat", "zoo/train/dog", "zoo/val/cat")},
    "one tar, a split each": {"a.tar": folders("train/cat", "train/dog", "valid/cat")},
    "tars in a tar": {"zoo.tar": {"train.tar": folders("cat", "dog"), "val.tar": folders("cat", first=2)}},
    "class tars in folders": {
        "train/cat.tar": {"0.jpg": X},
        "train/dog.tar": {"1.jpg": Y},
        "val/cat.tar": {"2.jpg": Z},
        "val/dog.tar": {},
    },
    "class tars in folders in a tar": {
        "zoo.tar": {"train/cat.tar": {"0.jpg": X}, "train/dog.tar": {"1.jpg": Y}, "val/cat.tar": {"2.jpg": Z}}
    },
    "class tars in two tars": {
        "train.tar": {"cat.tar": {"0.jpg": X}, "dog.tar": {"1.jpg": Y}},
        "val.tar": folders("cat", first=2),
    },
    "parts of splits": {
        "train_0.tar": folders("cat"),
        "train_1.tar": folders("dog", first=1),
        "val_0.tar": folders("cat", first=2),
    },
}


@pytest.mark.parametrize("form", ONE_SPLIT | TWO_SPLITS)
def test_folders_in_tars_are_read_like_those_outside_and_splits_are_never_classes(tmp_path: Path, form: str) -> None:
    source = open_source(write(tmp_path / "tars", (ONE_SPLIT | TWO_SPLITS)[form]))
    assert bytes_of(source, "train") == [("cat", "0.jpg", X), ("dog", "1.jpg", Y)]
    assert bytes_of(source, "val") == ([("cat", "2.jpg", Z)] if form in TWO_SPLITS else [])
    assert any("validation images" in note for note in source.notes)
    if form in ONE_SPLIT:
        assert source.digest() == open_source(write(tmp_path / "tree", folders("cat", "dog"))).digest()


@pytest.mark.parametrize("around", ["", "imagenet/"])
def test_labels_in_names_are_read_in_the_order_of_a_tree(tmp_path: Path, around: str) -> None:
    """As Hugging Face packs ImageNet: flat, each name ending in its WNID; and test images without any."""
    tars = {
        "train_images_0.tar": flat(0, 3),
        "train_images_1.tar": flat(1, 2),
        "val_images.tar": flat(4, 5, val=True),
        "test_images.tar": {"ILSVRC2012_test_00000001.JPEG": Z},
    }
    source = open_source(
        write(tmp_path, {tar: {around + name: data for name, data in files.items()} for tar, files in tars.items()})
    )
    assert bytes_of(source, "train") == [
        (wnid, f"{wnid}_{i}_{wnid}.JPEG", IMAGES[i]) for wnid, i in ((TENCH, 0), (TENCH, 2), (FISH, 1), (FISH, 3))
    ]
    assert bytes_of(source, "val") == [
        (wnid, f"ILSVRC2012_val_{i:08d}_{wnid}.JPEG", IMAGES[i]) for wnid, i in ((TENCH, 4), (FISH, 5))
    ]
    assert "1 thing is not read: test_images.tar (test images)" in source.notes


def test_names_as_in_the_training_archive_carry_labels_too(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, {"train.tar": {f"{FISH}_2.JPEG": X, f"{TENCH}_10.JPEG": Y, "LICENSE": b"x"}}))
    assert bytes_of(source, "train") == [(TENCH, f"{TENCH}_10.JPEG", Y), (FISH, f"{FISH}_2.JPEG", X)]
    assert source.ignored == 1


def test_a_labelled_test_set_is_for_validation_only_where_there_is_no_other(tmp_path: Path) -> None:
    tars = {"train.tar": folders("cat", "dog"), "test.tar": folders("dog", first=2)}
    assert bytes_of(open_source(write(tmp_path / "a", tars)), "val") == [("dog", "2.jpg", Z)]
    source = open_source(write(tmp_path / "b", {"all.tar": folders("train/cat", "train/dog", "val/cat", "test/cat")}))
    assert [m.name for m in source.members["val"]] == ["2.jpg"]
    assert "1 thing is not read: all.tar (test images)" in source.notes
    source = open_source(write(tmp_path / "c", {"train.tar": folders("cat", "dog"), "test.tar": {"1.jpg": Z}}))
    assert len(source.members["val"]) == 0
    assert "1 thing is not read: test.tar (1 test images)" in source.notes


CLASS_TARS: dict[str, Any] = {
    "flat": {"cat.tar": {"1.jpg": X}, "dog.tar": {"1.jpg": Y}},
    "the class's folder": {"cat.tar": {"cat/1.jpg": X}, "dog.tar": {"Dog/b/1.jpg": Y}},
    "images": {"cat.tar": {"./images/1.jpg": X}, "dog.tar": {"JPEGImages/1.jpg": Y}},
    "one folder in all": {"cat.tar": {"export/1.jpg": X}, "dog.tar": {"export/1.jpg": Y}},
    "folders beside images": {"cat.tar": {"1.jpg": X, "more/2.jpg": Z}, "dog.tar": {"1.jpg": Y}},
    "a class called like a split": {"train.tar": {"1.jpg": X}, "bus.tar": {"1.jpg": Y}, "car.tar": {"1.jpg": Z}},
    "split words in names": {"bullet_train.tar": {"1.jpg": X}, "test_tube.tar": {"1.jpg": Y}},
    "numbers": {"0.tar": {"1.jpg": X}, "1.tar": {"1.jpg": Y}},
    "numbered persons": {"s1.tar": {"1.jpg": X}, "s2.tar": {"1.jpg": Y}},
    "a superclass": {"dog.tar": {"n02085620_1.jpg": X, "n02085782_2.jpg": Y}, "cat.tar": {"n02123045_1.jpg": Z}},
    "a superclass's WNID": {f"{DOG}.tar": {"n02085620_1.jpg": X}, f"{FISH}.tar": {"sub/1.jpg": Y}},
    "one WNID": {f"{DOG}.tar": {"a/1.jpg": X, "b/2.jpg": Y}},
    "hostile names": {f"{DOG}.tar": {"../../etc/passwd": X, "/etc/shadow": Y, "a/../../b\n\x1b[31m.jpg": Z}},
    "odd names": {"straße.tar": {"a": X}, "dots.in.it.tar": {"b": Y}, "Ünïcödé 猫.tar": {"c": Z, "x" * 300: X}},
}


@pytest.mark.parametrize("form", CLASS_TARS)
def test_class_tars_packed_in_any_way_are_classes(tmp_path: Path, form: str) -> None:
    """A name is only a name, whatever it is, and nothing is written."""
    source = open_source(write(tmp_path / "root", CLASS_TARS[form]))
    expected = {(name[:-4], inner, data) for name, files in CLASS_TARS[form].items() for inner, data in files.items()}
    assert set(bytes_of(source, "train")) == expected
    assert source.kind == "class-tars"
    assert source.description == f"class tars, {len(source.classes)} classes, {len(expected)} train and 0 val entries"
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_words_are_taken_from_the_usual_files_and_other_archives_are_named(tmp_path: Path) -> None:
    files = {f"{DOG}.tar": {"1.jpg": X}, f"{FISH}.zip": b"PK\x03\x04", "notes.md": b"", "cats": b""}
    source = open_source(write(tmp_path, {**files, "words.txt": f"{DOG}\tdog, hound\n{FISH}\tno\n".encode()}))
    assert [(c.wnid, c.words) for c in source.classes] == [(DOG, "dog, hound")]
    assert f"1 thing is not read: {FISH}.zip" in source.notes


REFUSED: list[tuple[Any, str]] = [
    ({"images.tar": {"1.jpg": X}}, r"'1\.jpg' has no label: it lies in no class folder"),
    ({"images.tar": {"images/1.jpg": X}}, "has no label"),
    ({"zoo.tar": {"zoo/1.jpg": X}}, "one class only, 'zoo'"),
    ({"train.tar": {"1.jpg": X}, "val.tar": {"2.jpg": Y}}, r"train\.tar: '1\.jpg' has no label"),
    ({"part1.tar": {"1.jpg": X}, "part2.tar": {"2.jpg": Y}}, r"part1\.tar: '1\.jpg' has no label"),
    (
        {"train.tar": {f"{TENCH}.tar": {"1.jpg": X}}, "val.tar": {"ILSVRC2012_val_00000001.JPEG": Y}},
        f"call it ILSVRC2012_img_val.tar, that for training {TRAIN_TAR}",
    ),
    ({"train.tar": {f"{TENCH}_1.JPEG": X, "2.jpg": Y}}, r"'2\.jpg' has no label"),
    ({"a.tar": {**folders("train/cat", "train/dog"), "val/1.jpg": Z}}, r"'val/1\.jpg' has no label"),
    ({f"{TENCH}.tar": {f"{FISH}/1.jpg": X}}, f"holds a folder {FISH}, .* says class {TENCH}"),
    ({"cat.tar": {"dog/1.jpg": X}, "dog.tar": {"1.jpg": Y}}, "of other names than its own"),
    (
        {"pets.tar": folders("cat", "dog"), "farm.tar": folders("cow", "pig", first=2)},
        r"such as 'cat'; if what is in the tars says the classes, call them train_1\.tar",
    ),
    (
        {"a.tar": {"README": b"x", **folders("cat", "dog")}, "b.tar": folders("cow", first=2)},
        "of other names than its own",
    ),
    ({"a.tar": flat(0, 1), "b.tar": flat(2, 3)}, "says class a, and .* in it n0144"),
    (
        {f"{TENCH}.tar": {f"1_{FISH}.JPEG": X}, f"{FISH}.tar": {"1.jpg": Y}},
        rf"its name says class {TENCH}, and '1_{FISH}\.JPEG' in it {FISH}",
    ),
    ({"a.tar": {f"{TENCH}_1.JPEG": X}, "b.tar": {f"{TENCH}_2.JPEG": Y}}, f"says class b, and .* in it {TENCH}"),
    ({"a.tar": folders("pets/cat", "farm/cow")}, "several levels of folders"),
    ({"a.tar": {"1.jpg": X, **folders("cat", "dog", first=1)}}, "several levels of folders"),
    ({"a.tar": folders(f"{DOG}/{TENCH}", FISH)}, "names two classes"),
    (
        {"train.tar": folders("cat", "dog"), "val.tar": folders("cat"), "extra.tar": folders("dog")},
        r"extra\.tar is neither training nor validation",
    ),
    (
        {"train.tar": folders(TENCH), "cats.tar": {"1.jpg": X}},
        "its own name says class train; if what is in the tars says the classes",
    ),
    (
        {"train.tar": folders("val/cat", "val/dog"), "val.tar": folders("cat", first=2)},
        "its name says train, and a folder in it val",
    ),
    (
        {"a.tar": folders("train/val/cat", "train/test/cat", "val/val/cat", "val/test/cat")},
        r"train/test is in two splits \(test and train\)|train/.* is in two splits",
    ),
    (
        {"all.tar": {f"{folder}/{name}.tar": {"1.jpg": X} for folder in ("learn", "check") for name in "xy"}},
        "is in check and in learn, which may be splits",
    ),
    ({"val.tar": folders("cat", "dog")}, "no training images"),
    ({"train.tar": folders("cat", "dog"), "val.tar": folders("cow")}, "cow, which is none"),
    ({"train.tar": folders("cat", "dog"), "train (1).tar": folders("cat", "dog")}, "hold the same image, '0.jpg'"),
    (
        {f"train_{i}.tar": flat(0, 1) for i in range(2)},
        rf"train_1\.tar: '{TENCH}_0_{TENCH}\.JPEG' is in .*train_0\.tar, too",
    ),
    (
        {f"{split}.tar": flat(0, 1) for split in ("train", "val")},
        r"val\.tar: .* is in .*train\.tar, too: an image must not",
    ),
    ({"cat.tar": {"1.jpg": X}, "dog.tar": {"1.jpg": Y}, "test.tar": {"1.jpg": Z}}, "not taken for a class: 'test'"),
    ({"zoo.tar": folders("cat", "dog", "test")}, "not taken for a class: 'test'"),
    ({"zoo.tar": folders("images", "masks")}, "not taken for a class: 'images'"),
    ({"images.tar": {"1.jpg": X}, "masks.tar": {"1.jpg": Y}}, "not taken for a class"),
    ({"old.tar": folders("cat", "dog"), "cat/1.jpg": X, "dog/1.jpg": Y}, "in none of them"),
    (
        {"train_0.tar": folders("cat", "dog"), "train_1.tar.gz": GZIPPED},
        r"train_1\.tar\.gz: is gzipped .* gunzip it first: gunzip .*; there are 1 tars beside it",
    ),
    ({f"{TENCH}.tar": {"1.jpg": X}, f"{FISH}.tar.gz": GZIPPED}, "is gzipped"),
    *(
        ({"train_0.tar": flat(0, 1), name: b"half"}, f"{name}: looks like a tar under another name, or one not do")
        for name in ("train_2.tar.part", "train_2.TAR", "train_2.tar.crdownload")
    ),
    (
        {"data.tar": {**folders("cat", "dog"), "bird.zip": b"PK\x03\x04"}},
        r"holds 'bird\.zip' beside images, which would be missed",
    ),
    ({"whole.tar": {"n1.tar": {"1.jpg": X}, "README": b"x"}}, "holds tars and README, which is"),
    ({"000000.tar": {"0.jpg": X, "0.cls": b"1"}}, "is a WebDataset shard"),
]


@pytest.mark.parametrize(("tars", "said"), REFUSED)
def test_what_may_be_wrong_is_refused_in_one_line(tmp_path: Path, tars: dict[str, Any], said: str) -> None:
    refused(write(tmp_path, tars), said)


def test_parts_that_count_anew_keep_their_images(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, {"part1.tar": folders("cat", "dog"), "part2.tar": {"cat/0.jpg": Z}}))
    assert sorted(bytes_of(source, "train")) == sorted([("cat", "0.jpg", X), ("cat", "0.jpg", Z), ("dog", "1.jpg", Y)])


def test_tars_kept_beside_their_folders_and_archives_of_other_things_do_no_harm(tmp_path: Path) -> None:
    files = {"cat.tar": {"1.jpg": X}, "dog.tar": {"1.jpg": Y}, "cat/1.jpg": X, "dog/1.jpg": Y}
    source = open_source(write(tmp_path / "a", {**files, "boxes.tar.gz": GZIPPED}))
    assert bytes_of(source, "train") == [("cat", "1.jpg", X), ("dog", "1.jpg", Y)]
    assert "1 thing is not read: boxes.tar.gz" in source.notes
    source = open_source(write(tmp_path / "b", {"src.tar": {"main.c": b"int"}, "cat/1.jpg": X, "dog/1.jpg": Y}))
    assert (source.kind, class_names(source)) == ("image-folder", ["cat", "dog"])


def test_the_innermost_wnid_on_the_way_to_an_image_is_its_class(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, {"any.tar": folders(f"a/{DOG}/more", f"{FISH}/x/{FISH}", TENCH)}))
    assert bytes_of(source, "train") == [(TENCH, "2.jpg", Z), (FISH, "1.jpg", Y), (DOG, "more/0.jpg", X)]
