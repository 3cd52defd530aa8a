"""The official archives: each image with its right label, or a refusal; labels other than the published are refused."""

import gzip
import hashlib
import random
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alexnet.shards import index
from alexnet.shards.errors import InputError
from alexnet.tools.convert import known
from alexnet.tools.convert.known import DOGS_TAR
from alexnet.tools.convert.listing import Listing
from alexnet.tools.convert.sources import DEVKIT_TAR, TRAIN_TAR, VAL_TAR, find_layout, open_source
from alexnet.tools.convert.sources.tables import kaggle_labels, read_devkit
from alexnet.tools.synth.archives import tar_of
from tests.sources import write_devkit, write_tree
from tests.unit.tools.source_layouts import bytes_of, class_names, refused

KIT_FOLDER = DEVKIT_TAR.removesuffix(".tar.gz")


@pytest.fixture
def copy(official: Path, tmp_path: Path) -> Path:
    """The archives of conftest, to be damaged."""
    return Path(shutil.copytree(official, tmp_path / "copy"))


def test_members_point_at_the_bytes_that_tarfile_extracts(official: Path) -> None:
    source = open_source(official)
    expected: dict[str, bytes] = {}
    with tarfile.open(official / TRAIN_TAR) as outer:
        for class_tar in outer:
            with tarfile.open(fileobj=outer.extractfile(class_tar)) as inner:
                expected |= {m.name: inner.extractfile(m).read() for m in inner}  # type: ignore[union-attr]
    assert {name: data for _, name, data in bytes_of(source, "train")} == expected
    assert all(name.startswith(f"{wnid}_") for wnid, name, _ in bytes_of(source, "train"))


def test_it_says_what_it_found_and_which_labels_it_will_write(official: Path) -> None:
    """IDs fall where WNIDs rise in this source, so a label of validation that was not translated would show."""
    source = open_source(official)
    assert source.kind == "ilsvrc2012-archives"
    assert source.description == "official ILSVRC-2012 archives, 3 classes, 27 train and 7 val entries"
    assert source.label_order == "place of the WNID in sorted order"
    assert (source.encoding, source.channels, source.size_px, find_layout(official).size_px) == ("file", 3, None, None)
    assert any(f"{TRAIN_TAR} has" in note and "147,897,477,120" in note for note in source.notes)
    assert class_names(source) == ["n00000001", "n00000002", "n00000003"]
    assert [c.words for c in source.classes].count("crane") == 2
    assert [m.label for m in source.members["val"]] == [0, 2, 1, 1, 2, 1, 0]
    assert [m.name[-13:-5] for m in source.members["val"]] == [f"{i:08d}" for i in range(1, 8)]


def test_the_training_archive_alone_is_enough(copy: Path) -> None:
    whole = open_source(copy)
    (copy / VAL_TAR).unlink()
    without_val = open_source(copy)
    (copy / DEVKIT_TAR).unlink()
    alone = open_source(copy)
    assert list(alone.members["train"]) == list(without_val.members["train"]) == list(whole.members["train"])
    assert len(alone.members["val"]) == 0
    assert f"no {VAL_TAR}: there will be no validation images" in alone.notes
    assert {c.words for c in without_val.classes} == {"crane", "maillot, tank suit"}
    assert [(c.wnid, c.words) for c in alone.classes] == [(f"n0000000{i}", f"n0000000{i}") for i in (1, 2, 3)]


def test_what_lies_beside_the_archives_is_said_not_to_be_read(copy: Path) -> None:
    for name in ("train", "val"):
        (copy / name).mkdir()
    shutil.copy(copy / TRAIN_TAR, copy / DOGS_TAR)
    (copy / VAL_TAR).unlink()
    notes = " ".join(open_source(copy).notes)
    for said in ("the folder train is not read", "the folder val is not read", f"{DOGS_TAR} is not read"):
        assert said in notes
    for path in (copy / TRAIN_TAR, copy / "train", copy / "val"):
        path.unlink() if path.is_file() else path.rmdir()
    refused(copy, "it holds the dogs of task 3 only")


@pytest.mark.parametrize("name", [TRAIN_TAR, DEVKIT_TAR])
def test_a_missing_archive_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    refused(copy, f"lacks {name}")


@pytest.mark.parametrize("name", [TRAIN_TAR, VAL_TAR, DEVKIT_TAR])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.4, 0.6])
def test_an_archive_cut_anywhere_is_refused_by_name(copy: Path, name: str, kept: float) -> None:
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: int(len(data) * kept)])
    refused(copy, name.replace(".", r"\."))


