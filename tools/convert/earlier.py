"""What of an earlier call's work still stands, and what of its source is different now.

A shard stands if its images are what they were, the rejected ones included; one that does not is forgotten, and so
converted again. A rejected image is known by its bytes: sizes and times tell nothing of an image in a tar, and copying
a source changes times.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

from alexnet.shards.manifest import MANIFEST_NAME, REJECTED_NAME, SPLITS, Reject, read_rejects, shard_file
from alexnet.shards.writer import Sample
from alexnet.tools.convert.listing import Member, Source
from alexnet.tools.convert.opening import UndecodableError
from alexnet.tools.convert.plan import ShardPlan
from alexnet.tools.convert.shard import WORK, Notes, codecs, lengths_digest, notes_file, read_notes
from alexnet.tools.convert.source_files import SourceChangedError, SourceFiles


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Hold what `.work/job.json` keeps of a source: classes, images by split, a hash of names and labels if known."""

    classes: list[str]
    images: dict[str, int]
    names: str = ""

    @classmethod
    def of(cls, source: Source) -> Self:
        """Return what to keep of a source, so that another one can be compared with it."""
        return cls(
            classes=[record.wnid for record in source.classes],
            images={split: len(source.members[split]) for split in SPLITS},
            names=source.digest(("names", "name_ends", "labels")),
        )


def rejects_of(root: Path) -> list[Reject]:
    """Return what a conversion rejected, finished or not; nothing of a damaged list, which is for `verify` to find."""
    if (root / MANIFEST_NAME).exists():
        try:
            return list(read_rejects(root / REJECTED_NAME))
        except (OSError, ValueError):
            return []
    notes = [read_notes(file) for file in sorted((root / WORK).glob("*.notes"))]
    return [reject for some in notes if some for reject in some.rejected]


def changed_rejects(rejected: Iterable[Reject], source: Path) -> list[Reject]:
    """Return those of some rejected images that have other bytes now, can be read now, or are gone."""
    with SourceFiles(source) as files:
        return [reject for reject in rejected if _is_other(files, reject)]


def _is_other(files: SourceFiles, reject: Reject) -> bool:
    if reject.bytes is None or reject.offset is None:  # of an earlier version, which did not note by what to know it
        return False
    member = Member(reject.source, reject.member, reject.offset, reject.bytes, label=-1)
    try:
        return hashlib.sha256(files.read(member)).hexdigest() != reject.sha256
    except (SourceChangedError, FileNotFoundError, NotADirectoryError):
        return True
    except (UndecodableError, OSError):
        return False  # it cannot be read now, if it could before


def in_words(rejected: Sequence[Reject]) -> str:
    """Say how many rejected images these are, and name the first."""
    first = rejected[0]
    name = first.source if first.source.endswith(first.member) else f"{first.member} in {first.source}"
    return f"{len(rejected):,} rejected images, {name} the first" if len(rejected) > 1 else f"1 rejected image, {name}"


def outdated_shards(
    root: Path, source: Source, plans: list[ShardPlan], *, same_lengths: bool
) -> list[ShardPlan] | None:
    """Return the shards that are not what the source would give now; None if that is all of them.

    All are where each has an image that was good and has another length now: that is another source of the same names.
    `same_lengths`: no image of the source has another length than it had in the call before, so it is that one, and
    what is outdated is left of a call that was killed while it forgot.
    """
    outdated: list[ShardPlan] = []
    done = strange = 0
    for plan in plans:
        notes = read_notes(notes_file(root, plan))
        if notes is None:
            continue
        done += 1
        lengths = source.members[plan.split].lengths[plan.member_ids]
        same = notes.lengths == lengths_digest(lengths)
        if not (same and _rejects_stand(notes, plan, source)):
            outdated.append(plan)
        for reject in notes.rejected:
            lengths[reject.place - plan.first_place] = reject.bytes or 0
        strange += not same and notes.lengths != lengths_digest(lengths)
    return None if strange == done > 1 and not same_lengths else outdated


def _rejects_stand(notes: Notes, plan: ShardPlan, source: Source) -> bool:
    """Say whether a shard's rejects lie where they lay, with the bytes that they had, and would be rejected again."""
    for reject in notes.rejected:
        member = source.members[plan.split][int(plan.member_ids[reject.place - plan.first_place])]
        if (member.file, member.name, member.offset) != (reject.source, reject.member, reject.offset):
            return False
    return not notes.rejected or (notes.codecs == codecs() and not changed_rejects(notes.rejected, source.root))


def forget(root: Path, plans: Iterable[ShardPlan]) -> None:
    """Delete shards that were done, so that they are converted again."""
    for plan in plans:
        (root / shard_file(plan.split, plan.number)).unlink(missing_ok=True)  # first: a tar that is there is done
        notes_file(root, plan).unlink()


def differences(
    root: Path, before: Listed, now: Listed, source: Source, plans: list[ShardPlan], rejected: list[Reject]
) -> list[str]:
    """Say how a source differs from what it was, as far as that is recorded in a folder made of it."""
    found = [*_other_classes(set(before.classes), set(now.classes))]
    found += [
        f"{before.images[split]:,} {split} images there, {images:,} in the source"
        for split, images in now.images.items()
        if images != before.images[split]
    ]
    if other := changed_rejects(rejected, source.root):
        found.append(f"changed since, or gone: {in_words(other)}")
    return found or [*_renamed(root, source, plans)] or ["images had other names, labels or lengths"]


def _other_classes(before: set[str], now: set[str]) -> Iterator[str]:
    for where, some in (("there only", before - now), ("in the source only", now - before)):
        if some:
            yield f"class {min(some)} {where}" + (f", the first of {len(some):,}" if len(some) > 1 else "")


def _renamed(root: Path, source: Source, plans: list[ShardPlan]) -> Iterator[str]:
    """Name the first image that has another name, in what was made of a source with as many images."""
    for plan in plans:
        keys: dict[int, str] = {}
        with suppress(OSError):  # DALI's index file beside a shard has its keys
            lines = (root / shard_file(plan.split, plan.number)).with_suffix(".idx").read_text().splitlines()[1:]
            stems = (PurePosixPath(line.split()[3]).stem for line in lines)
            keys = {int(stem.partition("_")[0]): stem for stem in stems}
        for place, member in enumerate(plan.members(source), start=plan.first_place):
            key = Sample(place=place, stem=member.stem, label=member.label, jpeg=b"").key
            if keys.get(place, key) != key:
                was = keys[place].partition("_")[2]
                yield f"{plan.split} image {place:,} is {was} there, {member.name} in the source"
                return
