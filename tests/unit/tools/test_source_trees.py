"""ImageNet extracted, and from Kaggle: the same images in the same order with the same labels as from the archives."""

import os
import shutil
import tarfile
from pathlib import Path

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.sources import DEVKIT_TAR, VAL_TAR, open_source
from alexnet.tools.samples.layouts import write_files, write_kaggle, write_tree
from alexnet.tools.samples.official import write_devkit, write_official

WORDS = {"n00000003": "crane", "n00000001": "crane", "n00000002": "maillot, tank suit"}
TRAIN = {
    wnid: {f"{wnid}_{i}.JPEG": f"{wnid} {i}".encode() * (i + 1) for i in (1, 10, 2)}
    for wnid in ("n00000002", "n00000003", "n00000001")
}
VAL = [(f"n0000000{k}", f"val {k} {i}".encode()) for i, k in enumerate((3, 1, 1, 2, 3))]


def bytes_of(source: Source) -> list[tuple[str, int, bytes]]:
    """Read every member as a worker does: name, label and bytes."""
    found = []
    for split in ("train", "val"):
        for m in source.listing(split):
            data = (source.root / m.file).read_bytes()[m.offset : m.offset + m.length]
            found.append((m.name, m.label, data))
    return found


@pytest.fixture
def archives(tmp_path: Path) -> Source:
    write_official(tmp_path / "archives", WORDS, TRAIN, VAL)
    return open_source(tmp_path / "archives")


@pytest.mark.parametrize("layout", ["class folders", "flat with devkit", "flat with table", "val archive", "kaggle"])
def test_every_layout_of_imagenet_gives_the_same_source(archives: Source, tmp_path: Path, layout: str) -> None:
    root = tmp_path / "root"
    if layout == "kaggle":
        write_kaggle(root, WORDS, TRAIN, VAL)
    else:
        write_tree(root, TRAIN, () if layout == "val archive" else VAL, flat=layout.startswith("flat"))
    if layout == "val archive":
        shutil.copy(archives.root / VAL_TAR, root)
    if layout == "flat with table":
        write_kaggle(tmp_path / "kaggle", WORDS, TRAIN, VAL)
        shutil.copy(tmp_path / "kaggle" / "LOC_val_solution.csv", root)
        shutil.copy(tmp_path / "kaggle" / "LOC_synset_mapping.txt", root)
    elif layout != "kaggle":
        write_devkit(root, WORDS, [wnid for wnid, _ in VAL])
    source = open_source(root)
    assert bytes_of(source) == bytes_of(archives)
    assert source.classes == archives.classes
    assert source.digest() == archives.digest()
    assert source.kind == ("ilsvrc2012-kaggle" if layout == "kaggle" else "ilsvrc2012-tree")


def test_kaggles_folder_is_recognised_from_inside_ilsvrc(archives: Source, tmp_path: Path) -> None:
    write_kaggle(tmp_path / "root", WORDS, TRAIN, VAL)
    assert open_source(tmp_path / "root" / "ILSVRC").digest() == archives.digest()


def test_class_folders_need_no_devkit(tmp_path: Path) -> None:
    write_tree(tmp_path, TRAIN, VAL)
    source = open_source(tmp_path)
    assert source.description == "extracted ILSVRC tree, 3 classes, 9 train and 5 val files"
    assert [c.words for c in source.classes] == ["n00000001", "n00000002", "n00000003"]


def test_a_flat_val_without_labels_asks_for_them(tmp_path: Path) -> None:
    write_tree(tmp_path, TRAIN, VAL, flat=True)
    with pytest.raises(InputError, match=rf"val have no labels; put {DEVKIT_TAR} or LOC_val_solution\.csv into"):
        open_source(tmp_path)


def test_a_tree_without_val_is_converted_and_says_so(tmp_path: Path) -> None:
    write_tree(tmp_path, TRAIN)
    source = open_source(tmp_path)
    assert len(source.members["val"]) == 0
    assert any(note.startswith("no validation images") for note in source.notes)


