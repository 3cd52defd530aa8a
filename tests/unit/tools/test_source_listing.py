"""A listing of millions: it reads like a tuple, takes a few dozen bytes a member, and identifies the source."""

import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alexnet.shards.manifest import ClassRecord
from alexnet.tools.convert.listing import Listing, ListingBuilder, Member, Source

MEMBERS = [
    Member("a.tar", "n1_1.JPEG", 512, 100, 0),
    Member("a.tar", "", 2048, 0, 0),
    Member("b.tar", "straße/\udcff.jpg", 1 << 40, 7, 21_840),
]


def source_of(members: Iterable[Member]) -> Source:
    classes = (ClassRecord(wnid="n1", words="crane"),)
    return Source(
        root=Path("/a"), kind="k", classes=classes, members={"train": Listing.of(members), "val": Listing.of(())}
    )


def test_a_listing_reads_like_a_tuple() -> None:
    listing = Listing.of(MEMBERS)
    assert len(listing) == 3
    assert list(listing) == MEMBERS
    assert [listing[i] for i in (0, 1, 2, -1)] == [*MEMBERS, MEMBERS[-1]]
    assert MEMBERS[2] in listing
    with pytest.raises(IndexError):
        listing[3]
    assert list(Listing.of([])) == []


def test_members_of_folders_are_whole_files() -> None:
    builder = ListingBuilder(in_folders=True)
    builder.add("train/n1", 4, [(b"b.jpg", 0, 9), (b"a/c.jpg", 0, 8)])
    builder.add("", 5, [(b"d.jpg", 0, 1)])
    assert list(builder.finish()) == [
        Member("train/n1/a/c.jpg", "a/c.jpg", 0, 8, 4),
        Member("train/n1/b.jpg", "b.jpg", 0, 9, 4),
        Member("d.jpg", "d.jpg", 0, 1, 5),
    ]


def test_a_length_beyond_four_gibibytes_is_cut_not_wrapped() -> None:
    assert Listing.of([Member("a", "b", 0, (1 << 32) + 5, 0)])[0].length == (1 << 32) - 1


def test_find_never_matches_across_two_names() -> None:
    listing = Listing.of([Member("a", name, 0, 0, 0) for name in ("xab", "cd", "abcd", "ab")])
    assert listing.find("abc") == 2
    assert listing.find("cd") == 1
    assert listing.find("dab") is None


def synthetic(classes: int) -> Listing:
    """A thousand members a class, with names as long as ImageNet's."""
    builder = ListingBuilder()
    for k in range(classes):
        builder.add(f"n{k:08d}.tar", k, [(f"n{k:08d}_{i:05d}.JPEG".encode(), i << 17, 110_000) for i in range(1000)])
    return builder.finish()


def test_a_million_members_take_less_than_50_bytes_each() -> None:
    listing = synthetic(1000)
    assert len(listing) == 1_000_000
    assert listing[999_999] == Member("n00000999.tar", "n00000999_00999.JPEG", 999 << 17, 110_000, 999)
    assert sum(array.nbytes for array in listing.arrays().values()) < 50 * len(listing)


def test_members_take_less_than_80_bytes_each_also_while_they_are_collected() -> None:
    tracemalloc.start()
    listing = synthetic(100)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 60 * len(listing)
    assert peak < 80 * len(listing)


def test_the_digest_names_the_members_and_not_where_they_lie() -> None:
    digest = source_of(MEMBERS).digest()
    elsewhere = [replace(m, file=f"other/{m.file}", offset=m.offset + 512) for m in MEMBERS]
    assert replace(source_of(elsewhere), root=Path("/b"), kind="other", notes=("x",)).digest() == digest


@pytest.mark.parametrize(
    "changed",
    [
        [*MEMBERS[:2], replace(MEMBERS[2], label=1)],
        [*MEMBERS[:2], replace(MEMBERS[2], length=8)],
        [*MEMBERS[:2], replace(MEMBERS[2], name="other.jpg")],
        [replace(MEMBERS[0], name="n1_1.JPE"), replace(MEMBERS[1], name="G"), MEMBERS[2]],
        MEMBERS[::-1],
        MEMBERS[:2],
    ],
    ids=["label", "length", "name", "names' edges", "order", "fewer"],
)
def test_the_digest_changes_with_every_member(changed: list[Member]) -> None:
    assert source_of(changed).digest() != source_of(MEMBERS).digest()


def test_the_digest_changes_with_classes_splits_and_encoding() -> None:
    source = source_of(MEMBERS)
    others = (
        replace(source, classes=(ClassRecord(wnid="n2", words="crane"),)),
        replace(source, members={"train": Listing.of(()), "val": Listing.of(MEMBERS)}),
        replace(source, encoding="mnist"),
    )
    assert len({source.digest(), *(other.digest() for other in others)}) == 4


def test_the_digest_does_not_depend_on_the_width_of_a_column() -> None:
    listing = Listing.of(MEMBERS)
    wide = replace(listing, name_ends=listing.name_ends.astype(np.uint64))
    assert (
        replace(source_of(()), members={"train": wide, "val": Listing.of(())}).digest() == source_of(MEMBERS).digest()
    )
