"""What a folder is to become, and what of it is ours.

A folder is one conversion's from its first file on, `.work/job.json`, which says which. So it is at every moment until
`.work` goes: what a kill leaves is known by its name, and the next call takes it up. The caller holds the folder
(`folder_lock.locked`).
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from alexnet.shards import files
from alexnet.shards.errors import InputError
from alexnet.shards.files import CHECKSUMS_NAME
from alexnet.shards.manifest import FILES, MANIFEST_NAME, SPLITS, read_manifest
from alexnet.tools.convert.differences import Listed, listed, source_differences
from alexnet.tools.convert.kept import changed_rejects, forget, outdated_shards, rejected_so_far, rejects_of
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.plan import ShardPlan
from alexnet.tools.convert.work import WORK
from alexnet.tools.folder_lock import locked
from alexnet.tools.own_files import OwnFiles

Job = dict[str, Any]

_JOB = "job.json"
_LISTED = "listed"  # beside the job: what the source's list was
_INDEX = "index"
_CLEARING = ".clearing"  # is there while a data set is being deleted, so that the next call can go on with it
_EARLIER_CLEARING = f"{WORK}/clearing"  # where earlier versions had it
_DIGITS = "[0-9]" * 6
_WRITTEN = (MANIFEST_NAME, *FILES, CHECKSUMS_NAME)
_OWN_FILES = OwnFiles(
    files=(
        *(
            _CLEARING,
            _EARLIER_CLEARING,
            *_WRITTEN,
            *(f".{name}.partial" for name in _WRITTEN),
            f"{CHECKSUMS_NAME}.partial",
        ),
        *(f"{split}/{_DIGITS}*.{kind}" for split in SPLITS for kind in ("tar", "idx", "partial")),
        *(f"{WORK}/{name}" for name in (_JOB, _INDEX, "*.npz", "*.partial", "pixels-*/*")),
    ),
    folders=(WORK, *SPLITS, f"{WORK}/pixels-*"),
)


@contextmanager
def held(root: Path) -> Iterator[Callable[[], None]]:
    """Hold an output folder for this process alone, as `folder_lock.locked`. Raises InputError if that cannot be."""
    with locked(root, "alexnet-prep") as check:
        try:
            yield check
        except PermissionError as error:  # begun by another user, or under a strict umask
            raise InputError(
                f"{error.filename or root}: {error.strerror}; all of {root} must be yours to read and to write"
            ) from None


def is_complete(root: Path) -> bool:
    """Say whether a folder holds a finished data set."""
    return (root / MANIFEST_NAME).exists()


def refuse_early(root: Path, settings: dict[str, Any], *, overwrite: bool) -> None:
    """Refuse what `claim` will refuse, as far as it shows before the source is listed, which can take an hour."""
    if overwrite or _is_being_cleared(root):
        _refuse_to_clear(root)
    elif is_complete(root):
        _refuse_differences(root, {"settings": settings}, {"settings": read_manifest(root).settings})
    elif (root / WORK / _JOB).exists():
        _refuse_differences(root, {"settings": settings}, _read(root / WORK / _JOB))
    else:
        _refuse_foreign(root)


def index_cache(root: Path) -> Path | None:
    """Return where the source's index may be kept for the next call; None in a folder that is finished or not ours."""
    if is_complete(root) or (any(root.iterdir()) and not (root / WORK).is_dir()):
        return None
    return root / WORK / _INDEX


def index_time(root: Path) -> int | None:
    """Return when the index that is kept was made, ns; None if there is none."""
    index = root / WORK / _INDEX
    return index.stat().st_mtime_ns if index.exists() else None


def drop_index(root: Path) -> None:
    """Have the next call list the source anew; nothing is left of a call that came no further than its list."""
    (root / WORK / _INDEX).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (root / WORK).rmdir()


def claim(root: Path, job: Job, source: Source, plans: list[ShardPlan], *, overwrite: bool) -> None:
    """Make the folder this job's, or find that it is already, and forget what of its shards the source outdated.

    Raises InputError if it holds another job's work, finished or not, or something else; `overwrite` deletes the
    former, never the latter.
    """
    root.mkdir(parents=True, exist_ok=True)
    if overwrite or _is_being_cleared(root):
        _clear(root)
    if is_complete(root):
        _check_set(root, job, source, plans)
        return
    job_file, now = root / WORK / _JOB, listed(source)
    outdated: list[ShardPlan] = []
    if job_file.exists():
        outdated = _outdated(root, job, now, source, plans)
    else:
        _refuse_foreign(root)
    (root / WORK).mkdir(exist_ok=True)
    files.replace(job_file, json.dumps({**job, _LISTED: now}).encode())  # before anything else: it says whose all is
    for split in SPLITS:
        (root / split).mkdir(exist_ok=True)
    forget(root, outdated)


