"""Hugging Face's parquet files as a source: the official images in their order, unpacked file by file, or a refusal."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import SPLITS
from alexnet.shards.reader import SplitReader
from alexnet.tools.convert import build as building
from alexnet.tools.convert.build import build
from alexnet.tools.convert.classes import select_classes
from alexnet.tools.convert.earlier import rejects_of
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.source_files import SourceChangedError
from alexnet.tools.convert.sources import materialise, open_source, packed_bytes
from alexnet.tools.progress import Amount
from tests.sources import write_official
from tests.unit.tools.source_layouts import PNG, TRAIN, VAL, WORDS, bytes_of, class_names, refused

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

WNIDS = sorted(WORDS)
Row = tuple[Any, str | None, Any]
"""Bytes, path and label of an image."""


def write_parquet(
    path: Path, rows: Sequence[Row], *, names: Sequence[str] = (), image: str = "image", label: str = "label"
) -> Path:
    """Write a file as Hugging Face's datasets does, two rows a group; `names`: of the classes, in its metadata."""
    features = {label: {"names": list(names), "_type": "ClassLabel"}} if names else {}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    images = pa.array(
        [None if data is None else {"bytes": data, "path": name} for data, name, _ in rows],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    table = pa.table({image: images, label: pa.array([row[2] for row in rows], pa.int64())})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=2)
    return path


def write_imagenet(root: Path) -> Path:
    """Write small ImageNet as imagenet-1k has it: the class behind each name, a test set without labels."""
    names = [WORDS[wnid] for wnid in WNIDS]
    train = [
        (data, f"{name.removesuffix('.JPEG')}_{wnid}.JPEG", WNIDS.index(wnid))
        for wnid, files in TRAIN.items()
        for name, data in files.items()
    ]
    val = [(d, f"ILSVRC2012_val_{k:08d}_{wnid}.JPEG", WNIDS.index(wnid)) for k, (wnid, d) in enumerate(VAL, 1)]
    for k in range(2):
        write_parquet(root / f"data/train-{k:05d}-of-00002.parquet", train[k::2], names=names)
    write_parquet(root / "data/validation-00000-of-00001.parquet", val[::-1], names=names)
    write_parquet(root / "data/test-00000-of-00001.parquet", [(b"t", "ILSVRC2012_test_1.JPEG", -1)], names=names)
    return root


def pictures(count: int, classes: int = 2) -> list[Row]:
    return [(PNG + bytes([k]), f"{k}.png", k % classes) for k in range(count)]


def test_imagenet_is_what_the_official_archives_hold_in_their_order(tmp_path: Path) -> None:
    write_official(tmp_path / "official", WORDS, TRAIN, VAL)
    official, source = open_source(tmp_path / "official"), open_source(write_imagenet(tmp_path / "hf"))
    assert source.digest() == official.digest(), "classes, names, lengths and labels"
    assert [record.words for record in source.classes] == [WORDS[wnid] for wnid in WNIDS]
    assert "1 file is not read: data/test-00000-of-00001.parquet" in source.notes
    unpacked = materialise(source, tmp_path / "scratch")
    for split in SPLITS:
        assert bytes_of(unpacked, split) == bytes_of(official, split)


@pytest.mark.parametrize("folder", ["", "data/", "plain_text/"])
@pytest.mark.parametrize("part", ["{}-00000-of-00001", "{}-00000-of-00001-0123456789abcdef", "{}", "{}/0000"])
def test_other_sets_are_read_wherever_their_files_lie(tmp_path: Path, folder: str, part: str) -> None:
    for split, rows in (("train", pictures(5)), ("test", pictures(3))):
        path = tmp_path / f"{folder}{part.format(split)}.parquet"
        write_parquet(path, rows, names=("cat", "dog"), image="img", label="fine_label")
    source = open_source(tmp_path)
    assert class_names(source) == ["cat", "dog"]
    assert [(m.name, m.label) for m in source.members["val"]] == [("0.png", 0), ("1.png", 1), ("2.png", 0)]
    assert [m.name for m in source.members["train"]] == ["0.png", "2.png", "4.png", "1.png", "3.png"]


