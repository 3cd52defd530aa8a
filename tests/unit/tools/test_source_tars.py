"""Tars of every packing: each image gets its true label and split, or the tar is refused; none is dropped.

In all of them a picture's bytes say what it is, so that labels are compared with the truth and not with names.
"""

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.sources import open_source
from alexnet.tools.samples.layouts import write_class_tars, write_files
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


def add(tar: tarfile.TarFile, name: str, data: bytes | None, kind: bytes = tarfile.REGTYPE, to: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, to, len(data or b"")
    tar.addfile(member, io.BytesIO(data or b""))


def test_links_in_a_tar_are_what_unpacking_makes_of_them(tmp_path: Path) -> None:
    one, two = PICTURES["train", A, 0], PICTURES["train", A, 1]
    with tarfile.open(tmp_path / f"{A}.tar", "w") as tar:
        add(tar, "./a.jpg", one)
        add(tar, "hard.jpg", None, tarfile.LNKTYPE, "a.jpg")
        add(tar, "symbolic.jpg", None, tarfile.SYMTYPE, "hard.jpg")
        add(tar, "forward.jpg", None, tarfile.SYMTYPE, "b.jpg")
        add(tar, "b.jpg", two)
        add(tar, "nowhere.jpg", None, tarfile.LNKTYPE, "missing.jpg")
        add(tar, "outside.jpg", None, tarfile.SYMTYPE, "/etc/passwd")
        add(tar, "round.jpg", None, tarfile.SYMTYPE, "round.jpg")
    (tmp_path / "tree" / A).mkdir(parents=True)
    with tarfile.open(tmp_path / f"{A}.tar") as tar:  # as GNU tar unpacks it
        tar.extract("./a.jpg", tmp_path / "tree" / A, filter="data")
        tar.extract("b.jpg", tmp_path / "tree" / A, filter="data")
    os.link(tmp_path / "tree" / A / "a.jpg", tmp_path / "tree" / A / "hard.jpg")
    (tmp_path / "tree" / A / "symbolic.jpg").symlink_to("hard.jpg")
    (tmp_path / "tree" / A / "forward.jpg").symlink_to("b.jpg")
    write_files(tmp_path / "tree" / B, {"1.jpg": two})
    write_class_tars(tmp_path, {B: {"1.jpg": two}})
    tars, tree = open_source(tmp_path), open_source(tmp_path / "tree")
    contents = {
        Path(m.name).name: (tmp_path / m.file).read_bytes()[m.offset : m.offset + m.length]
        for m in tars.members["train"]
    }
    assert contents == {Path(m.name).name: (tmp_path / "tree" / m.file).read_bytes() for m in tree.members["train"]}
    assert contents["symbolic.jpg"] == one
    assert contents["forward.jpg"] == two
    assert tars.ignored == 3
    assert any("3 links in tars lead to no file" in note and "nowhere.jpg" in note for note in tars.notes)


def test_of_two_members_of_one_name_the_last_counts_as_in_unpacking(tmp_path: Path) -> None:
    write_class_tars(tmp_path, {B: {"1.jpg": PICTURES["train", B, 0]}})
    with tarfile.open(tmp_path / f"{A}.tar", "w") as tar:
        add(tar, "a.jpg", PICTURES["train", A, 0])
        add(tar, "./a.jpg", PICTURES["train", A, 1])
    source = open_source(tmp_path)
    (member,) = [m for m in source.members["train"] if m.label == 0]
    assert (tmp_path / member.file).read_bytes()[member.offset :].startswith(PICTURES["train", A, 1])
    assert any("1 entries are replaced" in note for note in source.notes)


@pytest.mark.parametrize("padding", [0, 512, 10_000])
def test_a_tar_after_the_end_mark_is_read_on(tmp_path: Path, padding: int) -> None:
    """`cat a.tar b.tar > both.tar` hides b from every program that stops at the first end mark."""
    halves = [tar_of({f"{i}.jpg": PICTURES["train", A, i]}) for i in range(3)]
    write(tmp_path, {f"{A}.tar": (bytes(padding)).join(halves), f"{B}.tar": tar_of({"1.jpg": PICTURES["train", B, 0]})})
    members = [m for m in open_source(tmp_path).members["train"] if m.label == 0]
    found = {(tmp_path / m.file).read_bytes()[m.offset : m.offset + m.length] for m in members}
    assert found == {PICTURES["train", A, i] for i in range(3)}


def test_what_follows_the_end_and_is_no_tar_is_refused_with_the_mend(tmp_path: Path) -> None:
    whole = tar_of({"1.jpg": PICTURES["train", A, 0]})
    write(
        tmp_path, {f"{A}.tar": whole + b"<html>" + bytes(600), f"{B}.tar": tar_of({"1.jpg": PICTURES["train", B, 0]})}
    )
    with pytest.raises(InputError, match=rf"goes on at byte {len(whole):,}, .* truncate -s {len(whole)} "):
        open_source(tmp_path)
    write(tmp_path, {f"{A}.tar": whole + bytes(5000)})
    assert len(open_source(tmp_path).members["train"]) == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzip.compress(tar_of({})), "is gzipped and cannot be read by offset; gunzip it first: mv .* && gunzip "),
        (bz2.compress(tar_of({})), "is compressed by bzip2"),
        (lzma.compress(tar_of({})), "is compressed by xz"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "is compressed by zstd"),
        (b"PK\x03\x04" + bytes(600), "is a zip archive and no tar; unpack it first"),
        (b"<!DOCTYPE html><html>" + bytes(600), "is a web page, and no archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (b"", "is empty; download it again"),
        (b"x" * 2000, "cannot be read as a tar .*; download it again"),
    ],
)
@pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", f"{A}.tar"])
def test_what_is_no_tar_is_called_what_it_is(tmp_path: Path, data: bytes, message: str, name: str) -> None:
    write(tmp_path, {name: data})
    if not name.startswith("ILSVRC"):
        write(tmp_path, {f"{B}.tar": tar_of({"1.jpg": PICTURES["train", B, 0]})})
    with pytest.raises(InputError, match=rf"{name}: .*{message}"):
        open_source(tmp_path)


def test_what_other_systems_leave_behind_in_tars_is_counted(tmp_path: Path) -> None:
    junk = ["__MACOSX/._1.jpg", "@eaDir/1.jpg/SYNOPHOTO.jpg", "1.jpg:Zone.Identifier", ".DS_Store", "a/.hidden/2.jpg"]
    files = {"1.jpg": PICTURES["train", A, 0], **dict.fromkeys(junk, PICTURES["test", A, 0])}
    write_class_tars(tmp_path, {A: files, B: {"1.jpg": PICTURES["train", B, 0]}})
    source = open_source(tmp_path)
    assert [m.name for m in source.members["train"]] == ["1.jpg", "1.jpg"]
    assert source.ignored == len(junk)
