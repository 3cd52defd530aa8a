"""ImageNet extracted, from Kaggle and tiny: the same images, order and labels as from the archives, or a refusal."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.shards.manifest import SPLITS
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.sources import DEVKIT_TAR, VAL_TAR, open_source
from tests.sources import write_devkit, write_files, write_kaggle, write_official, write_tree
from tests.unit.tools.source_layouts import TRAIN, VAL, WORDS, bytes_of, refused, write

VAL_WNIDS = [wnid for wnid, _ in VAL]


@pytest.fixture
def archives(tmp_path: Path) -> Source:
    write_official(tmp_path / "archives", WORDS, TRAIN, VAL)
    return open_source(tmp_path / "archives")


def write_tiny(root: Path, *, is_sorted: bool = False) -> None:
    """Write the layout of tiny-imagenet-200 with three classes."""
    for wnid, files in TRAIN.items():
        write_files(root / "train" / wnid / "images", files)
        write_files(root / "train" / wnid, {f"{wnid}_boxes.txt": b"n00000001_1.JPEG\t0\t10\t63\t58\n"})
    rows = [f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n" for i, (wnid, _) in enumerate(VAL)]
    write_files(root / "val", {"val_annotations.txt": "".join(reversed(rows)).encode()})
    for i, (wnid, data) in enumerate(VAL):
        folder = root / "val" / wnid / "images" if is_sorted else root / "val" / "images"
        write_files(folder, {f"val_{i}.JPEG": data})
    write_files(root / "test" / "images", {"test_0.JPEG": b"x"})
    write_files(root, {"wnids.txt": b"", "words.txt": b"n00000001\tcrane\nn00000009\tnot here\n"})


def write_flat(root: Path) -> None:
    """Write a tree whose validation images need the devkit that is written, too."""
    write_tree(root, TRAIN, VAL, flat=True)
    write_devkit(root, WORDS, VAL_WNIDS)


@pytest.mark.parametrize(
    "layout",
    [
        *("class folders", "flat with devkit", "flat with table", "val archive", "kaggle", "inside kaggle"),
        *("flat below archives' names", "flat in archives' names"),
    ],
)
def test_every_layout_of_imagenet_gives_the_same_source(archives: Source, tmp_path: Path, layout: str) -> None:
    root = tmp_path / "root"
    if "kaggle" in layout:
        write_kaggle(root, WORDS, TRAIN, VAL)
    else:
        write_tree(root, TRAIN, () if layout == "val archive" else VAL, flat=layout.startswith("flat"))
    if layout == "val archive":
        shutil.copy(archives.root / VAL_TAR, root)
    if layout == "flat with table":
        write_kaggle(tmp_path / "kaggle", WORDS, TRAIN, VAL)
        shutil.copy(tmp_path / "kaggle" / "LOC_val_solution.csv", root)
        shutil.copy(tmp_path / "kaggle" / "LOC_synset_mapping.txt", root)
    elif "kaggle" not in layout:
        write_devkit(root, WORDS, VAL_WNIDS)
    for split in SPLITS if "names" in layout else ():
        (root / split).rename(root / f"ILSVRC2012_img_{split}")
        if "below" in layout:
            (root / split).mkdir()
            (root / f"ILSVRC2012_img_{split}").rename(root / split / f"ILSVRC2012_img_{split}")
    source = open_source(root / "ILSVRC" if layout == "inside kaggle" else root)
    for split in SPLITS:
        assert bytes_of(source, split) == bytes_of(archives, split)
    assert source.classes == archives.classes
    assert source.digest() == archives.digest()
    assert source.kind == ("ilsvrc2012-kaggle" if "kaggle" in layout else "ilsvrc2012-tree")


@pytest.mark.parametrize("is_sorted", [False, True])
def test_tiny_imagenet_is_read_with_its_table(tmp_path: Path, is_sorted: bool) -> None:
    write_tiny(tmp_path, is_sorted=is_sorted)
    source = open_source(tmp_path)
    assert source.description == "tiny-imagenet-200, 3 classes, 9 train and 5 val files"
    assert [c.words for c in source.classes] == ["crane", "n00000002", "n00000003"]
    assert all(name.startswith(f"{wnid}_") for wnid, name, _ in bytes_of(source, "train"))
    found = [(wnid, Path(name).name, data) for wnid, name, data in bytes_of(source, "val")]
    assert found == [(wnid, f"val_{i}.JPEG", data) for i, (wnid, data) in enumerate(VAL)]
    assert "not read: test" in source.notes


def test_classes_are_those_of_the_training_folders_or_of_the_table(tmp_path: Path) -> None:
    """A user who kept some class folders wants those; a flat val has images of every class of its devkit."""
    write_tree(tmp_path / "a", TRAIN, VAL)
    source = open_source(tmp_path / "a")
    assert source.description == "extracted ILSVRC tree, 3 classes, 9 train and 5 val files"
    assert [c.words for c in source.classes] == ["n00000001", "n00000002", "n00000003"]
    few = {wnid: files for wnid, files in TRAIN.items() if wnid != "n00000001"}
    write_tree(tmp_path / "b", few, [image for image in VAL if image[0] in few])
    write_devkit(tmp_path / "b", WORDS, VAL_WNIDS)
    source = open_source(tmp_path / "b")
    assert [(c.wnid, c.words) for c in source.classes] == [("n00000002", WORDS["n00000002"]), ("n00000003", "crane")]
    assert f"{DEVKIT_TAR} has 3 classes, 2 have a training folder" in source.notes
    write_tree(tmp_path / "c", {"n00000002": TRAIN["n00000002"]}, VAL[:4], flat=True)
    write_devkit(tmp_path / "c", WORDS, VAL_WNIDS)
    source = open_source(tmp_path / "c")
    assert len(source.classes) == 3
    assert "2 classes have no training images: n00000001, n00000003" in source.notes
    assert f"{DEVKIT_TAR} labels 5 images, 4 are in {tmp_path / 'c' / 'val'}" in source.notes


def test_a_tree_without_val_and_an_empty_class_are_read_and_said(tmp_path: Path) -> None:
    write_tree(tmp_path, {**TRAIN, "n00000002": {}})
    source = open_source(tmp_path)
    assert (len(source.classes), len(source.members["val"])) == (3, 0)
    assert any(note.startswith("no validation images") for note in source.notes)
    assert "1 class has no training images: n00000002" in source.notes
    for wnid in ("n00000001", "n00000003"):
        shutil.rmtree(tmp_path / "train" / wnid)
    refused(tmp_path, "its class folders hold no files")


def half_sorted(root: Path) -> None:
    write_tree(root, TRAIN, VAL[:2])
    write_tree(root, TRAIN, VAL, flat=True)


def flat(root: Path) -> None:
    write_tree(root, TRAIN, VAL, flat=True)


Make = Callable[[Path], None]
TREES: list[tuple[Make, dict[str, bytes], str]] = [
    (flat, {}, rf"val have no labels; put {DEVKIT_TAR} or LOC_val_solution\.csv into"),
    (write_flat, {"val/labels.txt": b""}, r"labels\.txt has no label: .* labels 5 images, ILSVRC2012_val_"),
    (write_flat, {"val/ILSVRC2012_val_00000001.jpg": b"x"}, "are one image by their names; move one away"),
    (write_flat, {"train/n00000009/1.JPEG": b"x"}, f"n00000009 is no class of {DEVKIT_TAR}"),
    (lambda root: write_tree(root, TRAIN, [*VAL, ("n00000004", b"x")]), {}, "val: n00000004 is none of the 3 classes"),
    (half_sorted, {}, "2 class folders and 5 loose images; sorting them into folders was interr"),
    (write_tiny, {"val/n00000001/1.JPEG": b"x"}, "holds class folders beside images: sorting them"),
    (
        write_tiny,
        {"val/val_annotations.txt": b"val_0.JPEG n00000001\n"},
        r"val_annotations\.txt: line 1 is no file name and WNID",
    ),
    (
        write_tiny,
        {"val/val_annotations.txt": b"".join(b"val_0%d.JPEG\tn0000000%d\t0\n" % (k, k) for k in (1, 2, 3))},
        r"val_0\.JPEG has no label: val_annotations.txt labels 3 ",
    ),
    (
        write_tiny,
        {"val/val_annotations.txt": b"val_0.JPEG\tn00000001\t0\n\nval_0.JPEG\tn00000002\t0\n"},
        "line 3 gives an image a second label",
    ),
    (
        flat,
        {"train/leftover/x": b""},
        r"train: leftover is no class of ImageNet, .* the other 3 folders .* move it away",
    ),
    (write_flat, {"train/leftover/x": b""}, "leftover is no class of ImageNet"),
    *(
        (
            lambda root: write_tree(root, TRAIN),
            {"train/leftover/x": b"", other: b""},
            "leftover is no class of ImageNet",
        )
        for other in (VAL_TAR, "LOC_val_solution.csv")
    ),
]


@pytest.mark.parametrize(("make", "more", "said"), TREES)
def test_a_wrong_tree_is_refused(tmp_path: Path, make: Make, more: dict[str, bytes], said: str) -> None:
    make(tmp_path)
    refused(write(tmp_path, more), said)


@pytest.mark.parametrize("form", ["utf-8 with a mark", "utf-16", "semicolons", "tabs", "crlf", "blank rows"])
def test_tables_that_a_spreadsheet_saved_are_read(archives: Source, tmp_path: Path, form: str) -> None:
    write_kaggle(tmp_path, WORDS, TRAIN, VAL)
    for name in ("LOC_val_solution.csv", "LOC_synset_mapping.txt"):
        text = (tmp_path / name).read_text() + (",\n\n" if form == "blank rows" else "")
        if name.endswith("csv"):
            text = text.replace(",", {"semicolons": ";", "tabs": "\t"}.get(form, ","))
        encoding = {"utf-8 with a mark": "utf-8-sig", "utf-16": "utf-16"}.get(form, "utf-8")
        (tmp_path / name).write_bytes(text.replace("\n", "\r\n").encode(encoding))
    source = open_source(tmp_path)
    assert source.digest() == archives.digest()
    assert source.classes == archives.classes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,label\nILSVRC2012_val_00000001,n00000001\n", "line 2: has not the columns ImageId,PredictionString"),
        ('ImageId,PredictionString\nx_1,"n00000001' + " 1" * 100_000, r"line 2: field larger .*; download it again"),
        (
            "ImageId,PredictionString\nx_1,n00000003 1\nx_1,n00000002 1\n",
            "gives x_1 a second label, n00000002 after n00000003",
        ),
    ],
)
def test_a_kaggle_table_of_another_form_is_refused(tmp_path: Path, text: str, said: str) -> None:
    write_kaggle(tmp_path, WORDS, TRAIN, VAL)
    (tmp_path / "LOC_val_solution.csv").write_text(text)
    refused(tmp_path, said)


def test_junk_and_what_is_no_file_are_counted_and_never_opened(tmp_path: Path) -> None:
    write_tree(tmp_path, TRAIN, VAL)
    folder = tmp_path / "train" / "n00000001"
    for name in (".DS_Store", "Thumbs.db", "._n00000001_1.JPEG"):
        (folder / name).touch()
    (folder / ".thumbnails").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "nowhere").symlink_to(tmp_path / "nothing")
    (tmp_path / "train" / "README").touch()
    source = open_source(tmp_path)
    assert (len(source.members["train"]), source.ignored) == (9, 6)
    assert "1 file lies beside the class folders of train and without a class, so not read: README" in source.notes


def test_links_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    """Users build subsets by linking files and class folders."""
    write_tree(tmp_path / "real", TRAIN, VAL)
    root, real = tmp_path / "root", tmp_path / "real" / "train"
    (root / "train" / "n00000002").mkdir(parents=True)
    (root / "train" / "n00000001").symlink_to(real / "n00000001")
    for file in (real / "n00000002").iterdir():
        (root / "train" / "n00000002" / file.name).symlink_to(file)
    for name, to in (("up", root), ("same", root / "train" / "n00000002"), ("round", root / "train/n00000002/round")):
        (root / "train" / "n00000002" / name).symlink_to(to)
    source = open_source(root)
    assert source.ignored == 3
    expected = [(wnid, f"{wnid}_{i}.JPEG") for wnid in ("n00000001", "n00000002") for i in (1, 10, 2)]
    assert bytes_of(source, "train") == [(wnid, name, TRAIN[wnid][name]) for wnid, name in expected]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path, TRAIN)
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("n00000002"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused(tmp_path, r"n00000002: cannot be read \(Permission denied\)")
