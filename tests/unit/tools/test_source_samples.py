"""WebDataset tars as a source: labels beside images, proven where names allow it, and refused where they contradict."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from alexnet.shards import index
from alexnet.shards.manifest import SPLITS
from alexnet.shards.reader import SplitReader
from alexnet.tools.convert.build import build
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source
from tests.sources import write_official
from tests.unit.tools.source_layouts import PNG, TRAIN, VAL, WORDS, bytes_of, class_names, refused, write

WNIDS = sorted(WORDS)
IMAGES = {wnid: {name: PNG + data for name, data in files.items()} for wnid, files in TRAIN.items()}


def sample(
    key: str, number: object = None, image: bytes = PNG, ending: str = "jpg", /, **fields: Any
) -> dict[str, bytes]:
    """Return the files of one sample: image, label in `.cls` unless None, and fields in `.json` if there are any."""
    files = {f"{key}.{ending}": image}
    if number is not None:
        files[f"{key}.cls"] = str(number).encode()
    return files | ({f"{key}.json": json.dumps(fields).encode()} if fields else {})


def labels_of(source: Source) -> dict[str, int]:
    return {member.name: member.label for split in SPLITS for member in source.members[split]}


def imagenet_samples() -> dict[str, Any]:
    """Return small ImageNet as timm stores it: training samples in no order over two tars, fields in JSON."""
    pairs = [(wnid, name, data) for wnid, files in IMAGES.items() for name, data in files.items()]
    tars: dict[str, Any] = {f"set-{name}.tar": {} for name in ("train-0000", "train-0001", "validation-00")}
    for k, (wnid, name, data) in enumerate(pairs[::-1]):
        fields = {"label": WNIDS.index(wnid), "filename": f"{wnid}/{name}", "width": 8}
        tars[f"set-train-{k % 2:04d}.tar"] |= sample(name.removesuffix(".JPEG"), WNIDS.index(wnid), data, **fields)
    for k, (wnid, data) in reversed(list(enumerate(VAL, start=1))):
        tars["set-validation-00.tar"] |= sample(f"ILSVRC2012_val_{k:08d}", WNIDS.index(wnid), data)
    return tars


def test_samples_are_what_the_official_archives_hold_in_their_order(tmp_path: Path) -> None:
    write_official(tmp_path / "official", WORDS, IMAGES, VAL)
    words = "".join(f"{wnid} {text}\n" for wnid, text in WORDS.items())
    source = open_source(write(tmp_path / "tars", {**imagenet_samples(), "synset_words.txt": words.encode()}))
    official = open_source(tmp_path / "official")
    assert source.classes == official.classes
    for split in SPLITS:
        found = [(wnid, name.replace(".jpg", ".JPEG"), data) for wnid, name, data in bytes_of(source, split)]
        assert found == bytes_of(official, split)


def test_the_bundled_tars_convert_to_their_own_labels_as_webdataset_reads_them(ci_100: Path, tmp_path: Path) -> None:
    for split in SPLITS:
        write(tmp_path / "src" / split, {p.name: p.read_bytes() for p in (ci_100 / split).glob("*.tar")})
    source = open_source(tmp_path / "src")
    assert class_names(source) == [f"n9{k:07d}" for k in range(1, 11)], "from the keys, behind the place"
    build(source, tmp_path / "out", ConvertSettings(size_px=32))
    for split in SPLITS:
        tars = sorted(map(str, (tmp_path / "src" / split).glob("*.tar")))
        told = {s["__key__"]: s["cls"] for s in webdataset.WebDataset(tars, shardshuffle=False).decode()}
        assert labels_of(source) | {f"{key}.jpg": label for key, label in told.items()} == labels_of(source)
        made, given = SplitReader(tmp_path / "out", split), SplitReader(ci_100, split)
        assert np.array_equal(np.bincount(made.labels), np.bincount(given.labels))


def test_any_image_endings_and_keys_with_folders_or_without_names(tmp_path: Path) -> None:
    tar = sample("a/00", 1, PNG, "WEBP") | sample("a/01", None, PNG, "jpeg", label=0) | sample("b/02", 1)
    source = open_source(write(tmp_path, {"part-0.tar": {**tar, "README.md": b"", "a/03.txt": b"no image"}}))
    assert labels_of(source) == {"00.WEBP": 1, "01.jpeg": 0, "02.jpg": 1}
    assert class_names(source) == ["0", "1"]
    assert "classes are called by their numbers, 0 to 1, as nothing names them" in source.notes
    assert source.ignored == 2


@pytest.mark.parametrize(
    ("files", "names", "words", "note"),
    [
        ({"classnames.txt": b"cat\ndog\nelk\n"}, ["cat", "dog", "elk"], ["cat", "dog", "elk"], "no training images"),
        ({"classes.txt": b"cat\r\ndog\n\n"}, ["cat", "dog"], ["cat", "dog"], "no validation images"),
        ({"classes.txt": b"dog\ncat\n"}, ["0", "1"], ["dog", "cat"], "the order of their names is another"),
        ({}, ["0", "1"], ["0", "1"], "nothing names them"),
    ],
)
def test_a_list_names_classes_as_long_as_its_order_is_that_of_the_numbers(
    tmp_path: Path, files: dict[str, bytes], names: list[str], words: list[str], note: str
) -> None:
    source = open_source(write(tmp_path, {"train-0.tar": sample("x", 0) | sample("y", 1), **files}))
    assert [(record.wnid, record.words) for record in source.classes] == list(zip(names, words, strict=True))
    assert any(note in said for said in source.notes)


def test_names_in_fields_are_classes(tmp_path: Path) -> None:
    tar = sample("x", class_name="cat", label=0) | sample("y", class_name="dog", cls=1)
    assert class_names(open_source(write(tmp_path, {"train-0.tar": tar}))) == ["cat", "dog"]


def test_a_number_without_samples_is_named(tmp_path: Path) -> None:
    source = open_source(write(tmp_path, {"train-0.tar": sample("x", 0) | sample("y", 2)}))
    assert class_names(source) == ["0", "1", "2"]
    assert any("1 class has no training images: 1" in note for note in source.notes)


def test_a_test_set_is_left_out_where_there_is_one_for_validation(tmp_path: Path) -> None:
    tars = {f"{split}/0.tar": sample(split, 0, PNG + split.encode()) for split in ("train", "val", "test")}
    source = open_source(write(tmp_path / "three", tars))
    assert labels_of(source) == {"train.jpg": 0, "val.jpg": 0}
    assert any("not read: test/0.tar (test images)" in note for note in source.notes)
    del tars["val/0.tar"]
    assert labels_of(open_source(write(tmp_path / "two", tars))) == {"train.jpg": 0, "test.jpg": 0}


def test_endings_in_capitals_are_labels(tmp_path: Path) -> None:
    tar = {name.upper(): data for name, data in (sample("cat/x", 1) | sample("dog/y", 0)).items()}
    assert labels_of(open_source(write(tmp_path, {"train.tar": tar}))) == {"X.JPG": 1, "Y.JPG": 0}


def test_a_number_that_is_missing_among_tars_is_noted(tmp_path: Path) -> None:
    tars = {f"train/{k:04d}.tar": sample(f"{k}", 0) for k in (2, 3, 5, 11)} | {"val/000.tar": sample("v", 0)}
    assert not any("missing" in note for note in open_source(write(tmp_path, tars)).notes)  # so few may be meant
    notes = open_source(write(tmp_path, {f"train/{k:04d}.tar": sample(f"{k}", 0) for k in (4, 8, 9)})).notes
    assert "3 tars are missing, by the numbers of the others: train/0006.tar, train/0007.tar, train/0010.tar" in notes


@pytest.mark.parametrize(("beside", "said"), [("00002.tar.gz", "is gzipped"), ("val/00000.tar", "in none of them")])
def test_tars_that_would_be_missed_are_refused(tmp_path: Path, beside: str, said: str) -> None:
    refused(write(tmp_path, {f"{k:05d}.tar": sample(f"{k}", 0) for k in (0, 1)} | {beside: b"\x1f\x8b"}), said)


@pytest.mark.parametrize(
    ("numbers", "val", "said"),
    [((0, 2, 1), 0, "gives n00000003 the label 1, which is n00000002's"), ((0, 1, 2), 2, "label 2, where .* has 65")],
)
def test_numbers_that_contradict_the_published_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...], val: int, said: str
) -> None:
    text = "".join(f"{wnid}\n" for wnid in WNIDS)
    monkeypatch.setattr(index, "OFFICIAL_CLASSES_SHA256", hashlib.sha256(text.encode()).hexdigest())
    train: dict[str, bytes] = {}
    for number, wnid in zip(numbers, WNIDS, strict=True):
        train |= sample(f"{wnid}_1", number)
    refused(write(tmp_path, {"train.tar": train, "val.tar": sample("ILSVRC2012_val_00000001", val)}), said)


X, Y = sample("x", 0), sample("y", 1)


@pytest.mark.parametrize(
    ("tars", "said"),
    [
        ({"a": {**X, "y.jpg": b"2"}}, "sample 'y': has no label"),
        ({"a": {**X, "y.jpg": b"2", "z.jpg": b"3", "y.cls": b"1"}}, "sample 'y': has no label"),  # not side by side
        ({"a": {**X, "y.cls": b"1"}}, "'y': has a label and no image"),
        ({"a": {**X, "x.png": PNG}}, "'x': has jpg and png, and must have one image"),
        ({"a": {**X, "x.JPG": PNG}}, "duplicate"),
        ({"a": X | sample("y", -1)}, "'y': its label is -1, and must be from 0 to 99,999"),
        ({"a": X | sample("y", 10**9)}, "its label is 1000000000, and must"),
        ({"a": X | sample("y", "1.0")}, r"its \.cls cannot be read"),
        ({"a": X | sample("y", None, label="cat")}, "its label is 'cat', which is no whole number"),
        ({"a": X | sample("y", None, label=True)}, "its label is 'True'"),
        ({"a": X | sample("y", None, width=1)}, "'y': has no label"),
        ({"a": {**X, **Y, "y.json": b"[" * 200_000}}, r"'y': its \.json cannot be read"),
        ({"a": {**X, **Y, "y.json": b" " * (2 << 20)}}, r"its \.json has 2,097,152 bytes"),
        ({"a": X | sample("y", 1, label=2)}, "'y': is labelled 1 and 2"),
        ({"a": sample("n00000001_1", 0) | sample("n00000002_1", 0)}, "class n00000002, and its label 0 is n00000001"),
        ({"train": sample("n00000001_1", 0), "val": sample("n00000001_2", 1)}, "label is 1 here and 0 elsewhere"),
        ({"validation-0": X}, "holds no training images"),
        ({"train": X, "val": sample("y", 0), "more": Y}, "neither training nor validation"),
        ({"train-0": X, "train-1": X}, r"train-0\.tar and train-1\.tar hold the same image"),
        ({"train-0": X, "train-1": b"cut"}, r"train-1\.tar: "),
    ],
)
def test_samples_that_may_be_wrong_are_refused_in_one_line(tmp_path: Path, tars: dict[str, Any], said: str) -> None:
    refused(write(tmp_path, {f"{name}.tar": files for name, files in tars.items()}), said)


def test_a_list_that_is_too_short_is_refused(tmp_path: Path) -> None:
    refused(write(tmp_path, {"a.tar": X | Y, "classes.txt": b"cat\n"}), "its label is 1, and must be from 0 to 0")
