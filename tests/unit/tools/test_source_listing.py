"""A listing: columns that read like members, a digest that names them, and the classes that a user takes of it."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import SPLITS, ClassRecord, Split
from alexnet.shards.reader import SplitReader
from alexnet.shards.verify import verify
from alexnet.tools.convert.build import build
from alexnet.tools.convert.classes import order_notes, select_classes
from alexnet.tools.convert.listing import Listing, Member, Source
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import materialise, open_source
from tests.sources import write_cifar10
from tests.unit.tools.source_layouts import PNG, at_most, bytes_of, class_names, write

MEMBERS = [
    Member("a.tar", "n1_1.JPEG", 512, 100, 0),
    Member("a.tar", "", 2048, 0, 0),
    Member("b.tar", "straße/\udcff.jpg", 1 << 40, 7, 21_840),
]


def listing_of(members: Iterable[Member]) -> Listing:
    return Listing.of((m.label, m.file, [(os.fsencode(m.name), m.offset, m.length)]) for m in members)


def source_of(members: Iterable[Member], val: Iterable[Member] = ()) -> Source:
    listings: dict[Split, Listing] = {"train": listing_of(members), "val": listing_of(val)}
    return Source(root=Path("/a"), kind="k", classes=(ClassRecord(wnid="n1", words="crane"),), members=listings)


def test_a_listing_reads_like_its_members() -> None:
    listing = listing_of(MEMBERS)
    assert len(listing) == 3
    assert list(listing) == MEMBERS
    assert [listing[i] for i in (0, 1, 2, -1)] == [*MEMBERS, MEMBERS[-1]]
    with pytest.raises(IndexError):
        listing[3]
    assert list(listing_of([])) == []
    assert listing_of([Member("a", "b", 0, (1 << 32) + 5, 0)])[0].length == (1 << 32) - 1, "cut, not wrapped"


def test_members_of_folders_are_whole_files() -> None:
    groups = [(4, "train/n1", [(b"b.jpg", 0, 9), (b"a/c.jpg", 0, 8)]), (5, "", [(b"d.jpg", 0, 1)])]
    assert list(Listing.of(groups, in_folders=True)) == [
        Member("train/n1/a/c.jpg", "a/c.jpg", 0, 8, 4),
        Member("train/n1/b.jpg", "b.jpg", 0, 9, 4),
        Member("d.jpg", "d.jpg", 0, 1, 5),
    ]


def test_find_never_matches_across_two_names() -> None:
    listing = listing_of([Member("a", name, 0, 0, 0) for name in ("xab", "cd", "abcd", "ab")])
    assert [listing.find(text) for text in ("abc", "cd", "dab")] == [2, 1, None]


def test_members_take_less_than_50_bytes_each_and_80_while_they_are_collected() -> None:
    """A thousand members a class, with names as long as ImageNet's."""
    with at_most(80 * 40_000):
        listing = Listing.of(
            (k, f"n{k:08d}.tar", [(f"n{k:08d}_{i:05d}.JPEG".encode(), i << 17, 110_000) for i in range(1000)])
            for k in range(40)
        )
    assert listing[39_999] == Member("n00000039.tar", "n00000039_00999.JPEG", 999 << 17, 110_000, 39)
    assert sum(array.nbytes for array in listing.arrays().values()) < 50 * len(listing)


def test_the_digest_names_the_members_and_not_where_they_lie() -> None:
    source = source_of(MEMBERS)
    elsewhere = [replace(m, file=f"other/{m.file}", offset=m.offset + 512) for m in MEMBERS]
    assert replace(source_of(elsewhere), root=Path("/b"), kind="other", notes=("x",)).digest() == source.digest()
    listing = source.members["train"]
    wide = replace(listing, name_ends=listing.name_ends.astype(np.uint64))
    assert replace(source, members={**source.members, "train": wide}).digest() == source.digest()