def _check_set(root: Path, job: Job, source: Source, plans: list[ShardPlan]) -> None:
    """Refuse where a finished data set has other settings, or its source changed, be it an image that was rejected."""
    manifest = read_manifest(root)
    _refuse_differences(root, _but_digest(job, "settings", "source"), dataclasses.asdict(manifest))
    rejected = rejects_of(root)
    if manifest.source.get("digest") != job["source"]["digest"] or changed_rejects(rejected, source.root):
        images = {split: counts.input for split, counts in manifest.counts.items()}
        before = {"classes": [record.wnid for record in manifest.classes], "images": images}
        _refuse_changed(root, source_differences(root, before, source, plans, rejected))


def _outdated(root: Path, job: Job, now: Listed, source: Source, plans: list[ShardPlan]) -> list[ShardPlan]:
    """Refuse where another job began; where no more than lengths of files changed, return the shards they outdate."""
    found = _read(root / WORK / _JOB)
    _refuse_differences(root, _but_digest(job, "settings", "source", "versions"), found)
    same = found.get("source", {}).get("digest") == job["source"]["digest"]
    if not same and found.get(_LISTED) != now:
        before, rejected = found.get(_LISTED, {}), rejected_so_far(root)
        _refuse_changed(root, source_differences(root, before, source, plans, rejected))
    outdated = outdated_shards(root, source, plans, same_lengths=same)
    if outdated is None:
        _refuse_changed(root, ["images of every shard had other lengths"])
    return outdated


def _but_digest(job: Job, *keys: str) -> Job:
    return {key: {field: value for field, value in job[key].items() if field != "digest"} for key in keys}


def _clear(root: Path) -> None:
    """Delete a data set, finished or begun, and nothing else; killed on the way, the next call deletes the rest.

    What said whose the folder is becomes the mark that it is being deleted: that is one step, and takes no room.
    """
    _refuse_to_clear(root)
    mark = root / _CLEARING
    for name in (MANIFEST_NAME, f"{WORK}/{_JOB}"):
        if (root / name).exists() and not mark.exists():
            (root / name).rename(mark)
    _OWN_FILES.delete(root, last=(root / _EARLIER_CLEARING, root / WORK, mark))


def given_back(root: Path) -> int:
    """Return how many bytes of a folder `--overwrite` would give back. Raises InputError if it may not be deleted."""
    _refuse_to_clear(root)
    return sum(path.lstat().st_size for path in root.rglob("*") if path.is_file())


def is_begun(root: Path) -> bool:
    """Say whether a folder is a conversion's: finished, begun, or being deleted for another one."""
    return is_complete(root) or _is_being_cleared(root) or (root / WORK / _JOB).exists()


def _is_being_cleared(root: Path) -> bool:
    return any((root / mark).exists() for mark in (_CLEARING, _EARLIER_CLEARING))


def _refuse_foreign(root: Path) -> None:
    """Refuse a folder that is no conversion's, unless it is empty or one was killed there before its first file."""
    if _OWN_FILES.foreign(root) or any(path.name != WORK for path in root.iterdir()):
        raise InputError(f"{root}: exists and is no data set of alexnet-prep; give another --out, or empty it")


def _refuse_to_clear(root: Path) -> None:
    if not is_begun(root) and (_OWN_FILES.foreign(root) or any(path.name != WORK for path in root.iterdir())):
        raise InputError(f"--overwrite: {root} is no data set of alexnet-prep, so nothing was deleted")
    _OWN_FILES.refuse_foreign(root)


def _read(job_file: Path) -> Job:
    return files.read_json(job_file, dict[str, dict[str, Any]], mend="give another --out, or --overwrite")


def _refuse_differences(root: Path, wanted: Job, found: Job) -> None:
    different = [
        f"{field} {found.get(key, {}).get(field)!r} there, {value!r} asked for"
        for key, fields in wanted.items()
        for field, value in fields.items()
        if found.get(key, {}).get(field) != value
    ]
    if different:
        raise InputError(
            f"{root}: already holds another data set ({'; '.join(different)}); give another --out, or --overwrite"
        )


def _refuse_changed(root: Path, differences: list[str]) -> NoReturn:
    raise InputError(
        f"{root}: is of the source as it was before ({'; '.join(differences)}); give another --out, or --overwrite to "
        "make it anew"
    )
