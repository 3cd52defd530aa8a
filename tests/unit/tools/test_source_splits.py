"""Folders of splits and folders of classes are never mixed up: read right, or refused with the command that works."""

import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.convert.sources import find_layout, open_source
from alexnet.tools.convert.sources.folders import is_junk
from alexnet.tools.convert.sources.names import split_names
from alexnet.tools.samples.layouts import write_files

Picture = Callable[..., bytes]
CLASSES = ("cats", "dogs")


def write_classes(folders: Iterable[Path], picture: Picture, classes: Iterable[str] = CLASSES) -> None:
    """Write two pictures a class into each folder, no two of one name: the name says what a picture is."""
    for folder in folders:
        for name in classes:
            files = {f"{folder.name}-{name}-{i}.png": picture(i, 8, 8, "PNG") for i in range(2)}
            write_files(folder / name, files)


def found(root: Path, train: tuple[str, ...] = (), val: tuple[str, ...] = ()) -> dict[str, dict[str, str]]:
    """Return the class of each picture by its name, of each split."""
    source = open_source(root, layout=find_layout(root, train, val))
    return {
        split: {Path(m.name).name: source.classes[m.label].wnid for m in members}
        for split, members in source.members.items()
    }


def expected(*folders: str) -> dict[str, str]:
    return {f"{folder}-{name}-{i}.png": name for folder in folders for name in CLASSES for i in range(2)}


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("Train", "Val"),
        ("TRAIN", "VAL"),
        ("training", "validation"),
        ("training_set", "validation_set"),
        ("TrainSet", "ValidSet"),
        ("trainset", "valset"),
        ("train_images", "val_images"),
        ("images-train", "images-val"),
        ("train2017", "val2017"),
        ("seg_train/seg_train", "seg_val/seg_val"),
        ("imagenette2-train", "imagenette2-val"),
        ("train/ILSVRC2012_img_train", "val/ILSVRC2012_img_val"),
        ("train", "Valid"),
        ("train", "test"),
    ],
)
def test_splits_are_told_by_their_names(tmp_path: Path, picture: Picture, train: str, val: str) -> None:
    write_classes([tmp_path / train, tmp_path / val], picture)
    assert found(tmp_path) == {"train": expected(Path(train).name), "val": expected(Path(val).name)}
    assert f"validation images are read from {Path(val).name}" in open_source(tmp_path).notes


def test_numbered_parts_of_a_split_are_read_together(tmp_path: Path, picture: Picture) -> None:
    """As in the 100-class subset of ImageNet that is split by disk."""
    write_classes([tmp_path / "train.X1"], picture, ["cats"])
    write_classes([tmp_path / "train.X2"], picture, ["dogs"])
    write_classes([tmp_path / "val.X"], picture)
    write_files(tmp_path, {"Labels.json": b"{}"})
    read = found(tmp_path)
    assert read["val"] == expected("val.X")
    assert read["train"] == {
        f"train.X{k}-{name}-{i}.png": name for k, name in ((1, "cats"), (2, "dogs")) for i in (0, 1)
    }
    assert "training images are read from train.X1, train.X2" in open_source(tmp_path).notes


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("training_set", "test_set"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("TRAIN", "Testing"),
    ],
)
def test_a_test_set_is_no_validation_set_unless_the_user_says_so(
    tmp_path: Path, picture: Picture, train: str, test: str
) -> None:
    write_classes([tmp_path / train, tmp_path / test], picture)
    with pytest.raises(InputError) as refusal:
        open_source(tmp_path)
    command = f"alexnet-prep shard {tmp_path} --train {train} --val {test}"
    assert command in str(refusal.value)
    splits = {"train": expected(Path(train).name), "val": expected(Path(test).name)}
    assert found(tmp_path, (train,), (test,)) == splits
    assert found(tmp_path, (str(tmp_path / train),))["val"] == {}


def test_an_unread_test_set_beside_val_is_mentioned(tmp_path: Path, picture: Picture) -> None:
    write_classes([tmp_path / name for name in ("train", "val", "test")], picture)
    assert found(tmp_path) == {"train": expected("train"), "val": expected("val")}
    assert "not read: test" in open_source(tmp_path).notes


def test_several_sets_that_could_be_meant_are_named(tmp_path: Path, picture: Picture) -> None:
    write_classes([tmp_path / name for name in ("train_images", "training", "val")], picture)
    write_classes([tmp_path / "letters" / name for name in ("train_a", "train_b")], picture)
    with pytest.raises(InputError, match=r"train_a, train_b may each be the split that is meant"):
        open_source(tmp_path / "letters")
    with pytest.raises(InputError, match=r"train_images, training may each be .*--train train_images --val DIR"):
        open_source(tmp_path)
    write_classes([tmp_path / "train"], picture)
    assert found(tmp_path) == {"train": expected("train"), "val": expected("val")}