def test_images_without_a_name_are_called_by_file_and_row(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", [(data, None, label) for data, _, label in pictures(3)])
    source = open_source(tmp_path)
    assert [m.name for m in source.members["train"]] == ["train-0_00000", "train-0_00002", "train-0_00001"]
    assert class_names(source) == ["0", "1"]
    assert any("classes are called by their numbers, 0 to 1, as nothing names them" in note for note in source.notes)


def test_test_images_without_labels_are_left_out_with_a_note(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", pictures(4))
    write_parquet(tmp_path / "test.parquet", [(data, name, -1) for data, name, _ in pictures(4)])
    source = open_source(tmp_path)
    assert len(source.members["val"]) == 0
    assert any("1 files of test images without labels (all -1) are left out" in note for note in source.notes)


def test_unpacking_that_was_stopped_goes_on_with_the_next_file(tmp_path: Path) -> None:
    source, scratch = open_source(write_imagenet(tmp_path / "hf")), tmp_path / "scratch"

    def stop(amount: Amount) -> None:
        if amount.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        materialise(source, scratch, stop)
    (first,) = (path for path in scratch.rglob("*") if path.is_file())
    inode = first.stat().st_ino
    told: list[Amount] = []
    unpacked = materialise(source, scratch, told.append)
    assert (told[0].done, told[-1].done, told[-1].total) == (0, packed_bytes(source), packed_bytes(source))
    (folder,) = scratch.iterdir()
    assert (folder / first.name).stat().st_ino == inode
    assert bytes_of(unpacked, "train") == bytes_of(materialise(source, tmp_path / "other"), "train")


def test_some_classes_take_the_room_of_their_images(tmp_path: Path) -> None:
    source = open_source(write_imagenet(tmp_path / "hf"))
    (tmp_path / "list").write_text(WNIDS[2])
    chosen = select_classes(source, tmp_path / "list")
    found = bytes_of(materialise(chosen, tmp_path / "scratch"), "train")
    assert found == [(WNIDS[2], name, data) for name, data in sorted(TRAIN[WNIDS[2]].items())]
    assert packed_bytes(chosen) < packed_bytes(source)


def test_files_whose_paths_are_alike_are_unpacked_apart(tmp_path: Path) -> None:
    for k, name in enumerate(("train/0-0", "train-0/0")):
        write_parquet(tmp_path / f"hf/{name}.parquet", [(PNG + bytes([k]), f"{k}.png", 0)])
    found = bytes_of(materialise(open_source(tmp_path / "hf"), tmp_path / "scratch"), "train")
    assert [data for _, _, data in found] == [PNG + bytes([k]) for k in range(2)]


def test_a_data_set_is_made_with_its_rejects_named_and_nothing_unpacked_left(tmp_path: Path) -> None:
    write_parquet(tmp_path / "hf/train.parquet", [(b"", "empty.jpg", 0), *pictures(6), (b"no picture", "bad.jpg", 1)])
    settings = ConvertSettings(size_px=16)
    for _ in range(2):  # the second finds it complete
        manifest = build(open_source(tmp_path / "hf"), tmp_path / "out", settings)
    assert (manifest.counts["train"].written, manifest.counts["train"].rejected) == (6, 2)
    rejects = {(reject.source, reject.member, reject.offset) for reject in rejects_of(tmp_path / "out")}
    assert rejects == {("train.parquet", "bad.jpg", None), ("train.parquet", "empty.jpg", None)}
    assert not (tmp_path / "out/.work").exists()
    assert sorted(SplitReader(tmp_path / "out", "train").labels.tolist()) == [0, 0, 0, 1, 1, 1]


def test_a_kind_of_image_that_cannot_be_decoded_here_is_named_before_converting(tmp_path: Path) -> None:
    rows = [(b"\xff\x0a" + bytes(20), name, label) for _, name, label in pictures(4)]
    write_parquet(tmp_path / "hf/train.parquet", rows)
    with pytest.raises(InputError, match="none of its pictures can be decoded; JPEG XL"):
        build(open_source(tmp_path / "hf"), tmp_path / "out", ConvertSettings(size_px=16))


def test_a_disk_without_room_for_the_unpacked_images_is_refused_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(write_imagenet(tmp_path / "hf"))
    monkeypatch.setattr(building, "packed_bytes", lambda _: 10**18)
    with pytest.raises(InputError, match=r"are needed and .* are free; make room"):
        build(source, tmp_path / "out", ConvertSettings(size_px=16))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_changed_since_it_was_listed_is_no_source(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "hf/train.parquet", pictures(4))
    source = open_source(tmp_path / "hf")
    write_parquet(path, pictures(3))
    with pytest.raises(SourceChangedError, match="other images than were listed"):
        materialise(source, tmp_path / "scratch")


TENCH, FISH = "n00000001_1_n00000001.JPEG", "n00000002_1_n00000002.JPEG"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"train": [(None, "a.jpg", 0)]}, "row 0: has no bytes of an image"),
        ({"train": [*pictures(3), (PNG, "x.png", None)]}, "row 3: its label is 'None'"),
        ({"train": [*pictures(3), (PNG, "x.png", -1)]}, "row 3: its label is -1"),
        ({"train": [*pictures(2), *pictures(2)]}, r"0\.png is in train\.parquet and in train\.parquet"),
        ({"train-0": pictures(2), "train-1": pictures(2)}, r"0\.png is in train-0\.parquet and in train-1"),
        ({"train-00000-of-00003": [], "train-00002-of-00003": []}, r"lacks train-00001-of-00003.parquet, and 1 of 3"),
        ({"train-00000-of-00001": [], "train-00000-of-00001-0123456789abcdef": []}, "several versions"),
        ({"train": [(PNG, TENCH, 0), (PNG, FISH, 0)]}, "class n00000002, and its label 0 is n00000001 elsewhere"),
        ({"train": [(PNG, TENCH, 0)], "validation": [(PNG, TENCH, 1)]}, "label is 1 here and 0 elsewhere"),
        ({"validation": pictures(2)}, "no parquet files of training images"),
        ({"train": pictures(2), "more": pictures(2)}, "more.parquet is neither training nor validation"),
        ({"a/train": pictures(2), "b/train": pictures(2)}, "several sets of parquet files, a, b; give one"),
        ({"train": pictures(2), "data/val": pictures(2)}, "several sets of parquet files, ., data; give one"),
        ({"train": []}, "holds no training images"),
    ],
)
def test_rows_that_may_be_wrong_are_refused_in_one_line(tmp_path: Path, files: dict[str, Any], said: str) -> None:
    for name, rows in files.items():
        write_parquet(tmp_path / f"{name}.parquet", rows)
    refused(tmp_path, said)


