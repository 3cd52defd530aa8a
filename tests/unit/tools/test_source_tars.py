"""Tars of every packing: each image gets its true label and split, or the tar is refused.

In all of them a picture's bytes say what it is, so that labels are compared with the truth and not with names.
"""

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.sources import open_source
from alexnet.tools.samples.layouts import write_files
from alexnet.tools.samples.official import Files, tar_of
from tests.conftest import encode_picture

A, B = "n01440764", "n01443537"
PICTURES = {
    (split, wnid, i): encode_picture(hash_of, 8, 8, "PNG")
    for hash_of, (split, wnid, i) in enumerate(
        (s, w, i) for s in ("train", "val", "test") for w in (A, B) for i in range(3)
    )
}
TRUTH = {data: key for key, data in PICTURES.items()}


def of(split: str, name: Callable[[str, int], str]) -> dict[str, bytes]:
    """Return the pictures of a split under names made of class and number."""
    return {name(wnid, i): data for (s, wnid, i), data in PICTURES.items() if s == split}


def in_folder(wnid: str, i: int) -> str:
    return f"{wnid}/{i}.JPEG"


def with_label(wnid: str, i: int) -> str:
    return f"{wnid}_{i}_{wnid}.JPEG"


def prefixed(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def read(source: Source, *splits: str, classes: Mapping[str, str] | None = None) -> None:
    """Require that the source holds all pictures of these splits, with their classes, and no other."""
    wanted = splits or ("train", "val")
    found = {}
    for split, members in source.members.items():
        for m in members:
            data = (source.root / m.file).read_bytes()[m.offset : m.offset + m.length]
            wnid = source.classes[m.label].wnid
            found[data] = (split, (classes or {}).get(wnid, wnid))
    truth = {data: (split, wnid) for data, (split, wnid, _) in TRUTH.items() if split in wanted}
    assert found == truth
    for split in ("train", "val"):
        rows = [(m.label if split == "train" else 0, Path(m.name).name) for m in source.members[split]]
        assert rows == sorted(rows)


PACKINGS: dict[str, Files] = {
    "labels in names": {
        "train_images_0.tar": tar_of(dict(list(of("train", with_label).items())[:2])),
        "train_images_1.tar": tar_of(dict(list(of("train", with_label).items())[2:])),
        "val_images.tar": tar_of(of("val", lambda wnid, i: f"ILSVRC2012_val_0000000{i}_{wnid}.JPEG")),
        "test_images.tar": tar_of({f"ILSVRC2012_test_{i}.JPEG": b"GIF89a" for i in range(3)}),
    },
    "class folders in one tar of both splits": {
        "imagenette2.tar": tar_of(
            prefixed("imagenette2/train", of("train", in_folder)) | prefixed("imagenette2/val", of("val", in_folder))
        ),
    },
    "class folders in a tar a split": {
        "train.tar": tar_of(of("train", in_folder)),
        "val.tar": tar_of(prefixed("./val", of("val", in_folder))),
    },
    "class tars in folders of splits": {
        f"{split}/{wnid}.tar": tar_of({f"{i}.JPEG": PICTURES[split, wnid, i] for i in range(3)})
        for split in ("train", "val")
        for wnid in (A, B)
    },
    "class tars in a tar a split": {
        f"{split}.tar": tar_of(
            {f"{wnid}.tar": tar_of({f"{i}.JPEG": PICTURES[split, wnid, i] for i in range(3)}) for wnid in (A, B)}
        )
        for split in ("train", "val")
    },
    "tars of splits in one tar": {
        "all.tar": tar_of({"train.tar": tar_of(of("train", in_folder)), "val.tar": tar_of(of("val", in_folder))}),
    },
}


def write(root: Path, files: Files) -> None:
    for name, data in files.items():
        write_files((root / name).parent, {Path(name).name: data})


@pytest.mark.parametrize("packing", PACKINGS)
def test_labels_and_splits_are_those_of_the_pictures(tmp_path: Path, packing: str) -> None:
    write(tmp_path, PACKINGS[packing])
    source = open_source(tmp_path)
    read(source)
    if packing == "labels in names":
        assert any("test_images.tar" in note and "not read" in note for note in source.notes)


TRAINING_ONLY: dict[str, Files] = {
    "the official archive under another name": {
        "download.tar": tar_of(
            {
                f"{wnid}.tar": tar_of({f"{wnid}_{i}.JPEG": PICTURES["train", wnid, i] for i in range(3)})
                for wnid in (A, B)
            }
        )
    },
    "class folders in one tar": {"data.tar": tar_of(of("train", in_folder))},
    "class folders below others": {"data.tar": tar_of(prefixed("a/b", of("train", in_folder)))},
    "class folders in numbered parts": {
        f"part{i}.tar": tar_of({f"{wnid}/{i}.JPEG": PICTURES["train", wnid, i] for wnid in (A, B)}) for i in range(3)
    },
    "class tars with a folder of the class": {
        f"{wnid}.tar": tar_of({f"{wnid}/images/{i}.JPEG": PICTURES["train", wnid, i] for i in range(3)})
        for wnid in (A, B)
    },
    "class tars with a folder images": {
        f"{wnid}.tar": tar_of({f"./images/{i}.JPEG": PICTURES["train", wnid, i] for i in range(3)}) for wnid in (A, B)
    },
}


@pytest.mark.parametrize("packing", TRAINING_ONLY)
def test_training_images_alone_are_read_however_they_are_packed(tmp_path: Path, packing: str) -> None:
    write(tmp_path, TRAINING_ONLY[packing])
    source = open_source(tmp_path)
    read(source, "train")
    assert any(note.startswith("no validation images") for note in source.notes)


def test_classes_with_names_of_their_own_are_read_from_folders_in_a_tar(tmp_path: Path) -> None:
    words = {A: "a cat", B: "n dog"}
    files = of("train", lambda wnid, i: f"pets/{words[wnid]}/{i}.jpg")
    write(tmp_path, {"pets.tar": tar_of(files)})
    read(open_source(tmp_path), "train", classes={word: wnid for wnid, word in words.items()})


REFUSED: dict[str, tuple[Files, str]] = {
    "images without labels": ({"images.tar": tar_of(of("train", lambda w, i: f"{w[-1]}{i}.jpg"))}, "has no label"),
    "splits without labels": (
        {f"{split}.tar": tar_of(of(split, lambda w, i: f"{w[-1]}{i}.jpg")) for split in ("train", "val")},
        "has no label",
    ),
    "one image without a label": (
        {"train.tar": tar_of(of("train", with_label) | {"loose.jpg": PICTURES["test", A, 0]})},
        "'loose.jpg' has no label",
    ),
    "one class": ({"cats.tar": tar_of({"cats/1.jpg": PICTURES["train", A, 0]})}, "one class only"),
    "class folders in tars that look like classes": (
        {f"{name}.tar": tar_of(of("train", in_folder)) for name in ("red", "blue")},
        "its own name says class",
    ),
    "labels that contradict the tar": (
        {
            "cats.tar": tar_of({f"1_{A}.JPEG": PICTURES["train", A, 0]}),
            "dogs.tar": tar_of({"1.JPEG": PICTURES["train", B, 0]}),
        },
        f"its name says class cats, and .* {A}",
    ),
    "a split beside a class": (
        {"train.tar": tar_of(of("train", in_folder)), "cats.tar": tar_of({"1.jpg": PICTURES["train", A, 0]})},
        "its own name says class train; if what is in the tars says the classes",
    ),
    "validation of another class": (
        {"train.tar": tar_of(of("train", in_folder)), "val.tar": tar_of({"n99999999/1.jpg": PICTURES["val", A, 0]})},
        "n99999999, which is none of the 2 classes",
    ),
    "a split inside a split": (
        {"train.tar": tar_of(prefixed("val", of("val", in_folder))), "val.tar": tar_of(of("val", in_folder))},
        "train",
    ),
    "one image in two parts": (
        {f"train_{i}.tar": tar_of(of("train", with_label)) for i in range(2)},
        rf"train_1\.tar: '{A}_0_{A}\.JPEG' is in .*train_0\.tar, too",
    ),
    "one image for training and validation": (
        {f"{split}.tar": tar_of(of("train", with_label)) for split in ("train", "val")},
        r"val\.tar: .* is in .*train\.tar, too: an image must not",
    ),
    "a part that is still compressed": (
        {"train_0.tar": tar_of(of("train", with_label)), "train_1.tar.gz": gzip.compress(tar_of({}))},
        r"train_1\.tar\.gz: is gzipped",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_certain_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    files, message = REFUSED[case]
    write(tmp_path, files)
    with pytest.raises(InputError, match=message) as refusal:
        open_source(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["train_2.tar.part", "train_2.TAR", "train_2.tar.crdownload"])
def test_a_part_that_is_no_whole_tar_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, {"train_0.tar": tar_of(of("train", with_label)), name: b"half"})
    with pytest.raises(InputError, match=rf"{name}: looks like a tar under another name, or one not downloaded"):
        open_source(tmp_path)


def test_archives_beside_tars_and_among_images_are_never_passed_over_in_silence(tmp_path: Path) -> None:
    write(tmp_path / "a", {f"{A}.tar": tar_of({"1.jpg": PICTURES["train", A, 0]}), f"{B}.zip": b"PK\x03\x04"})
    assert any(f"{B}.zip" in note and "not read" in note for note in open_source(tmp_path / "a").notes)
    files = of("train", in_folder) | {"bird.zip": b"PK\x03\x04"}
    write(tmp_path / "b", {"data.tar": tar_of(files)})
    with pytest.raises(InputError, match=r"holds 'bird\.zip' beside images, which would be missed"):
        open_source(tmp_path / "b")


def test_class_tars_in_folders_that_may_be_splits_are_refused(tmp_path: Path) -> None:
    inner = {
        f"{folder}/{name}.tar": tar_of({"1.jpg": PICTURES["train", A, 0]})
        for folder in ("learn", "check")
        for name in "xy"
    }
    write(tmp_path, {"all.tar": tar_of(inner)})
    with pytest.raises(InputError, match="is in check and in learn, which may be splits"):
        open_source(tmp_path)


def test_labels_in_names_hold_for_tars_that_are_called_by_a_wnid_too(tmp_path: Path) -> None:
    write(
        tmp_path,
        {f"{A}.tar": tar_of({f"1_{B}.JPEG": PICTURES["train", B, 0]}), f"{B}.tar": tar_of({"1.jpg": b"GIF89a"})},
    )
    with pytest.raises(InputError, match=rf"its name says class {A}, and '1_{B}\.JPEG' in it {B}"):
        open_source(tmp_path)
