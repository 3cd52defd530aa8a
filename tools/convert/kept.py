"""What of an earlier call's work still stands: shards whose images are what they were, the rejected ones included.

A shard that does not is forgotten, and so converted again; the others stay. A rejected image is known by its bytes:
sizes and times tell nothing of an image in a tar, and copying a source changes times.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet.shards.manifest import REJECTED_NAME, Reject, read_rejects, shard_file
from alexnet.tools.convert.listing import Member, Source
from alexnet.tools.convert.opening import UndecodableError
from alexnet.tools.convert.plan import ShardPlan
from alexnet.tools.convert.source_files import SourceChangedError, SourceFiles
from alexnet.tools.convert.work import WORK, codecs, lengths_digest, notes_file, read_notes, where

Rejected = dict[str, Any]
"""A line of rejected.jsonl."""

_KNOWN_BY = {"source", "member", "offset", "bytes", "sha256"}  # earlier versions did not note the last two


def rejected_so_far(root: Path) -> list[Rejected]:
    """Return what an unfinished conversion rejected."""
    return [entry for file in sorted((root / WORK).glob("*.npz")) for entry in read_notes(file).get("rejected", ())]


def rejects_of(root: Path) -> list[Rejected]:
    """Return what a finished data set lists as rejected; nothing of a damaged list, which is for `verify` to find."""
    try:
        return [_as_noted(reject) for reject in read_rejects(root / REJECTED_NAME)]
    except (OSError, ValueError):
        return []


def _as_noted(reject: Reject) -> Rejected:
    """Return a reject as the line that it was, without what earlier versions did not note."""
    absent = {"offset", "bytes", "sha256"} if reject.bytes is None else set()
    return {name: value for name, value in asdict(reject).items() if name not in absent}


def changed_rejects(rejected: Iterable[Rejected], source: Path) -> list[Rejected]:
    """Return those of some rejected images that have other bytes now, can be read now, or are gone."""
    with SourceFiles(source) as files:
        return [entry for entry in rejected if entry.keys() >= _KNOWN_BY and _is_other(files, entry)]


def in_words(some: list[Rejected]) -> str:
    """Say how many rejected images these are, and name the first."""
    first = some[0]
    name = first["source"] if first["source"].endswith(first["member"]) else f"{first['member']} in {first['source']}"
    return f"{len(some):,} rejected images, {name} the first" if len(some) > 1 else f"1 rejected image, {name}"


def outdated_shards(
    root: Path, source: Source, plans: list[ShardPlan], *, same_lengths: bool
) -> list[ShardPlan] | None:
    """Return the shards that are not what the source would give now; None if that is all of them.

    All are where each has an image that was good and has another length now: that is another source of the same names.
    `same_lengths`: no image of the source has another length than it had in the call before, so it is that one, and
    what is outdated is left of a call that was killed while it forgot.
    """
    lengths = {split: source.listing(split).lengths for split in source.members}
    outdated: list[ShardPlan] = []
    done = strange = 0
    for plan in plans:
        notes = read_notes(notes_file(root, plan))
        if not notes:
            continue
        done += 1
        here = lengths[plan.split][plan.member_ids]
        before = notes.get("lengths", lengths_digest(here) if same_lengths else None)  # older notes lack it
        if before != lengths_digest(here) or not _rejects_stand(notes, plan, source):
            outdated.append(plan)
            strange += before != lengths_digest(_but_rejects(here, plan, notes["rejected"]))
    return None if strange == done > 1 and not same_lengths else outdated


def forget(root: Path, plans: Iterable[ShardPlan]) -> None:
    """Delete shards that were done, so that they are converted again."""
    for plan in plans:
        (root / shard_file(plan.split, plan.number)).unlink(missing_ok=True)  # first: a tar that is there is done
        notes_file(root, plan).unlink()


def _but_rejects(lengths: npt.NDArray[np.uint32], plan: ShardPlan, rejected: list[Rejected]) -> npt.NDArray[np.uint32]:
    """Return the lengths of a shard's images with those that its rejects had."""
    lengths = lengths.copy()
    for entry in rejected:
        lengths[entry["place"] - plan.first_place] = entry.get("bytes", lengths[entry["place"] - plan.first_place])
    return lengths


def _rejects_stand(notes: dict[str, Any], plan: ShardPlan, source: Source) -> bool:
    """Say whether a shard's rejects lie where they lay, with the bytes that they had, and would be rejected again."""
    rejected: list[Rejected] = notes["rejected"]
    if not rejected:
        return True
    members = source.members[plan.split]
    for entry in rejected:
        member = members[int(plan.member_ids[entry["place"] - plan.first_place])]
        if not entry.keys() >= _KNOWN_BY or where(member).items() - entry.items():
            return False
    return notes.get("codecs") == codecs() and not changed_rejects(rejected, source.root)


def _is_other(files: SourceFiles, entry: Rejected) -> bool:
    member = Member(entry["source"], entry["member"], entry["offset"], entry["bytes"], label=-1)
    try:
        return bool(hashlib.sha256(files.read(member)).hexdigest() != entry["sha256"])
    except (SourceChangedError, FileNotFoundError, NotADirectoryError):
        return True
    except (UndecodableError, OSError):
        return False  # it cannot be read now, if it could before
