"""Tars of splits, of parts and of everything: read where every label is certain, and refused where it is not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.sources import TRAIN_TAR, open_source
from alexnet.tools.samples.official import tar_of
from tests.conftest import encode_picture

FISH, DOG, TENCH = "n01443537", "n02084071", "n01440764"
PICTURES = [encode_picture(i) for i in range(12)]
X, Y, Z = PICTURES[:3]


def write(root: Path, files: Mapping[str, Any]) -> Path:
    """Write files by path; what is a mapping itself is packed into a tar of that name."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(_bytes(data))
    return root


def _bytes(data: Any) -> bytes:
    return data if isinstance(data, bytes) else tar_of({name: _bytes(below) for name, below in data.items()})


def seen(source: Source, split: str) -> list[tuple[str, str, bytes]]:
    """Return class, name and bytes of a split's images, in order."""
    return [
        (source.classes[m.label].wnid, m.name, (source.root / m.file).read_bytes()[m.offset : m.offset + m.length])
        for m in source.members[split]  # type: ignore[index]
    ]


def flat(*numbers: int, val: bool = False) -> dict[str, bytes]:
    """Return images whose names end in their WNID; every second one is a fish."""
    wnids = {i: (TENCH, FISH)[i % 2] for i in numbers}
    first = (f"ILSVRC2012_val_{i:08d}" if val else f"{wnid}_{i}" for i, wnid in wnids.items())
    return {f"{stem}_{wnids[i]}.JPEG": PICTURES[i] for stem, i in zip(first, numbers, strict=True)}


def folders(*names: str, first: int = 0) -> dict[str, bytes]:
    """Return an image in each of some folders."""
    return {f"{name}/{i}.jpg": PICTURES[i] for i, name in enumerate(names, start=first)}


TREES: dict[str, Any] = {
    "lone tar": {"any.tar": folders("cat", "dog")},
    "lone tar with a folder around": {"imagenette2.tar": folders("imagenette2/cat", "imagenette2/dog")},
    "packed from within": {"any.tar": folders("./cat", "./dog")},
    "a file beside the classes": {"any.tar": {"a/README.txt": b"read me", **folders("a/cat", "a/dog")}},
    "a folder without images": {"any.tar": {"docs/README.txt": b"read me", **folders("data/cat", "data/dog")}},
    "parts with a class each": {"part1.tar": folders("cat"), "part2.tar": folders("dog", first=1)},
    "parts called alike": {"zoo_part_1.tar": folders("cat"), "zoo_part_2.tar": folders("zoo/dog", first=1)},
    "a split in a tar": {"train.tar": folders("train/cat", "train/dog")},
    "class tars": {"cat.tar": {"0.jpg": X}, "dog.tar": {"1.jpg": Y}},
    "official under another name": {"mine.tar": {"cat.tar": {"0.jpg": X}, "dog.tar": {"1.jpg": Y}}},
}


@pytest.mark.parametrize("form", TREES)
def test_class_folders_in_tars_are_read_like_those_outside(tmp_path: Path, form: str) -> None:
    tree = open_source(write(tmp_path / "tree", folders("cat", "dog")))
    source = open_source(write(tmp_path / "tars", TREES[form]))
    assert seen(source, "train") == [("cat", "0.jpg", X), ("dog", "1.jpg", Y)]
    assert source.digest() == tree.digest()


def test_images_a_level_below_their_class_are_called_as_in_a_tree(tmp_path: Path) -> None:
    files = folders("cat/images", "dog/images")
    tree = open_source(write(tmp_path / "tree", files))
    assert open_source(write(tmp_path / "tars", {"any.tar": files})).digest() == tree.digest()