@pytest.mark.parametrize(
    "folders", [("train", "test1"), ("Train", "Val", "Test"), ("trainA", "testA", "trainB", "testB")]
)
def test_splits_of_loose_images_are_no_classes(tmp_path: Path, picture: Picture, folders: tuple[str, ...]) -> None:
    """Cats against dogs has `train/cat.0.jpg` beside `test1/1.jpg`."""
    for name in folders:
        write_files(tmp_path / name, {"cat.0.jpg": picture(1), "dog.0.jpg": picture(2)})
    with pytest.raises(InputError, match=r"not taken for classes: .* sort them into train/CLASS"):
        open_source(tmp_path)


def test_splits_with_names_of_their_own_are_refused_with_both_commands(tmp_path: Path, picture: Picture) -> None:
    write_classes([tmp_path / "lernen", tmp_path / "prüfen"], picture)
    write_files(tmp_path / "lernen", {"labels.csv": b"a,b"})
    with pytest.raises(InputError) as refusal:
        open_source(tmp_path)
    text = str(refusal.value)
    assert "no images of their own and sub-folders of the same names (cats, dogs)" in text
    assert shlex.join(["alexnet-prep", "shard", str(tmp_path), "--train", "lernen", "--val", "prüfen"]) in text
    assert found(tmp_path, ("lernen",), ("prüfen",)) == {"train": expected("lernen"), "val": expected("prüfen")}
    assert set(found(tmp_path, (".",))["train"].values()) == {"lernen", "prüfen"}


@pytest.mark.parametrize("shape", ["cats/train", "cats/dogs", "test/cats", "data/train", "test"])
def test_splits_hidden_among_classes_are_refused(tmp_path: Path, picture: Picture, shape: str) -> None:
    write_classes([tmp_path], picture)
    if shape == "cats/train":
        write_classes([tmp_path / "cats", tmp_path / "dogs"], picture, ["train", "test"])
    elif shape == "data/train":
        write_classes([tmp_path / "data" / "train", tmp_path / "data" / "val"], picture)
    elif shape == "test":
        write_files(tmp_path / "test", {"1.jpg": picture(1)})
    else:
        write_classes([tmp_path / shape.split("/")[0]], picture)
        if shape == "cats/dogs":
            write_files(tmp_path / "cats" / "dogs", {"1.jpg": picture(1)})
    with pytest.raises(InputError, match="--train"):
        open_source(tmp_path)
    assert found(tmp_path, (".",))["train"]


@pytest.mark.parametrize(
    "classes",
    [
        ("bus", "car", "train"),
        ("bullet_train", "steam train", "test_tube", "valve"),
        ("valid", "invalid"),
        ("mask", "no mask"),
        ("images", "drawings"),
        ("train_station", "testes", "trainers"),
        ("n01440764", "validation stamp"),
    ],
)
def test_classes_with_such_names_stay_classes(tmp_path: Path, picture: Picture, classes: tuple[str, ...]) -> None:
    write_classes([tmp_path], picture, classes)
    assert sorted(set(found(tmp_path)["train"].values())) == sorted(classes)


def test_a_folder_around_the_classes_is_no_class(tmp_path: Path, picture: Picture) -> None:
    """As in sets of birds and of food: `images/CLASS/` beside tables, or beside masks."""
    write_classes([tmp_path / "a" / "birds"], picture)
    write_files(tmp_path / "a" / "meta", {"classes.txt": b"cats", "train.json": b"{}"})
    with pytest.raises(
        InputError, match=r"of its folders only birds holds images, in folders of its own: give .*/birds;"
    ):
        open_source(tmp_path / "a")
    for name in ("images", "annotations"):
        write_files(tmp_path / "b" / name, {f"{name}.jpg": picture(1)})
    with pytest.raises(InputError, match="not taken for classes: annotations, images, which name none"):
        open_source(tmp_path / "b")
    assert set(found(tmp_path / "b", (".",))["train"].values()) == {"images", "annotations"}


def test_one_folder_below_each_class_is_part_of_it(tmp_path: Path, picture: Picture) -> None:
    for name in CLASSES:
        write_classes([tmp_path / name], picture, ["images"])
    assert set(found(tmp_path)["train"].values()) == set(CLASSES)