@pytest.mark.parametrize("kept", [0, 512, 1100, 4500, 4608])
def test_a_class_tar_that_is_cut_short_is_named_and_its_neighbour_is_not_read_into_it(copy: Path, kept: int) -> None:
    """The next class tar's header follows at once: without care its images would get this class's label."""
    tars = {f"n0000000{i}.tar": tar_of({f"n0000000{i}_{k}.JPEG": bytes(600) for k in range(3)}) for i in (1, 2, 3)}
    tars["n00000002.tar"] = tars["n00000002.tar"][:kept]  # three members take 3 * (512 + 1024) bytes
    (copy / TRAIN_TAR).write_bytes(tar_of(tars))
    (copy / VAL_TAR).unlink()
    refused(copy, r"n00000002\.tar")


@pytest.mark.parametrize(
    ("name", "files", "said"),
    [
        (VAL_TAR, {"ILSVRC2012_val_00000008.JPEG": b""}, r"ILSVRC2012_val_00000008\.JPEG has no label"),
        (VAL_TAR, {"ILSVRC2012_val_00000007.JPEG": b""}, "holds 1 images where .* has 7 labels"),
        (TRAIN_TAR, {"n00000009.tar": tar_of({"1.JPEG": b"x"})}, r"n00000009\.tar is no class tar of the 3 classes"),
        (TRAIN_TAR, {"n00000001.tar": tar_of({})}, "holds no class tar with images"),
    ],
)
def test_archives_of_different_sets_are_refused(copy: Path, name: str, files: dict[str, bytes], said: str) -> None:
    (copy / name).write_bytes(tar_of(files))
    refused(copy, said)