SPLITS: dict[str, Any] = {
    "two tars": {"train.tar": folders("cat", "dog"), "val.tar": folders("cat", first=2)},
    "usual names": {"Train_Set.tar": folders("cat", "dog"), "Validation_Set.tar": folders("val/cat", first=2)},
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


@pytest.mark.parametrize("form", SPLITS)
def test_splits_in_tars_are_never_classes(tmp_path: Path, form: str) -> None:
    source = open_source(write(tmp_path, SPLITS[form]))
    assert seen(source, "train") == [("cat", "0.jpg", X), ("dog", "1.jpg", Y)]
    assert seen(source, "val") == [("cat", "2.jpg", Z)]
    assert any("validation images" in note for note in source.notes)


@pytest.mark.parametrize("around", ["", "imagenet/"])
def test_labels_in_names_are_read_in_the_order_of_a_tree(tmp_path: Path, around: str) -> None:
    """As Hugging Face packs ImageNet: flat, each name ending in its WNID; and test images without any."""
    tars = {
        "train_images_0.tar": flat(0, 3),
        "train_images_1.tar": flat(1, 2),
        "val_images.tar": flat(4, 5, val=True),
        "test_images.tar": {"ILSVRC2012_test_00000001.JPEG": Z},
    }
    packed = {tar: {around + name: data for name, data in files.items()} for tar, files in tars.items()}
    source = open_source(write(tmp_path, packed))
    assert seen(source, "train") == [
        (TENCH, f"{TENCH}_0_{TENCH}.JPEG", PICTURES[0]),
        (TENCH, f"{TENCH}_2_{TENCH}.JPEG", PICTURES[2]),
        (FISH, f"{FISH}_1_{FISH}.JPEG", PICTURES[1]),
        (FISH, f"{FISH}_3_{FISH}.JPEG", PICTURES[3]),
    ]
    assert seen(source, "val") == [
        (TENCH, f"ILSVRC2012_val_00000004_{TENCH}.JPEG", PICTURES[4]),
        (FISH, f"ILSVRC2012_val_00000005_{FISH}.JPEG", PICTURES[5]),
    ]
    assert "1 thing is not read: test_images.tar (test images)" in source.notes


def test_names_as_in_the_training_archive_carry_labels_too(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, {"train.tar": {f"{FISH}_2.JPEG": X, f"{TENCH}_10.JPEG": Y, "LICENSE": b"x"}}))
    assert seen(source, "train") == [(TENCH, f"{TENCH}_10.JPEG", Y), (FISH, f"{FISH}_2.JPEG", X)]
    assert source.ignored == 1


def test_a_labelled_test_set_is_for_validation_only_where_there_is_no_other(tmp_path: Path) -> None:
    tars = {"train.tar": folders("cat", "dog"), "test.tar": folders("dog", first=2)}
    assert seen(open_source(write(tmp_path / "a", tars)), "val") == [("dog", "2.jpg", Z)]
    source = open_source(write(tmp_path / "b", {"all.tar": folders("train/cat", "train/dog", "val/cat", "test/cat")}))
    assert [m.name for m in source.members["val"]] == ["2.jpg"]
    assert "1 thing is not read: all.tar (test images)" in source.notes
    source = open_source(write(tmp_path / "c", {"train.tar": folders("cat", "dog"), "test.tar": {"1.jpg": Z}}))
    assert len(source.members["val"]) == 0
    assert "1 thing is not read: test.tar (1 test images)" in source.notes


