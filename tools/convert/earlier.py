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
from typing import Any

import PIL
from PIL import features

from alexnet import __version__
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import MANIFEST_NAME, REJECTED_NAME, SPLITS, Reject, read_rejects, shard_file
from alexnet.shards.writer import Sample
from alexnet.tools.convert.listing import Member, Source
from alexnet.tools.convert.opening import UndecodableError
from alexnet.tools.convert.plan import ConvertSettings, ShardPlan
from alexnet.tools.convert.shard import Notes, codecs, finished, lengths_digest, notes_file, read_notes
from alexnet.tools.convert.source_files import SourceChangedError, SourceFiles
from alexnet.tools.output_folder import WORK


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Hold what is kept of a source's list: classes, images by split, a hash of names and labels if known."""

    classes: list[str]
    images: dict[str, int]
    names: str = ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Say what is to be made: what two calls must agree on to work on one folder.

    `settings`, `source` (kind and digest) and `versions` are the manifest's.
    """

    settings: dict[str, Any]
    source: dict[str, str]
    versions: dict[str, str]
    listed: Listed


def job_of(source: Source, settings: ConvertSettings) -> Job:
    """Describe what a source is to become."""
    return Job(
        settings={**settings.as_manifest(), "channels": source.channels},
        source={"kind": source.kind, "digest": source.digest()},
        versions=versions(),
        listed=Listed(
            classes=[record.wnid for record in source.classes],
            images={split: len(source.members[split]) for split in SPLITS},
            names=source.digest(("names", "name_ends", "labels")),
        ),
    )


def versions() -> dict[str, str]:
    """Return the versions of what shapes the bytes."""
    return {
        "alexnet": __version__,
        "pillow": PIL.__version__,
        "libjpeg-turbo": str(features.version_feature("libjpeg_turbo") or features.version_codec("jpg")),
    }


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
    if reject.bytes is None or reject.offset is None:  # packed, or of an earlier version, which did not note that
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


def left_to_convert(root: Path, source: Source, plans: Iterable[ShardPlan], *, same_lengths: bool) -> list[ShardPlan]:
    """Return the shards that are not done, or not what the source would give now.

    Where each has an image that was good and has another length now, it is another source of the same names: an
    InputError. `same_lengths`: no image has another length than in the call before, so it is that source, and what
    differs is left of a call that was killed while it forgot.
    """
    left, strange = list[ShardPlan](), list[bool]()
    for plan in plans:
        notes = finished(root, plan.split, plan.number)
        if notes is None:
            left.append(plan)
            continue
        lengths = source.members[plan.split].lengths[plan.member_ids]
        same = notes.lengths == lengths_digest(lengths)
        if not (same and _rejects_stand(notes, plan, source)):
            left.append(plan)
        for reject in notes.rejected:
            lengths[reject.place - plan.first_place] = reject.bytes or 0
        strange.append(not same and notes.lengths != lengths_digest(lengths))
    if all(strange) and len(strange) > 1 and not same_lengths:
        raise other_source(root, "images of every shard had other lengths")
    return left


def _rejects_stand(notes: Notes, plan: ShardPlan, source: Source) -> bool:
    """Say whether a shard's rejects lie where they lay, with the bytes that they had, and would be rejected again."""
    for reject in notes.rejected:
        member = source.members[plan.split][int(plan.member_ids[reject.place - plan.first_place])]
        if (member.file, member.name) != (reject.source, reject.member) or reject.offset not in (None, member.offset):
            return False
    return not notes.rejected or (notes.codecs == codecs() and not changed_rejects(notes.rejected, source.root))


def forget(root: Path, plans: Iterable[ShardPlan]) -> None:
    """Delete what there is of shards that are to be converted."""
    for plan in plans:
        if notes_file(root, plan.name).exists():
            (root / shard_file(plan.split, plan.number)).unlink(missing_ok=True)  # first: a tar that is there is done
            notes_file(root, plan.name).unlink()


def other_source(root: Path, what: str) -> InputError:
    """Return the error that says how a folder's source is another than the one it was made of."""
    return InputError(
        f"{root}: is of the source as it was before ({what}); give another --out, or --overwrite to make it anew"
    )


def differences(root: Path, before: Listed, now: Listed, source: Source, plans: list[ShardPlan]) -> str:
    """Say how a source differs from what it was, as far as that is recorded in a folder made of it."""
    said = [*_other_classes(set(before.classes), set(now.classes))]
    said += [
        f"{before.images[split]:,} {split} images there, {images:,} in the source"
        for split, images in now.images.items()
        if images != before.images[split]
    ]
    if other := changed_rejects(rejects_of(root), source.root):
        said.append(f"changed since, or gone: {in_words(other)}")
    return "; ".join(said or _renamed(root, source, plans)) or "images had other names, labels or lengths"


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
            key = Sample(place=place, stem=member.stem, label=member.label, stored=b"").key
            if keys.get(place, key) != key:
                was = keys[place].partition("_")[2]
                yield f"{plan.split} image {place:,} is {was} there, {member.name} in the source"
                return
