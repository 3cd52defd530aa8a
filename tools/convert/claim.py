"""Who may write to a folder, and what it is to become.

A folder is one conversion's from its first file on: `.work/job.json` says which. Two runs at once are kept apart by a
lock on the folder itself, which the kernel drops with the process, however that ends, and which leaves no file.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet.shards.checksums import CHECKSUMS_NAME
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import (
    INDEX_NAME,
    MANIFEST_NAME,
    MEAN_IMAGE_NAME,
    REJECTED_NAME,
    SPLITS,
    read_manifest,
)
from alexnet.tools.convert.differences import Listed, listed, source_differences
from alexnet.tools.convert.kept import changed_rejects, forget_outdated, rejected_so_far, rejects_of
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.plan import ShardPlan
from alexnet.tools.convert.work import WORK

Job = dict[str, Any]

_JOB = "job.json"
_LISTED = "listed"  # beside the job: what the source's list was
_INDEX = "index"
_CLEARING = "clearing"  # is there while a data set is being deleted, so that the next call can go on with it
_FILES = (MANIFEST_NAME, INDEX_NAME, MEAN_IMAGE_NAME, REJECTED_NAME, CHECKSUMS_NAME)
_FOLDERS = (WORK, *SPLITS)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold a folder for this process alone; make it if there is none. Raises InputError if another run holds it."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"--out {root}: {error.strerror}; give a folder that can be written") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{root}: another alexnet-prep is writing there; wait for it, or give another --out"
            ) from None
        yield
    except PermissionError as error:  # begun by another user, or under a strict umask
        raise InputError(
            f"{error.filename or root}: {error.strerror}; all of {root} must be yours to read and to write"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            root.rmdir()  # nothing came of it; a folder that holds anything stays
        os.close(handle)


def is_complete(root: Path) -> bool:
    """Say whether a folder holds a finished data set."""
    return (root / MANIFEST_NAME).exists() and not _is_being_cleared(root)


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
    """Have the next call list the source anew: files were overwritten, which their folder does not show."""
    (root / WORK / _INDEX).unlink(missing_ok=True)


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
    if job_file.exists():
        _check_job(root, job, now, source, plans)
    else:
        _refuse_foreign(root)
    for folder in (WORK, *SPLITS):
        (root / folder).mkdir(exist_ok=True)
    partial = job_file.with_suffix(".partial")
    partial.write_text(json.dumps({**job, _LISTED: now}))
    partial.replace(job_file)


def _check_set(root: Path, job: Job, source: Source, plans: list[ShardPlan]) -> None:
    """Refuse where a finished data set has other settings, or its source changed, be it an image that was rejected."""
    manifest = read_manifest(root)
    _refuse_differences(root, _but_digest(job, "settings", "source"), dataclasses.asdict(manifest))
    rejected = rejects_of(root)
    if manifest.source.get("digest") != job["source"]["digest"] or changed_rejects(rejected, source.root):
        images = {split: counts.input for split, counts in manifest.counts.items()}
        before = {"classes": [record.wnid for record in manifest.classes], "images": images}
        _refuse_changed(root, source_differences(root, before, source, plans, rejected))


def _check_job(root: Path, job: Job, now: Listed, source: Source, plans: list[ShardPlan]) -> None:
    """Refuse where another job began; where no more than lengths of files changed, forget what they outdate."""
    found = _read(root / WORK / _JOB)
    _refuse_differences(root, _but_digest(job, "settings", "source", "versions"), found)
    same = found.get("source", {}).get("digest") == job["source"]["digest"]
    if not same and found.get(_LISTED) != now:
        before, rejected = found.get(_LISTED, {}), rejected_so_far(root)
        _refuse_changed(root, source_differences(root, before, source, plans, rejected))
    if not forget_outdated(root, source, plans, same_lengths=same):
        _refuse_changed(root, ["images of every shard had other lengths"])


def _but_digest(job: Job, *keys: str) -> Job:
    return {key: {field: value for field, value in job[key].items() if field != "digest"} for key in keys}


def _clear(root: Path) -> None:
    """Delete a data set, finished or begun, and nothing else; killed on the way, the next call deletes the rest."""
    _refuse_to_clear(root)
    if not is_begun(root):
        return
    (root / WORK).mkdir(exist_ok=True)
    (root / WORK / _CLEARING).touch()
    for name in (*_FILES, f"{WORK}/{_JOB}"):
        (root / name).unlink(missing_ok=True)
    for name in (*SPLITS, WORK):  # the mark goes last
        if (root / name).exists():
            shutil.rmtree(root / name)


def is_begun(root: Path) -> bool:
    """Say whether a folder is a conversion's: finished, begun, or being deleted for another one."""
    return is_complete(root) or _is_being_cleared(root) or (root / WORK / _JOB).exists()


def _is_being_cleared(root: Path) -> bool:
    return (root / WORK / _CLEARING).exists()


def _refuse_foreign(root: Path) -> None:
    if any(path.name != WORK for path in root.iterdir()):
        raise InputError(f"{root}: exists and is no data set of alexnet-prep; give another --out, or empty it")


def _refuse_to_clear(root: Path) -> None:
    if not is_begun(root) and any(path.name != WORK for path in root.iterdir()):
        raise InputError(f"--overwrite: {root} is no data set of alexnet-prep, so nothing was deleted")
    foreign = sorted(path.name for path in root.iterdir() if path.name not in (*_FILES, *_FOLDERS))
    if foreign:
        raise InputError(f"--overwrite: {root} also holds {', '.join(foreign)}, so nothing was deleted; move it away")
    links = [name for name in _FOLDERS if (root / name).is_symlink()]
    if links:
        raise InputError(
            f"--overwrite: {root / links[0]} leads elsewhere, so nothing was deleted; delete it yourself, and what it "
            "leads to"
        )


def _read(job_file: Path) -> Job:
    try:
        job = json.loads(job_file.read_text())
    except ValueError:
        job = None
    return job if isinstance(job, dict) else {}


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


def _refuse_changed(root: Path, differences: list[str]) -> None:
    raise InputError(
        f"{root}: is of the source as it was before ({'; '.join(differences)}); give another --out, or --overwrite to "
        "make it anew"
    )
