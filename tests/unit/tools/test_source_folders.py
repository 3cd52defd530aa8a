"""Class tars and plain image folders: recognised by what is in them, with names of any kind."""

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.convert.sources import open_source
from alexnet.tools.samples.layouts import write_class_tars, write_files
from alexnet.tools.samples.official import tar_of

Picture = Callable[..., bytes]
NAMES = ("straße", "dots.in.it", "white space", "n00000001", "Ünïcödé 猫")


@pytest.fixture
def classes(picture: Picture) -> dict[str, dict[str, bytes]]:
    return {name: {f"{i}.{k}.jpg": picture(10 * k + i) for i in range(3)} for k, name in enumerate(NAMES)}


def test_class_tars_are_found_with_their_labels(classes: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    write_class_tars(tmp_path, classes)
    write_files(tmp_path, {"words.txt": b"n00000001\ttench, Tinca tinca\nn00000002\tnot here\n", "notes.md": b""})
    source = open_source(tmp_path)
    assert source.description == "class tars, 5 classes, 15 train and 0 val entries"
    assert [c.wnid for c in source.classes] == sorted(NAMES)
    assert {c.wnid: c.words for c in source.classes}["n00000001"] == "tench, Tinca tinca"
    for m in source.members["train"]:
        data = (tmp_path / m.file).read_bytes()[m.offset : m.offset + m.length]
        assert data == classes[source.classes[m.label].wnid][m.name]
    assert len(source.members["val"]) == 0


def test_a_tar_of_class_tars_is_read_in_place(classes: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    write_class_tars(tmp_path / "loose", classes)
    packed = tar_of({f"fall/{name}.tar": tar_of(files) for name, files in classes.items()})
    write_files(tmp_path / "packed", {"fall11_whole.tar": packed})
    loose, whole = open_source(tmp_path / "loose"), open_source(tmp_path / "packed")
    assert whole.digest() == loose.digest()
    for m in whole.members["train"]:
        assert packed[m.offset : m.offset + m.length] == classes[whole.classes[m.label].wnid][m.name]


def test_hostile_names_are_only_names(tmp_path: Path, picture: Picture) -> None:
    names = ["../../etc/passwd", "/etc/shadow", "a/../../b.jpg", "n\n\x1b[31m.jpg", "x" * 300]
    write_class_tars(tmp_path / "root", {"n00000001": {name: picture(i) for i, name in enumerate(names)}})
    before = sorted(tmp_path.rglob("*"))
    source = open_source(tmp_path / "root")
    assert {m.name for m in source.members["train"]} == set(names)
    assert {m.file for m in source.members["train"]} == {"n00000001.tar"}
    assert sorted(tmp_path.rglob("*")) == before


def test_names_that_are_no_utf_8_can_be_read_and_printed(tmp_path: Path, picture: Picture) -> None:
    folder = tmp_path / "caf\udce9"
    write_files(folder, {"\udcff.jpg": picture(1)})
    write_files(tmp_path / "other", {"1.jpg": picture(2)})
    source = open_source(tmp_path)
    assert [c.wnid for c in source.classes] == ["caf\\xe9", "other"]
    assert (tmp_path / source.members["train"][0].file).read_bytes() == picture(1)
    source.digest()


def test_webdataset_shards_are_not_taken_for_class_tars(tmp_path: Path, picture: Picture) -> None:
    write_files(tmp_path, {"000000.tar": tar_of({"0.jpg": picture(1), "0.cls": b"1"})})
    with pytest.raises(InputError, match="is a WebDataset shard"):
        open_source(tmp_path)


def test_a_damaged_class_tar_is_named(classes: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    write_class_tars(tmp_path, classes)
    path = tmp_path / "n00000001.tar"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"n00000001\.tar"):
        open_source(tmp_path)


def test_class_tars_beside_something_else_are_named(tmp_path: Path) -> None:
    write_files(tmp_path, {"whole.tar": tar_of({"n1.tar": tar_of({"1.jpg": b"x"}), "README": b"x"})})
    with pytest.raises(InputError, match="holds tars and README, which is none"):
        open_source(tmp_path)


def test_links_in_class_tars_are_counted(tmp_path: Path, picture: Picture) -> None:
    write_class_tars(tmp_path, {"n00000001": {"1.jpg": picture(1)}})
    with tarfile.open(tmp_path / "n00000001.tar", "a") as tar:
        link = tarfile.TarInfo("2.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "../../1.jpg"
        tar.addfile(link)
    source = open_source(tmp_path)
    assert (len(source.members["train"]), source.ignored) == (1, 1)


def test_any_folder_of_class_folders_is_a_source(classes: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    for name, files in classes.items():
        write_files(tmp_path / name, files)
    write_files(tmp_path / "n00000001" / "deeper.dir", {"no_extension": b"GIF89a"})
    source = open_source(tmp_path)
    assert source.kind == "image-folder"
    assert source.label_order == "place of the folder's name in sorted order"
    assert [c.wnid for c in source.classes] == sorted(NAMES)
    assert len(source.members["train"]) == 16
    for m in source.members["train"]:
        data = (tmp_path / m.file).read_bytes()
        assert len(data) == m.length
        assert data == classes[source.classes[m.label].wnid].get(m.name, b"GIF89a")
    assert "deeper.dir/no_extension" in {m.name for m in source.members["train"]}


@pytest.mark.parametrize("val", ["val", "validation", "test"])
def test_train_and_val_folders_are_splits(tmp_path: Path, picture: Picture, val: str) -> None:
    for split, count in (("train", 3), (val, 2)):
        for k, name in enumerate(("cat", "dog")):
            write_files(tmp_path / split / name, {f"{name}{i}.png": picture(i + k, 8, 8, "PNG") for i in range(count)})
    source = open_source(tmp_path)
    assert [(m.name, m.label) for m in source.members["val"]] == [
        ("cat0.png", 0), ("cat1.png", 0), ("dog0.png", 1), ("dog1.png", 1),
    ]  # fmt: skip
    assert len(source.members["train"]) == 6
    assert f"validation images are read from {val}" in source.notes


def test_a_class_may_be_called_train(tmp_path: Path, picture: Picture) -> None:
    for name in ("train", "car"):
        write_files(tmp_path / name, {"1.jpg": picture(1)})
    source = open_source(tmp_path)
    assert [c.wnid for c in source.classes] == ["car", "train"]
    assert "taken for classes: train" in source.notes


def test_a_train_folder_that_was_not_unpacked_to_the_end_is_refused(tmp_path: Path, picture: Picture) -> None:
    """Unpacking the training archive gives 1,000 class tars: many stop there, or half-way to folders."""
    pictures = {f"{i}.JPEG": picture(i) for i in range(2)}
    write_class_tars(tmp_path / "train", {f"n0000000{k}": pictures for k in range(3)})
    write_files(tmp_path / "val", pictures)
    with pytest.raises(InputError, match=r"not unpacked, n00000000\.tar the first of 3; .* or give .*/train its"):
        open_source(tmp_path)
    assert len(open_source(tmp_path / "train").classes) == 3
    write_files(tmp_path / "train" / "n00000000", pictures)
    shutil.rmtree(tmp_path / "val")
    with pytest.raises(InputError, match=r"train: .*, n00000001\.tar the first of 2; unpack each into .* name$"):
        open_source(tmp_path)
    (tmp_path / "train" / "n00000000.tar").unlink()
    with pytest.raises(InputError, match="class tars, and folders of other classes, n00000000 the first of 1; unpack"):
        open_source(tmp_path / "train")
    for k in (1, 2):  # tars that are kept beside their folders do no harm
        write_files(tmp_path / "train" / f"n0000000{k}", pictures)
    source = open_source(tmp_path)
    assert (len(source.classes), len(source.members["train"]), source.ignored) == (3, 6, 0)
    assert "2 files lie beside the class folders of train and without a class, so not read" in " ".join(source.notes)


def test_classes_that_lie_deeper_are_not_taken_for_one(tmp_path: Path, picture: Picture) -> None:
    for name in ("cat", "dog"):
        write_files(tmp_path / "photos" / name, {"1.jpg": picture(1)})
    with pytest.raises(InputError, match=r"only photos holds images, in folders of its own: give .*/photos;"):
        open_source(tmp_path)
    assert len(open_source(tmp_path / "photos").classes) == 2


def test_unlabelled_validation_images_are_refused(tmp_path: Path, picture: Picture) -> None:
    write_files(tmp_path / "train" / "cat", {"1.jpg": picture(1)})
    write_files(tmp_path / "val", {"1.jpg": picture(2)})
    with pytest.raises(InputError, match="val: its images have no labels; sort them into class folders"):
        open_source(tmp_path)


def test_an_unlabelled_test_set_is_passed_over(tmp_path: Path, picture: Picture) -> None:
    write_files(tmp_path / "train" / "cat", {"1.jpg": picture(1)})
    write_files(tmp_path / "test", {"1.jpg": picture(2)})
    source = open_source(tmp_path)
    assert len(source.members["val"]) == 0
    assert "not read: test" in source.notes


def test_the_train_folder_alone_points_to_its_neighbour(tmp_path: Path, picture: Picture) -> None:
    for split in ("train", "val"):
        write_files(tmp_path / split / "cat", {"1.jpg": picture(1)})
    assert f"no validation images: give {tmp_path} to have those of val, too" in open_source(tmp_path / "train").notes


def test_what_is_no_source_is_described_with_what_would_be(tmp_path: Path) -> None:
    write_files(tmp_path / "src", {"main.c": b"int main"})
    write_files(tmp_path, {"winter21_whole.tar.gz": b"\x1f\x8b", "thesis.tex": b"years of work"})
    with pytest.raises(InputError) as refusal:
        open_source(tmp_path)
    text = str(refusal.value)
    assert "1 folder (src) and 2 files (thesis.tex, winter21_whole.tar.gz)" in text
    assert "gunzip it first" in text
    for layout in ("ILSVRC2012_img_train.tar", "CLS-LOC", "class tars", "sub-folder", "cifar-10", "train-images-idx3"):
        assert layout in text
    assert "\n" not in text


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no known layout; found nothing"):
        open_source(tmp_path)


def test_a_finished_data_set_is_no_source(ci_100: Path) -> None:
    with pytest.raises(InputError, match="is a data set of alexnet-prep already"):
        open_source(ci_100)