CLASS_TARS: dict[str, Any] = {
    "flat": {"cat.tar": {"1.jpg": X}, "dog.tar": {"1.jpg": Y}},
    "the class's folder": {"cat.tar": {"cat/1.jpg": X}, "dog.tar": {"Dog/b/1.jpg": Y}},
    "images": {"cat.tar": {"images/1.jpg": X}, "dog.tar": {"JPEGImages/1.jpg": Y}},
    "one folder in all": {"cat.tar": {"export/1.jpg": X}, "dog.tar": {"export/1.jpg": Y}},
    "folders beside images": {"cat.tar": {"1.jpg": X, "more/2.jpg": Z}, "dog.tar": {"1.jpg": Y}},
    "a class called like a split": {"train.tar": {"1.jpg": X}, "bus.tar": {"1.jpg": Y}, "car.tar": {"1.jpg": Z}},
    "split words in names": {"bullet_train.tar": {"1.jpg": X}, "test_tube.tar": {"1.jpg": Y}},
    "numbers": {"0.tar": {"1.jpg": X}, "1.tar": {"1.jpg": Y}},
    "numbered persons": {"s1.tar": {"1.jpg": X}, "s2.tar": {"1.jpg": Y}},
    "a superclass": {"dog.tar": {"n02085620_1.jpg": X, "n02085782_2.jpg": Y}, "cat.tar": {"n02123045_1.jpg": Z}},
    "a superclass's WNID": {f"{DOG}.tar": {"n02085620_1.jpg": X}, f"{FISH}.tar": {"sub/1.jpg": Y}},
    "one WNID": {f"{DOG}.tar": {"a/1.jpg": X, "b/2.jpg": Y}},
}


@pytest.mark.parametrize("form", CLASS_TARS)
def test_class_tars_packed_in_any_way_are_classes(tmp_path: Path, form: str) -> None:
    source = open_source(write(tmp_path, CLASS_TARS[form]))
    expected = {(name[:-4], data) for name, files in CLASS_TARS[form].items() for data in files.values()}
    assert {(wnid, data) for wnid, _, data in seen(source, "train")} == expected
    assert source.kind == "class-tars"