def test_a_subset_of_the_classes_counts_its_own_and_the_devkit_gives_words(tmp_path: Path) -> None:
    few = {wnid: files for wnid, files in TRAIN.items() if wnid != "n00000001"}
    write_tree(tmp_path, few, [image for image in VAL if image[0] in few])
    write_devkit(tmp_path, WORDS, [wnid for wnid, _ in VAL])
    source = open_source(tmp_path)
    assert [(c.wnid, c.words) for c in source.classes] == [("n00000002", WORDS["n00000002"]), ("n00000003", "crane")]
    assert f"{DEVKIT_TAR} has 3 classes, 2 have a training folder" in source.notes


def test_a_flat_val_keeps_every_class_of_the_devkit(tmp_path: Path) -> None:
    write_tree(tmp_path, {"n00000002": TRAIN["n00000002"]}, VAL, flat=True)
    write_devkit(tmp_path, WORDS, [wnid for wnid, _ in VAL])
    source = open_source(tmp_path)
    assert len(source.classes) == 3
    assert "2 classes have no training images: n00000001, n00000003" in source.notes


def test_a_flat_val_that_lacks_images_is_noted(tmp_path: Path) -> None:
    write_tree(tmp_path, TRAIN, VAL[:4], flat=True)
    write_devkit(tmp_path, WORDS, [wnid for wnid, _ in VAL])
    source = open_source(tmp_path)
    assert f"{DEVKIT_TAR} labels 5 images, 4 are in {tmp_path / 'val'}" in source.notes


def test_what_has_no_label_or_no_class_is_named(tmp_path: Path) -> None:
    write_tree(tmp_path, TRAIN, VAL, flat=True)
    write_devkit(tmp_path, WORDS, [wnid for wnid, _ in VAL])
    (tmp_path / "val" / "labels.txt").touch()
    with pytest.raises(InputError, match=r"labels\.txt has no label: .* labels 5 images, ILSVRC2012_val_00000001 to"):
        open_source(tmp_path)
    (tmp_path / "train" / "n00000009").mkdir()
    with pytest.raises(InputError, match=f"n00000009 is no class of {DEVKIT_TAR}"):
        open_source(tmp_path)


def test_a_val_folder_that_is_no_training_class_is_named(tmp_path: Path) -> None:
    write_tree(tmp_path, TRAIN, [*VAL, ("n00000004", b"x")])
    with pytest.raises(InputError, match="val: n00000004 is none of the 3 classes"):
        open_source(tmp_path)


def test_a_val_that_was_sorted_half_way_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, TRAIN, VAL[:2])
    write_tree(tmp_path, TRAIN, VAL, flat=True)
    with pytest.raises(InputError, match="2 class folders and 5 loose images; sorting them into folders was interr"):
        open_source(tmp_path)


def test_empty_class_folders_are_classes_and_a_tree_of_them_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, {**TRAIN, "n00000002": {}})
    source = open_source(tmp_path)
    assert len(source.classes) == 3
    assert "1 class has no training images: n00000002" in source.notes
    shutil.rmtree(tmp_path / "train" / "n00000001")
    shutil.rmtree(tmp_path / "train" / "n00000003")
    with pytest.raises(InputError, match="its class folders hold no files"):
        open_source(tmp_path)


def test_a_kaggle_table_of_another_form_is_refused(tmp_path: Path) -> None:
    write_kaggle(tmp_path, WORDS, TRAIN, VAL)
    (tmp_path / "LOC_val_solution.csv").write_text("image,label\nILSVRC2012_val_00000001,n00000001\n")
    with pytest.raises(InputError, match="line 2: has not the columns ImageId,PredictionString"):
        open_source(tmp_path)
    (tmp_path / "LOC_val_solution.csv").write_text(
        'ImageId,PredictionString\nILSVRC2012_val_00000001,"n00000001' + " 1" * 100_000
    )
    with pytest.raises(InputError, match=r"line 2: field larger than .*; download it again"):
        open_source(tmp_path)