def test_several_folders_below_each_class_may_be_the_classes(tmp_path: Path, picture: Picture) -> None:
    for name in CLASSES:
        write_classes([tmp_path / name], picture, ["front", "side"])
    with pytest.raises(InputError, match=r"if they are splits: .* to take each folder of .* --train \."):
        open_source(tmp_path)
    assert set(found(tmp_path, (".",))["train"].values()) == set(CLASSES)
    write_files(tmp_path / "birds", {"birds.jpg": picture(1)})  # a class with images of its own: so the others are, too
    assert set(found(tmp_path)["train"].values()) == {"birds", *CLASSES}
    assert "each class is taken with all folders below it: cats with front, side" in open_source(tmp_path).notes


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (("nowhere",), (), "--train nowhere: there is no folder .*; give it as a path from"),
        ((), ("b",), "--val b: say where the training images are, too"),
        (("a/cats",), (), "--train a/cats: holds no class folders"),
        (("a",), ("a",), "--train a: .* lies inside it and would be read twice"),
        ((".",), ("b",), r"--train \.: .*b lies inside it"),
        (("..",), (), r"--train \.\.: lies outside of"),
    ],
)
def test_folders_that_cannot_be_meant_are_refused(
    tmp_path: Path, picture: Picture, train: tuple[str, ...], val: tuple[str, ...], message: str
) -> None:
    write_classes([tmp_path / "root" / "a", tmp_path / "root" / "b"], picture)
    with pytest.raises(InputError, match=message):
        find_layout(tmp_path / "root", train, val)


def test_which_folder_is_which_split_is_part_of_a_kept_index(tmp_path: Path, picture: Picture) -> None:
    write_classes([tmp_path / "root" / "a", tmp_path / "root" / "b"], picture)
    for train, val in ((("a", "b"), ()), (("a",), ("b",))):
        layout = find_layout(tmp_path / "root", train, val)
        source = open_source(tmp_path / "root", tmp_path / "index", layout=layout)
        assert len(source.members["val"]) == 4 * len(val)


def test_the_command_for_classes_keeps_the_validation_set(tmp_path: Path, picture: Picture) -> None:
    write_classes([tmp_path / name for name in ("train", "val")], picture, [*CLASSES, "test"])
    with pytest.raises(InputError, match=rf"for a class: alexnet-prep shard {tmp_path} --train train --val val"):
        open_source(tmp_path)
    assert set(found(tmp_path, ("train",), ("val",))["val"].values()) == {*CLASSES, "test"}


def test_a_class_that_only_validation_has_is_refused(tmp_path: Path, picture: Picture) -> None:
    write_classes([tmp_path / "Training"], picture)
    write_classes([tmp_path / "Validation"], picture, [*CLASSES, "birds"])
    with pytest.raises(InputError, match="Validation: birds is none of the 2 classes"):
        open_source(tmp_path)


def test_names_say_less_alone_than_side_by_side() -> None:
    assert split_names(["seg_train", "seg_test", "seg_pred"]) == {"seg_train": "train", "seg_test": "test"}
    assert split_names(["bullet_train", "test_tube", "train"]) == {"train": "train"}
    assert split_names(["Food11-training", "Food11-validation", "Food11-evaluation"]) == {
        "Food11-training": "train", "Food11-validation": "val", "Food11-evaluation": "test",
    }  # fmt: skip


LEFT_BEHIND = [
    "1.jpg:Zone.Identifier",
    "1.jpg\uf03aZone.Identifier",
    ".DS_Store",
    "._1.jpg",
    "Thumbs.db",
    "~$list.docx",
]
LEFT_FOLDERS = [
    "@eaDir",
    "$RECYCLE.BIN",
    "lost+found",
    "System Volume Information",
    "__MACOSX",
    "#recycle",
    ".Trash-1000",
]


def test_what_other_systems_leave_behind_is_no_class_and_no_image(tmp_path: Path, picture: Picture) -> None:
    write_classes([tmp_path / "train", tmp_path / "val"], picture)
    clean = open_source(tmp_path)
    for folder in (tmp_path, tmp_path / "train", tmp_path / "val" / "dogs"):
        write_files(folder, dict.fromkeys(LEFT_BEHIND, b"junk"))
        for name in LEFT_FOLDERS:
            write_files(folder / name, {"1.jpg": picture(1)})
    source = open_source(tmp_path)
    assert source.digest() == clean.digest()
    assert source.ignored == 2 * (len(LEFT_BEHIND) + len(LEFT_FOLDERS))


