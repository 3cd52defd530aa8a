"""Say what of a source differs from what a folder was made of: two hashes tell that something does, and not what."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alexnet.shards.manifest import SPLITS, Split, shard_file
from alexnet.shards.writer import Sample
from alexnet.tools.convert.kept import Rejected, changed_rejects, in_words
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.plan import ShardPlan

Listed = dict[str, Any]
"""What is kept of a listing: `classes`, WNIDs; `images` by split; `names`, a hash of names and labels."""


def listed(source: Source) -> Listed:
    """Return what to keep of a source's listing, so that another one can be compared with it."""
    return {
        "classes": [record.wnid for record in source.classes],
        "images": {split: len(source.members[split]) for split in SPLITS},
        "names": source.digest(("names", "name_ends", "labels")),
    }


def source_differences(
    root: Path, before: Listed, source: Source, plans: list[ShardPlan], rejected: list[Rejected]
) -> list[str]:
    """Say how a source differs from what it was, as far as that is recorded in a folder made of it."""
    found: list[str] = []
    if before:
        now = listed(source)
        found += [*_classes(before["classes"], now["classes"]), *_counts(before["images"], now["images"])]
    other = changed_rejects(rejected, source.root)
    if other:
        found.append(f"changed since, or gone: {in_words(other)}")
    if before and not found:
        found += _names(root, source, plans, rejected)
    return found or ["images had other names, labels or lengths"]


def _counts(before: dict[Split, int], now: dict[Split, int]) -> Iterator[str]:
    for split in SPLITS:
        if before[split] != now[split]:
            yield f"{before[split]:,} {split} images there, {now[split]:,} in the source"


def _classes(before: list[str], now: list[str]) -> Iterator[str]:
    for where, some in (("there only", set(before) - set(now)), ("in the source only", set(now) - set(before))):
        if some:
            first = min(some)
            more = f", the first of {len(some):,}" if len(some) > 1 else ""
            yield f"class {first} {where}{more}"


def _names(root: Path, source: Source, plans: list[ShardPlan], rejected: list[Rejected]) -> Iterator[str]:
    """Name the first image that has another name, in what was made of a source with as many images."""
    names = {(entry["split"], entry["place"]): entry["member"] for entry in rejected}
    for plan in plans:
        keys = _keys(root / shard_file(plan.split, plan.number))
        for place, member in enumerate(plan.members(source), start=plan.first_place):
            key = Sample(place=place, stem=member.stem, label=member.label, jpeg=b"").key
            was = names.get((plan.split, place), member.name)
            if was == member.name and keys.get(place, key) != key:
                was = keys[place].partition("_")[2]
            if was != member.name:
                yield f"{plan.split} image {place:,} is {was} there, {member.name} in the source"
                return


def _keys(tar: Path) -> dict[int, str]:
    """Return the keys of a shard by their places, from DALI's index file beside it; none if it is not there."""
    try:
        lines = tar.with_suffix(".idx").read_text().splitlines()[1:]
    except OSError:
        return {}
    keys = (os.path.splitext(line.split()[3])[0] for line in lines)  # noqa: PTH122
    return {int(key.partition("_")[0]): key for key in keys}