def test_a_ground_truth_that_lost_its_line_breaks_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, TRAIN, VAL, flat=True)
    folder = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    write_devkit(tmp_path, WORDS, [wnid for wnid, _ in VAL])
    with tarfile.open(tmp_path / DEVKIT_TAR) as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / DEVKIT_TAR).unlink()
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("1" * 100_000)
    with pytest.raises(InputError, match=f"line 1 of .* says '{'1' * 20}', which is no class of meta.mat"):
        open_source(tmp_path)


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
    assert len(source.members["train"]) == 9
    assert source.ignored == 6
    assert "1 file lies beside the class folders of train and without a class, so not read: README" in source.notes


def test_links_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    """Users build subsets by linking files and class folders."""
    write_tree(tmp_path / "real", TRAIN, VAL)
    root = tmp_path / "root"
    (root / "train" / "n00000002").mkdir(parents=True)
    (root / "train" / "n00000001").symlink_to(tmp_path / "real" / "train" / "n00000001")
    for file in (tmp_path / "real" / "train" / "n00000002").iterdir():
        (root / "train" / "n00000002" / file.name).symlink_to(file)
    (root / "train" / "n00000002" / "up").symlink_to(root)
    (root / "train" / "n00000002" / "same").symlink_to(root / "train" / "n00000002")
    (root / "train" / "n00000002" / "round").symlink_to(root / "train" / "n00000002" / "round")
    source = open_source(root)
    names = [m.name for m in source.members["train"]]
    assert names == [f"n0000000{k}_{i}.JPEG" for k in (1, 2) for i in (1, 10, 2)]
    assert source.ignored == 3
    assert [data for _, _, data in bytes_of(source)] == [TRAIN[n[:9]][n] for n in names]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path, TRAIN)
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("n00000002"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"n00000002: cannot be read \(Permission denied\)"):
        open_source(tmp_path)


@pytest.mark.parametrize("official", ["flat val", "devkit", "val archive", "table"])
def test_a_stray_folder_among_the_class_folders_is_named(tmp_path: Path, official: str) -> None:
    write_tree(tmp_path, TRAIN, VAL if official == "flat val" else (), flat=True)
    if official == "devkit":
        write_devkit(tmp_path, WORDS, [wnid for wnid, _ in VAL])
    elif official != "flat val":
        (tmp_path / (VAL_TAR if official == "val archive" else "LOC_val_solution.csv")).touch()
    (tmp_path / "train" / "leftover").mkdir()
    with pytest.raises(
        InputError, match=r"train: leftover is no class of ImageNet, .* the other 3 folders .* move it away"
    ):
        open_source(tmp_path)