@pytest.mark.parametrize(
    "name", ["Icon.png", "recycler", "@home", "thumbs.db.jpg", "lost and found", "zone.identifier.jpg"]
)
def test_names_that_only_look_like_junk_are_read(name: str) -> None:
    assert not is_junk(name)


def test_loose_pictures_beside_class_folders_are_named_for_what_they_are(tmp_path: Path, picture: Picture) -> None:
    write_classes([tmp_path], picture)
    write_files(tmp_path, {f"{i}.jpg": picture(i) for i in range(3)})
    source = open_source(tmp_path)
    where = f"beside the class folders of {tmp_path.name} and without a class, so not read"
    assert f"3 files lie {where}: 0.jpg, 1.jpg, 2.jpg" in source.notes
    assert source.ignored == 0


def test_names_that_print_alike_are_refused_and_composed_letters_are_one_class(
    tmp_path: Path, picture: Picture
) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    write_classes([tmp_path / "a" / "train"], picture, ["bar", decomposed])  # unpacked on a Mac
    write_classes([tmp_path / "a" / "val"], picture, ["bar", composed])
    assert set(found(tmp_path / "a")["val"].values()) == {"bar", composed}
    for k, other in enumerate((decomposed, f"{composed} ", f"\u200b{composed}")):
        write_classes([tmp_path / f"b{k}"], picture, [composed, other])
        with pytest.raises(InputError, match=r"two classes are called 'café' as far as print shows: .*xe9'"):
            open_source(tmp_path / f"b{k}")


@pytest.mark.parametrize("copy", ["cats (1)", "cats (copy)", "cats - Copy", "cats copy 2"])
def test_a_copy_of_a_class_is_no_class(tmp_path: Path, picture: Picture, copy: str) -> None:
    write_classes([tmp_path], picture, [*CLASSES, copy])
    with pytest.raises(InputError, match="looks like a copy of the class beside it"):
        open_source(tmp_path)
    (tmp_path / "cats").rename(tmp_path / "lions")  # alone it is a name like others
    assert copy in {c.wnid for c in open_source(tmp_path).classes}


@pytest.mark.parametrize("link", ["kitty", "val", "train/kitty"])
def test_a_folder_that_is_there_twice_by_a_link_is_refused(tmp_path: Path, picture: Picture, link: str) -> None:
    write_classes([tmp_path if link == "kitty" else tmp_path / "train"], picture)
    to = tmp_path / "train" if link == "val" else (tmp_path / link).parent / "cats"
    (tmp_path / link).symlink_to(to, target_is_directory=True)
    with pytest.raises(InputError, match="by a link, and would be read twice"):
        open_source(tmp_path)


@pytest.mark.parametrize("inner", ["val", "test", "Validation"])
def test_a_held_out_set_inside_a_class_is_refused(tmp_path: Path, picture: Picture, inner: str) -> None:
    write_classes([tmp_path], picture)
    write_files(tmp_path / "cats" / inner, {"held-out.png": picture(1)})
    with pytest.raises(InputError, match=rf"cats: holds {inner}; put splits above classes"):
        open_source(tmp_path)


def test_every_folder_is_looked_at_for_splits_however_many_there_are(tmp_path: Path, picture: Picture) -> None:
    names = [f"c{k:02d}" for k in range(40)]
    for name in names:
        write_files(tmp_path / name, {f"{name}.png": picture(1)})
    write_classes([tmp_path / "c17h"], picture, names[:3])
    with pytest.raises(InputError, match=r"c17h: its folders \(c00, c01, c02\) are called like classes beside it"):
        open_source(tmp_path)


def test_domains_with_a_folder_around_their_classes_are_no_classes(tmp_path: Path, picture: Picture) -> None:
    write_classes([tmp_path / name / "images" for name in ("amazon", "dslr", "webcam")], picture)
    with pytest.raises(InputError, match=r"sub-folders of the same names \(cats, dogs\)"):
        open_source(tmp_path)


def test_a_lone_folder_of_images_is_no_class(tmp_path: Path, picture: Picture) -> None:
    for split in ("train", "valid"):
        write_files(tmp_path / split / "images", {"1.jpg": picture(1)})
        write_files(tmp_path / "labels" / split, {"1.txt": b"0"})
    with pytest.raises(InputError, match="not taken for classes: images"):
        open_source(tmp_path)


def test_folders_may_be_named_through_a_link_to_the_source(tmp_path: Path, picture: Picture) -> None:
    write_classes([tmp_path / "real" / "learn"], picture)
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    assert found(tmp_path / "link", (str(tmp_path / "real" / "learn"),))["train"] == expected("learn")