def test_other_columns_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), tmp_path / "train.parquet")
    refused(tmp_path, "its columns are text, label; wanted are one of images")


def test_names_of_half_a_character_are_none(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", pictures(2), names=("cat\ud800", "dog"))
    assert class_names(open_source(tmp_path)) == ["0", "1"]


def test_files_of_two_sets_are_refused(tmp_path: Path) -> None:
    for k, names in enumerate((("cat", "dog"), ("dog", "cat"))):
        write_parquet(tmp_path / f"train-{k}.parquet", pictures(2), names=names)
    refused(tmp_path, r"train-1\.parquet: names other classes than the files before it")


@pytest.mark.parametrize("cut", [0, 3, 40, -1, -9, -200])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    path = write_parquet(tmp_path / "train.parquet", pictures(40))
    path.write_bytes(path.read_bytes()[:cut])
    refused(tmp_path, r"train\.parquet: (cannot be read as parquet|is empty)")


def test_damage_inside_a_file_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "train.parquet", pictures(40))
    data = bytearray(path.read_bytes())
    data[4:400] = bytes(396)
    path.write_bytes(data)
    refused(tmp_path, r"train\.parquet: cannot be read as parquet")


def test_without_pyarrow_the_command_that_installs_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "train.parquet", pictures(2))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(tmp_path, r"pip install 'alexnet\[parquet\]'")