REFUSED: dict[str, tuple[Any, str]] = {
    "a lone flat tar": ({"images.tar": {"1.jpg": X}}, r"'1\.jpg' has no label: it lies in no class folder"),
    "with its own folder": ({"images.tar": {"images/1.jpg": X}}, "has no label"),
    "one class": ({"zoo.tar": {"zoo/1.jpg": X}}, "one class only, 'zoo'"),
    "flat splits": ({"train.tar": {"1.jpg": X}, "val.tar": {"2.jpg": Y}}, r"train\.tar: '1\.jpg' has no label"),
    "flat parts": ({"part1.tar": {"1.jpg": X}, "part2.tar": {"2.jpg": Y}}, r"part1\.tar: '1\.jpg' has no label"),
    "the official ones renamed": (
        {"train.tar": {f"{TENCH}.tar": {"1.jpg": X}}, "val.tar": {"ILSVRC2012_val_00000001.JPEG": Y}},
        f"call it ILSVRC2012_img_val.tar, that for training {TRAIN_TAR}",
    ),
    "one name without a label": ({"train.tar": {f"{TENCH}_1.JPEG": X, "2.jpg": Y}}, r"'2\.jpg' has no label"),
    "flat val in a tar": (
        {"a.tar": {**folders("train/cat", "train/dog"), "val/1.jpg": Z}},
        r"'val/1\.jpg' has no label",
    ),
    "another class's WNID": ({f"{TENCH}.tar": {f"{FISH}/1.jpg": X}}, f"holds a folder {FISH}, .* says class {TENCH}"),
    "another class's name": ({"cat.tar": {"dog/1.jpg": X}, "dog.tar": {"1.jpg": Y}}, "of other names than its own"),
    "sets of classes": (
        {"pets.tar": folders("cat", "dog"), "farm.tar": folders("cow", "pig", first=2)},
        r"such as 'cat'; if what is in the tars says the classes, call them train_1\.tar",
    ),
    "a README at the top is no image": (
        {"a.tar": {"README": b"x", **folders("cat", "dog")}, "b.tar": folders("cow", first=2)},
        "of other names than its own",
    ),
    "labels that tars contradict": ({"a.tar": flat(0, 1), "b.tar": flat(2, 3)}, "says class a, and .* in it n0144"),
    "WNIDs that repeat": (
        {"a.tar": {f"{TENCH}_1.JPEG": X}, "b.tar": {f"{TENCH}_2.JPEG": Y}},
        f"says class b, and .* in it {TENCH}",
    ),
    "classes on two levels": ({"a.tar": folders("pets/cat", "farm/cow")}, "several levels of folders"),
    "images around classes": ({"a.tar": {"1.jpg": X, **folders("cat", "dog", first=1)}}, "several levels of folders"),
    "two WNIDs": ({"a.tar": folders(f"{DOG}/{TENCH}", FISH)}, "names two classes"),
    "no split beside splits": (
        {"train.tar": folders("cat", "dog"), "val.tar": folders("cat"), "extra.tar": folders("dog")},
        r"extra\.tar is neither training nor validation",
    ),
    "a split in another": (
        {"train.tar": folders("val/cat", "val/dog"), "val.tar": folders("cat", first=2)},
        "its name says train, and a folder in it val",
    ),
    "no training images": ({"val.tar": folders("cat", "dog")}, "no training images"),
    "a class of val only": ({"train.tar": folders("cat", "dog"), "val.tar": folders("cow")}, "cow, which is none"),
    "the same tar twice": (
        {"train.tar": folders("cat", "dog"), "train (1).tar": folders("cat", "dog")},
        "hold the same image, '0.jpg'",
    ),
    "a test set among class tars": (
        {"cat.tar": {"1.jpg": X}, "dog.tar": {"1.jpg": Y}, "test.tar": {"1.jpg": Z}},
        "not taken for a class: 'test'",
    ),
    "a test set among class folders": ({"zoo.tar": folders("cat", "dog", "test")}, "not taken for a class: 'test'"),
    "images and masks": ({"zoo.tar": folders("images", "masks")}, "not taken for a class: 'images'"),
    "images and masks apart": ({"images.tar": {"1.jpg": X}, "masks.tar": {"1.jpg": Y}}, "not taken for a class"),
    "tars beside folders": ({"old.tar": folders("cat", "dog"), "cat/1.jpg": X, "dog/1.jpg": Y}, "in none of them"),
    "half gunzipped": (
        {"train_0.tar": folders("cat", "dog"), "train_1.tar.gz": b"\x1f\x8b"},
        r"train_1\.tar\.gz: is gzipped .* gunzip it first: gunzip .*; there are 1 tars beside it",
    ),
    "a class gzipped": ({f"{TENCH}.tar": {"1.jpg": X}, f"{FISH}.tar.gz": b"\x1f\x8b"}, "is gzipped"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_may_be_wrong_is_refused_in_one_line(tmp_path: Path, form: str) -> None:
    tars, said = REFUSED[form]
    with pytest.raises(InputError, match=said) as refusal:
        open_source(write(tmp_path, tars))
    assert "\n" not in str(refusal.value)


def test_parts_that_count_anew_keep_their_images(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, {"part1.tar": folders("cat", "dog"), "part2.tar": {"cat/0.jpg": Z}}))
    assert sorted(seen(source, "train")) == sorted([("cat", "0.jpg", X), ("cat", "0.jpg", Z), ("dog", "1.jpg", Y)])


def test_tars_kept_beside_their_folders_and_archives_of_other_things_do_no_harm(tmp_path: Path) -> None:
    files = {"cat.tar": {"1.jpg": X}, "dog.tar": {"1.jpg": Y}, "cat/1.jpg": X, "dog/1.jpg": Y}
    source = open_source(write(tmp_path / "a", {**files, "boxes.tar.gz": b"\x1f\x8b"}))
    assert seen(source, "train") == [("cat", "1.jpg", X), ("dog", "1.jpg", Y)]
    assert "1 thing is not read: boxes.tar.gz" in source.notes
    source = open_source(write(tmp_path / "b", {"src.tar": {"main.c": b"int"}, "cat/1.jpg": X, "dog/1.jpg": Y}))
    assert source.kind == "image-folder"
