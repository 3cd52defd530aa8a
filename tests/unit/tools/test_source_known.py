"""ILSVRC-2012 itself: wrong labels are refused, other counts are explained, other archives are noted."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.convert import known
from alexnet.tools.convert.listing import Listing
from alexnet.tools.convert.sources import DEVKIT_TAR, TRAIN_TAR, open_source
from alexnet.tools.convert.sources.tables import kaggle_labels, read_devkit
from alexnet.tools.samples.layouts import write_tree
from alexnet.tools.samples.official import write_devkit

WNIDS = [f"n{10_000_000 + 7 * i:08d}" for i in range(1000)]
WORDS = dict.fromkeys(WNIDS, "crane")
FIRST_LABELS, FIRST_IDS = (65, 970, 230, 809), (490, 361, 171, 822)
VAL = [WNIDS[k] for k in FIRST_LABELS] + [WNIDS[i % 1000] for i in range(49_996)]


def official_ids() -> dict[str, int]:
    """IDs in which the four first images have the published ones, as in the real devkit."""
    ids = dict(zip([WNIDS[k] for k in FIRST_LABELS], FIRST_IDS, strict=True))
    left = iter(sorted(set(range(1, 1001)) - set(FIRST_IDS)))
    return ids | {wnid: next(left) for wnid in WNIDS if wnid not in ids}


@pytest.fixture
def official_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the made-up classes pass for the 1,000 of ILSVRC-2012."""
    text = "".join(f"{wnid}\n" for wnid in WNIDS)
    monkeypatch.setattr(known, "_CLASSES_SHA256", hashlib.sha256(text.encode()).hexdigest())


def listing(counts: dict[int, int]) -> Listing:
    """As many nameless members of each class as asked for."""
    labels = np.repeat(np.array(list(counts), np.int32), list(counts.values()))
    return replace(Listing.of(()), labels=labels, name_ends=np.zeros(len(labels), np.uint32))


def test_a_devkit_with_the_published_labels_is_read(tmp_path: Path) -> None:
    write_devkit(tmp_path, WORDS, VAL, official_ids())
    devkit = read_devkit(tmp_path / DEVKIT_TAR)
    assert tuple(devkit.labels[devkit.wnids[f"ILSVRC2012_val_{i:08d}"]] for i in range(1, 5)) == FIRST_LABELS
    assert len(devkit.wnids) == 50_000


def test_a_devkit_whose_ids_are_no_longer_the_published_ones_is_refused(tmp_path: Path) -> None:
    """Labels right, IDs wrong: a devkit that someone renumbered, or IDs taken for labels."""
    ids = official_ids()
    ids[WNIDS[65]], ids[WNIDS[0]] = ids[WNIDS[0]], ids[WNIDS[65]]
    write_devkit(tmp_path, WORDS, VAL, ids)
    with pytest.raises(
        InputError, match="gives ILSVRC2012_val_00000001 the ILSVRC2012_ID 1, where ILSVRC-2012 has 490"
    ):
        read_devkit(tmp_path / DEVKIT_TAR)


def test_a_devkit_whose_classes_moved_is_refused(tmp_path: Path) -> None:
    """One WNID damaged so that it sorts elsewhere: every label after it would be off by one."""
    moved = {wnid: ("n00000001" if wnid == WNIDS[300] else wnid) for wnid in WNIDS}
    ids = {moved[wnid]: i for wnid, i in official_ids().items()}
    write_devkit(tmp_path, dict.fromkeys(ids, "crane"), [moved[wnid] for wnid in VAL], ids)
    with pytest.raises(InputError, match="ILSVRC2012_val_00000001 the label 66, where ILSVRC-2012 has 65"):
        read_devkit(tmp_path / DEVKIT_TAR)


def test_other_sets_of_1000_classes_are_not_held_to_it(tmp_path: Path) -> None:
    write_devkit(tmp_path, WORDS, VAL[:100])
    assert len(read_devkit(tmp_path / DEVKIT_TAR).wnids) == 100


def test_a_kaggle_table_that_contradicts_the_published_labels_is_refused(tmp_path: Path) -> None:
    for number, val in enumerate((VAL, VAL[1:] + VAL[:1])):
        root = tmp_path / str(number)
        root.mkdir()
        rows = [f"ILSVRC2012_val_{i:08d},{wnid} 85 1 499 272 \n" for i, wnid in enumerate(val, 1)]
        (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(rows))
    assert kaggle_labels(tmp_path / "0" / "LOC_val_solution.csv", {}).wnids["ILSVRC2012_val_00000003"] == WNIDS[230]
    with pytest.raises(InputError, match="ILSVRC2012_val_00000001 the label 970, where ILSVRC-2012 has 65"):
        kaggle_labels(tmp_path / "1" / "LOC_val_solution.csv", {})


@pytest.mark.usefixtures("official_classes")
def test_a_val_sorted_into_wrong_folders_is_refused(tmp_path: Path) -> None:
    train = {wnid: {f"{wnid}_1.JPEG": b"x"} for wnid in WNIDS}
    write_tree(tmp_path, train, [(wnid, b"x") for wnid in VAL[:4]])
    assert [m.label for m in open_source(tmp_path).members["val"]] == [65, 970, 230, 809]
    val = tmp_path / "val"
    (val / WNIDS[970] / "ILSVRC2012_val_00000002.JPEG").rename(val / WNIDS[65] / "ILSVRC2012_val_00000002.JPEG")
    with pytest.raises(InputError, match="val: gives ILSVRC2012_val_00000002 the label 65, where ILSVRC-2012 has 970"):
        open_source(tmp_path)


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


@pytest.mark.usefixtures("official_classes")
def test_the_published_counts_give_no_note() -> None:
    train = listing({0: 1_281_167 - 999} | dict.fromkeys(range(1, 1000), 1))
    assert known.count_notes(WNIDS, train, listing({0: 50_000})) == ()


def test_other_classes_are_not_compared_with_the_published_counts() -> None:
    assert known.count_notes(WNIDS[:10], listing(dict.fromkeys(range(10), 3)), listing({})) == ()


def test_archives_are_known_by_md5_when_asked(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    md5 = hashlib.md5((official / TRAIN_TAR).read_bytes()).hexdigest()
    archive = known.Archive(bytes=(official / TRAIN_TAR).stat().st_size, md5=md5)
    monkeypatch.setitem(known.ARCHIVES, TRAIN_TAR, archive)
    notes = known.md5_notes(known.archives_in(official))
    assert notes[0] == f"{TRAIN_TAR}: md5 {md5}, as published"
    assert "published 29b22e2961454d5413ddabcf34fc5622" in notes[1]
    assert not any(TRAIN_TAR in note for note in known.size_notes(official))