def test_an_archives_own_name_around_the_class_folders_is_stepped_into(archives: Source, tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", TRAIN, VAL, flat=True)
    for split in ("train", "val"):
        (tmp_path / "root" / split).mkdir(parents=True)
        (tmp_path / "tree" / split).rename(tmp_path / "root" / split / f"ILSVRC2012_img_{split}")
    write_devkit(tmp_path / "root", WORDS, [wnid for wnid, _ in VAL])
    assert open_source(tmp_path / "root").digest() == archives.digest()
    for split in ("train", "val"):  # and without the outer folder
        (tmp_path / "root" / split / f"ILSVRC2012_img_{split}").rename(tmp_path / "root" / f"ILSVRC2012_img_{split}")
        (tmp_path / "root" / split).rmdir()
    assert open_source(tmp_path / "root").digest() == archives.digest()


@pytest.mark.parametrize("form", ["utf-8 with a mark", "utf-16", "semicolons", "tabs", "crlf"])
def test_tables_that_a_spreadsheet_saved_are_read(archives: Source, tmp_path: Path, form: str) -> None:
    write_kaggle(tmp_path, WORDS, TRAIN, VAL)
    for name in ("LOC_val_solution.csv", "LOC_synset_mapping.txt"):
        text = (tmp_path / name).read_text()
        if form in ("semicolons", "tabs"):
            text = text.replace(",", ";" if form == "semicolons" else "\t") if name.endswith("csv") else text
        text = text.replace("\n", "\r\n")
        encoding = {"utf-8 with a mark": "utf-8-sig", "utf-16": "utf-16"}.get(form, "utf-8")
        (tmp_path / name).write_bytes(text.encode(encoding))
    source = open_source(tmp_path)
    assert source.digest() == archives.digest()
    assert source.classes == archives.classes


def test_a_table_that_labels_an_image_twice_is_refused(tmp_path: Path) -> None:
    write_kaggle(tmp_path, WORDS, TRAIN, VAL)
    with (tmp_path / "LOC_val_solution.csv").open("a") as table:
        table.write("ILSVRC2012_val_00000001,n00000002 1 2 3 4\n")
    with pytest.raises(InputError, match="gives ILSVRC2012_val_00000001 a second label, n00000002 after n00000003"):
        open_source(tmp_path)


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


@pytest.mark.parametrize("is_sorted", [False, True])
def test_tiny_imagenet_is_read_with_its_table(tmp_path: Path, is_sorted: bool) -> None:
    write_tiny(tmp_path, is_sorted=is_sorted)
    source = open_source(tmp_path)
    assert source.description == "tiny-imagenet-200, 3 classes, 9 train and 5 val files"
    assert [c.words for c in source.classes] == ["crane", "n00000002", "n00000003"]
    assert {m.name.split("_")[0]: source.classes[m.label].wnid for m in source.members["train"]} == {
        wnid: wnid for wnid in TRAIN
    }
    by_name = {Path(m.name).name: source.classes[m.label].wnid for m in source.members["val"]}
    assert by_name == {f"val_{i}.JPEG": wnid for i, (wnid, _) in enumerate(VAL)}
    assert [data for _, _, data in bytes_of(source) if data.startswith(b"val")] == [data for _, data in VAL]
    assert "not read: test" in source.notes


def test_a_tiny_imagenet_table_of_another_form_is_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG n00000001\n")
    with pytest.raises(InputError, match=r"val_annotations\.txt: line 1 is no file name and WNID"):
        open_source(tmp_path)
    (tmp_path / "val" / "val_annotations.txt").write_text(
        "".join(f"val_0{k}.JPEG\tn0000000{k}\t0\n" for k in (1, 2, 3))
    )
    with pytest.raises(InputError, match=r"val_0\.JPEG has no label: val_annotations.txt labels 3 "):
        open_source(tmp_path)


def test_blank_rows_and_a_second_label_in_tables(archives: Source, tmp_path: Path) -> None:
    write_kaggle(tmp_path, WORDS, TRAIN, VAL)
    with (tmp_path / "LOC_val_solution.csv").open("a") as table:
        table.write(",\n\n")
    assert open_source(tmp_path).digest() == archives.digest()
    write_tiny(tmp_path / "tiny")
    with (tmp_path / "tiny" / "val" / "val_annotations.txt").open("a") as table:
        table.write("\n")
    assert len(open_source(tmp_path / "tiny").members["val"]) == len(VAL)
    with (tmp_path / "tiny" / "val" / "val_annotations.txt").open("a") as table:
        table.write("val_0.JPEG\tn00000001\t0\n")
    with pytest.raises(InputError, match="gives an image a second label"):
        open_source(tmp_path / "tiny")


def test_a_tiny_imagenet_that_was_sorted_half_way_is_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    write_files(tmp_path / "val" / "n00000001", {"val_1.JPEG": b"x"})
    with pytest.raises(InputError, match="holds class folders beside images: sorting them was interrupted"):
        open_source(tmp_path)


def test_two_files_of_one_validation_image_are_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, TRAIN, VAL, flat=True)
    write_devkit(tmp_path, WORDS, [wnid for wnid, _ in VAL])
    write_files(tmp_path / "val", {"ILSVRC2012_val_00000001.jpg": b"x"})
    with pytest.raises(InputError, match="are one image by their names; move one away"):
        open_source(tmp_path)