def test_the_digest_changes_with_every_member_class_split_and_encoding() -> None:
    source = source_of(MEMBERS)
    others = [
        source_of([*MEMBERS[:2], replace(MEMBERS[2], label=1)]),
        source_of([*MEMBERS[:2], replace(MEMBERS[2], length=8)]),
        source_of([*MEMBERS[:2], replace(MEMBERS[2], name="other.jpg")]),
        source_of([replace(MEMBERS[0], name="n1_1.JPE"), replace(MEMBERS[1], name="G"), MEMBERS[2]]),
        source_of(MEMBERS[::-1]),
        source_of(MEMBERS[:2]),
        source_of([], MEMBERS),
        replace(source, classes=(ClassRecord(wnid="n2", words="crane"),)),
        replace(source, encoding="mnist"),
    ]
    assert len({source.digest(), *(other.digest() for other in others)}) == 1 + len(others)


# Classes of the user's choice, in the user's order


def listed(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_chosen_classes_keep_their_images_in_the_order_of_the_list(official: Path, tmp_path: Path) -> None:
    whole = open_source(official)
    names = listed(tmp_path / "two.txt", "\ufeffn00000003\r\n\r\nn00000001 crane, a bird\r\n")
    source = select_classes(whole, names)
    assert [(c.wnid, c.words) for c in source.classes] == [("n00000003", "crane"), ("n00000001", "crane")]
    assert source.label_order == "place of the class in two.txt"
    for split in SPLITS:
        rows = bytes_of(source, split)
        assert sorted(rows) == sorted(row for row in bytes_of(whole, split) if row[0] != "n00000002")
        order = [(wnid != "n00000003" if split == "train" else 0, name) for wnid, name, _ in rows]
        assert order == sorted(order)
    everything = listed(tmp_path / "all.txt", "".join(f"{c.wnid}\n" for c in whole.classes))
    assert select_classes(whole, everything).digest() == whole.digest()


@pytest.mark.usefixtures("here")
def test_a_data_set_of_chosen_classes_is_sound(official: Path, tmp_path: Path) -> None:
    names = listed(tmp_path / "two.txt", "n00000003\nn00000001\n")
    settings = ConvertSettings(size_px=40, shard_images=10, seed=7, class_order="as listed")
    manifest = build(select_classes(open_source(official), names), tmp_path / "set", settings)
    assert manifest.settings["class_order"] == "as listed"
    assert not verify(tmp_path / "set").findings
    assert sorted(set(SplitReader(tmp_path / "set", "train").labels.tolist())) == [0, 1]


def test_numbers_are_sorted_as_text_with_a_note_and_can_be_put_in_order(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "src", {f"{k}/{k}.jpg": PNG for k in range(12)}))
    assert class_names(source) == sorted(map(str, range(12)))
    (note,) = order_notes(source)
    assert "sorted as text, as everywhere: 0, 1, 10, 11, ...; so label 2 is class 10" in note
    assert "--classes FILE" in note
    ordered = select_classes(source, listed(tmp_path / "order", "".join(f"{k}\n" for k in range(12))))
    assert [(m.name, m.label) for m in ordered.members["train"]] == [(f"{k}.jpg", k) for k in range(12)]
    assert order_notes(ordered) == ()


def test_cifar_10_can_be_cut_down_to_two_classes(tmp_path: Path) -> None:
    pixels = write_cifar10(tmp_path / "cifar", 12, archive=False).reshape(-1, 3 * 32 * 32)
    source = select_classes(open_source(tmp_path / "cifar"), listed(tmp_path / "two", "truck\nairplane\n"))
    readable = materialise(source, tmp_path / "scratch")
    for wnid, digit in (("truck", 9), ("airplane", 0)):
        found = {data for split in SPLITS for name, _, data in bytes_of(readable, split) if name == wnid}
        assert found == {row.tobytes() for i, row in enumerate(pixels) if i % 12 % 10 == digit}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no class"),
        ("n00000001\nn00000009\n", "line 2: n00000009 is no class of the source"),
        ("n00000001, n00000002\ncrane\n", "line 2: crane is no class of the source"),
        ("n00000001\nn00000001 crane\n", "line 2: n00000001 crane is named a second time, after line 1"),
        (None, "cannot be read"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(official: Path, tmp_path: Path, text: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        select_classes(open_source(official), tmp_path / "no" if text is None else listed(tmp_path / "list", text))