@pytest.mark.parametrize("form", ["gunzipped", "gunzipped under its old name", "extracted"])
def test_the_devkit_is_read_in_any_form(copy: Path, form: str) -> None:
    path = copy / DEVKIT_TAR
    data = gzip.decompress(path.read_bytes())
    path.unlink()
    if form == "extracted":
        subprocess.run(["tar", "-x", "-C", copy], input=data, check=True)
    else:
        (path if "old" in form else path.with_suffix("")).write_bytes(data)
    assert [m.label for m in open_source(copy).members["val"]] == [0, 2, 1, 1, 2, 1, 0]
    if form == "extracted":
        folder = copy / KIT_FOLDER / "data"
        (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("1" * 100_000)  # lost its line breaks
        refused(copy, f"line 1 of .* says '{'1' * 20}', which is no class of meta.mat")
        (folder / "meta.mat").write_bytes(bytes(1 << 25))
        refused(copy, "meta.mat: has 33,554,432 bytes")
        (folder / "meta.mat").unlink()
        refused(copy, r"holds no meta\.mat; give the devkit of tasks 1 and 2")


def test_no_damaged_byte_of_the_training_archive_ends_in_a_traceback(copy: Path) -> None:
    whole = (copy / TRAIN_TAR).read_bytes()
    rng = random.Random(2012)
    refusals = []
    for _ in range(60):
        at = rng.choice([rng.randrange(len(whole)), rng.randrange(min(1024, len(whole)))])
        (copy / TRAIN_TAR).write_bytes(whole[:at] + bytes([rng.randrange(256)]) + whole[at + 1 :])
        try:
            open_source(copy)
        except InputError as refusal:
            refusals.append(str(refusal))
    assert refusals
    assert not any("\n" in text for text in refusals)


WNIDS = [f"n{10_000_000 + 7 * i:08d}" for i in range(1000)]
FIRST_LABELS, FIRST_IDS = (65, 970, 230, 809), (490, 361, 171, 822)
LABELS = [WNIDS[k] for k in FIRST_LABELS] + [WNIDS[i % 1000] for i in range(49_996)]


def official_ids() -> dict[str, int]:
    """Return IDs in which the four first images have the published ones, as in the real devkit."""
    ids = dict(zip([WNIDS[k] for k in FIRST_LABELS], FIRST_IDS, strict=True))
    left = iter(sorted(set(range(1, 1001)) - set(FIRST_IDS)))
    return ids | {wnid: next(left) for wnid in WNIDS if wnid not in ids}


@pytest.fixture
def official_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the made-up classes pass for the 1,000 of ILSVRC-2012."""
    text = "".join(f"{wnid}\n" for wnid in WNIDS)
    monkeypatch.setattr(index, "OFFICIAL_CLASSES_SHA256", hashlib.sha256(text.encode()).hexdigest())


def listing(counts: dict[int, int]) -> Listing:
    """Return as many nameless members of each class as asked for."""
    labels = np.repeat(np.array(list(counts), np.int32), list(counts.values()))
    return replace(Listing.of(), labels=labels, name_ends=np.zeros(len(labels), np.uint32))


def test_a_devkit_with_the_published_labels_is_read_and_smaller_ones_are_not_held_to_it(tmp_path: Path) -> None:
    write_devkit(tmp_path, dict.fromkeys(WNIDS, "crane"), LABELS, official_ids())
    devkit = read_devkit(tmp_path / DEVKIT_TAR)
    stems = [f"ILSVRC2012_val_{i:08d}" for i in range(1, 50_001)]
    assert [devkit.wnids[stem] for stem in stems] == LABELS
    assert tuple(devkit.label_of(tmp_path, f"{stem}.JPEG") for stem in stems[:4]) == FIRST_LABELS
    write_devkit(tmp_path, dict.fromkeys(WNIDS, "crane"), LABELS[:100])
    assert len(read_devkit(tmp_path / DEVKIT_TAR).wnids) == 100


def test_a_devkit_whose_ids_or_classes_are_no_longer_the_published_ones_is_refused(tmp_path: Path) -> None:
    """Renumbered; and one WNID damaged so that it sorts elsewhere: every label after it would be off by one."""
    ids = official_ids()
    ids[WNIDS[65]], ids[WNIDS[0]] = ids[WNIDS[0]], ids[WNIDS[65]]
    write_devkit(tmp_path, dict.fromkeys(WNIDS, "crane"), LABELS, ids)
    with pytest.raises(InputError, match="val_00000001 the ILSVRC2012_ID 1, where ILSVRC-2012 has 490"):
        read_devkit(tmp_path / DEVKIT_TAR)
    moved = {wnid: ("n00000001" if wnid == WNIDS[300] else wnid) for wnid in WNIDS}
    ids = {moved[wnid]: i for wnid, i in official_ids().items()}
    write_devkit(tmp_path, dict.fromkeys(ids, "crane"), [moved[wnid] for wnid in LABELS], ids)
    with pytest.raises(InputError, match="ILSVRC2012_val_00000001 the label 66, where ILSVRC-2012 has 65"):
        read_devkit(tmp_path / DEVKIT_TAR)


def test_a_kaggle_table_that_contradicts_the_published_labels_is_refused(tmp_path: Path) -> None:
    for number, val in enumerate((LABELS, LABELS[1:] + LABELS[:1])):
        rows = [f"ILSVRC2012_val_{i:08d},{wnid} 85 1 499 272 \n" for i, wnid in enumerate(val, 1)]
        (tmp_path / f"{number}.csv").write_text("ImageId,PredictionString\n" + "".join(rows))
    assert kaggle_labels(tmp_path / "0.csv", {}).wnids["ILSVRC2012_val_00000003"] == WNIDS[230]
    with pytest.raises(InputError, match="ILSVRC2012_val_00000001 the label 970, where ILSVRC-2012 has 65"):
        kaggle_labels(tmp_path / "1.csv", {})


@pytest.mark.usefixtures("official_classes")
def test_a_val_sorted_into_wrong_folders_is_refused(tmp_path: Path) -> None:
    train = {wnid: {f"{wnid}_1.JPEG": b"x"} for wnid in WNIDS}
    write_tree(tmp_path, train, [(wnid, b"x") for wnid in LABELS[:4]])
    assert [m.label for m in open_source(tmp_path).members["val"]] == [65, 970, 230, 809]
    val = tmp_path / "val"
    (val / WNIDS[970] / "ILSVRC2012_val_00000002.JPEG").rename(val / WNIDS[65] / "ILSVRC2012_val_00000002.JPEG")
    refused(tmp_path, "val: gives ILSVRC2012_val_00000002 the label 65, where ILSVRC-2012 has 970")


@pytest.mark.usefixtures("official_classes")
def test_differences_of_the_counts_are_explained() -> None:
    train = listing(dict.fromkeys(range(1000), 732) | {7: 5, 8: 1301, 9: 0})
    notes = known.count_notes(WNIDS, train, listing({0: 49_999}))
    total = 732 * 997 + 5 + 1301
    assert notes[0] == f"1 class has no training images: {WNIDS[9]}"
    assert notes[1] == f"{total:,} training images, {1_281_167 - total:,} fewer than the published 1,281,167"
    assert f"1 class has fewer than 732 images, the least as published: {WNIDS[7]} (5)" in notes
    assert f"1 class has more than 1,300 images, the most as published: {WNIDS[8]} (1301)" in notes
    assert any(note.startswith("23 files are missing that other tools drop for being CMYK or PNG") for note in notes)
    assert notes[-1] == "49,999 validation images, 1 fewer than the published 50,000"
    as_published = listing({0: 1_281_167 - 999} | dict.fromkeys(range(1, 1000), 1))
    assert known.count_notes(WNIDS, as_published, listing({0: 50_000})) == ()
    assert known.count_notes(WNIDS[:10], listing(dict.fromkeys(range(10), 3)), listing({})) == ()


def test_archives_are_known_by_md5_when_asked(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    md5 = hashlib.md5((official / TRAIN_TAR).read_bytes()).hexdigest()
    monkeypatch.setitem(known._MD5, TRAIN_TAR, md5)
    monkeypatch.setitem(known._BYTES, TRAIN_TAR, (official / TRAIN_TAR).stat().st_size)
    notes = known.md5_notes(known.archives_in(official))
    assert notes[0] == f"{TRAIN_TAR}: md5 {md5}, as published"
    assert "published 29b22e2961454d5413ddabcf34fc5622" in notes[1]
    assert not any(TRAIN_TAR in note for note in known.size_notes(official))
