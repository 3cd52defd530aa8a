"""The output folder of a conversion: begin one there, go on with one, refuse another's, or delete one.

A folder is one conversion's from its first file on, `.work/job.json`, which says which. So it is at every moment until
`.work` goes: what a kill leaves is known by its name, and the next call takes it up. The caller holds the folder
(`held`).
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alexnet.shards import files
from alexnet.shards.colour import ColourStatistics
from alexnet.shards.errors import InputError, reason_of
from alexnet.shards.files import CHECKSUMS_NAME, put_on_disk
from alexnet.shards.info import INFO_NAME, info_json
from alexnet.shards.manifest import (
    FILES,
    MANIFEST_NAME,
    SCHEMA,
    SPLITS,
    ClassRecord,
    Manifest,
    ShardRecord,
    SplitCounts,
    read_manifest,
)
from alexnet.shards.writer import file_record, remove_partials, write_checksums
from alexnet.tools.convert.bucket import bucket_of
from alexnet.tools.convert.earlier import (
    Job,
    Listed,
    changed_rejects,
    differences,
    forget,
    left_to_convert,
    other_source,
    rejects_of,
)
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.plan import ShardPlan
from alexnet.tools.convert.shard import ConversionError
from alexnet.tools.output_folder import JOB, WORK, OwnFiles, locked

INDEX = f"{WORK}/index"
"""Where the list of the source is kept for the next call."""
CLEARING = ".clearing"
"""What is there while a data set is being deleted, so that the next call can go on with it."""
_DIGITS = "[0-9]" * 6
_WRITTEN = (MANIFEST_NAME, *FILES, INFO_NAME, CHECKSUMS_NAME)
OWN_FILES = OwnFiles(
    files=(
        *(CLEARING, *_WRITTEN, *(f".{name}.partial" for name in _WRITTEN), f"{CHECKSUMS_NAME}.partial"),
        *(f"{split}/{_DIGITS}*.{kind}" for split in SPLITS for kind in ("tar", "idx", "partial")),
        *(JOB, INDEX, *(f"{WORK}/{name}" for name in ("*.notes", "*.npz", "*.partial", "pixels-*/*"))),
    ),
    folders=(WORK, *SPLITS, f"{WORK}/pixels-*"),
)


@contextmanager
def held(root: Path) -> Iterator[Callable[[], None]]:
    """Hold an output folder for this process alone, as `locked`. Raises InputError if that cannot be.

    While it is held, an OSError becomes one line: InputError where something in the folder may not be read or written,
    else ConversionError, which says that the same command goes on.
    """
    with locked(root, "alexnet-prep") as check:
        try:
            yield check
        except OSError as error:  # a full disk, a vanished file
            where, why = error.filename or root, reason_of(error)
            inside = error.filename and Path(error.filename).absolute().is_relative_to(root.absolute())
            if isinstance(error, PermissionError) and inside:  # another user's, or a strict umask
                raise InputError(f"{where}: {why}; all of {root} must be yours to read and to write") from None
            raise ConversionError(f"{why}: {where}; mend it and give the same command again") from None


def is_complete(root: Path) -> bool:
    """Say whether a folder holds a finished data set."""
    return (root / MANIFEST_NAME).exists()


def is_begun(root: Path) -> bool:
    """Say whether a folder is a conversion's: finished, begun, or being deleted for another one."""
    return any((root / name).exists() for name in (MANIFEST_NAME, CLEARING, JOB))


def drop_index(root: Path) -> None:
    """Have the next call list the source anew; nothing is left of a call that came no further than its list."""
    (root / INDEX).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (root / WORK).rmdir()


def refuse_early(root: Path, settings: dict[str, Any], *, overwrite: bool) -> None:
    """Refuse what `begin` will refuse, as far as it shows before the source is listed, which can take an hour."""
    if overwrite or (root / CLEARING).exists():
        _refuse_to_clear(root)
    elif found := _found(root):
        refuse_differences(root, found, settings=settings)


def begin(root: Path, job: Job, source: Source, plans: list[ShardPlan], *, overwrite: bool) -> list[ShardPlan] | None:
    """Begin a job in a folder, or go on with it there; return the shards that are left of it, None if it is complete.

    Raises InputError if it holds another job's work, finished or not, or something else; `overwrite` deletes the
    former, never the latter.
    """
    found = take_up(root, overwrite=overwrite)
    if found:
        _refuse_other(root, found, job, source, plans)
    if is_complete(root):
        return None
    left = left_to_convert(root, source, plans, same_lengths=found is not None and found.source == job.source)
    claim(root, job)
    forget(root, left)
    return left


def take_up(root: Path, *, overwrite: bool) -> Job | None:
    """Return what a folder was to become, or became; None if it is empty, or was emptied to `overwrite` it.

    Raises InputError if it is no data set.
    """
    root.mkdir(parents=True, exist_ok=True)
    if overwrite or (root / CLEARING).exists():
        _clear(root)
    return _found(root)


def claim(root: Path, job: Job, folders: Sequence[str] = SPLITS) -> None:
    """Have a folder say whose it is, before anything else is in it; then make `folders` in it."""
    (root / WORK).mkdir(exist_ok=True)
    content = json.dumps(asdict(job)).encode()
    if bucket := bucket_of(root):
        bucket.claim(content)
    files.replace(root / JOB, content)
    for name in folders:
        (root / name).mkdir(exist_ok=True)


def complete(
    root: Path,
    job: Job,
    *,
    classes: Sequence[ClassRecord],
    counts: dict[str, SplitCounts],
    shards: Sequence[ShardRecord],
    colour: ColourStatistics,
) -> None:
    """Write the manifest, which makes a data set of a folder in which all else is."""
    manifest = Manifest(
        schema=SCHEMA,
        settings=job.settings,
        source=job.source,
        versions=job.versions,
        classes=tuple(classes),
        counts=counts,
        shards=tuple(shards),
        files=tuple(file_record(root, name) for name in FILES),
        colour=colour,
    )
    for record in manifest.files:  # .work, which they could be made from again, goes next
        put_on_disk(root / record.file)
    files.replace(root / MANIFEST_NAME, manifest.to_json().encode())


def seal(root: Path) -> None:
    """Leave nothing but the data set, and list it; done again if a kill came between manifest and list."""
    bucket = bucket_of(root)
    if (root / WORK).exists() or not (root / CHECKSUMS_NAME).exists():
        stored = (manifest := read_manifest(root)).stored
        theirs = stored.adopted and (root / INFO_NAME).exists()
        if stored.encoding == "jpeg" and not theirs:  # its reader takes pictures only, and so no planes
            files.replace(root / INFO_NAME, info_json(manifest))
        if bucket:
            bucket.tidy(manifest.shards, OWN_FILES.knows)
        shutil.rmtree(root / WORK, ignore_errors=True)
        if not stored.adopted or stored.encoding != "jpeg":
            remove_partials(root)
        write_checksums(root)
    if bucket:
        bucket.finish(name for name in _WRITTEN if (root / name).exists())


def _found(root: Path) -> Job | None:
    """Return what `take_up` does of a folder that is not emptied."""
    if is_complete(root):
        made = read_manifest(root)
        images = {split: counts.input for split, counts in made.counts.items()}
        listed = Listed(classes=[record.wnid for record in made.classes], images=images)
        return Job(settings=made.settings, source=made.source, versions=made.versions, listed=listed)
    if (root / JOB).exists():
        return files.read_json(root / JOB, Job, mend="give another --out, or --overwrite")
    if _is_foreign(root):
        raise InputError(f"{root}: exists and is no data set of alexnet-prep; give another --out, or empty it")
    return None


def _refuse_other(root: Path, found: Job, job: Job, source: Source, plans: list[ShardPlan]) -> None:
    """Raise InputError if a folder is another job's. Of one that is begun, images may have other lengths now."""
    complete, same = is_complete(root), found.source == job.source
    versions = found.versions if complete else job.versions
    refuse_differences(root, found, settings=job.settings, source=job.source, versions=versions)
    if complete and same:
        same = not changed_rejects(rejects_of(root), source.root)
    if not (same or (found.listed == job.listed and not complete)):
        raise other_source(root, differences(root, found.listed, job.listed, source, plans))


def given_back(root: Path) -> int:
    """Return how many bytes of a folder `--overwrite` would give back. Raises InputError if it may not be deleted."""
    _refuse_to_clear(root)
    return sum(path.lstat().st_blocks * 512 for path in root.rglob("*") if path.is_file())


def _clear(root: Path) -> None:
    """Delete a data set, finished or begun, and nothing else; killed on the way, the next call deletes the rest.

    What said whose the folder is becomes the mark that it is being deleted: that is one step, and takes no disk space.
    """
    _refuse_to_clear(root)
    mark = root / CLEARING
    for name in (MANIFEST_NAME, JOB):
        if (root / name).exists() and not mark.exists():
            (root / name).rename(mark)
    if bucket := bucket_of(root):
        bucket.clear(CLEARING)
    OWN_FILES.delete(root, last=(root / WORK, mark))


def _is_adopted(root: Path) -> bool:
    """Say whether a folder's tars were there before; by the bytes of what says so, which may be damaged."""
    said = [(root / name).read_bytes() for name in (MANIFEST_NAME, JOB) if (root / name).is_file()]
    return any(b'"adopted": true' in text and b'"encoding"' not in text for text in said)


def _refuse_to_clear(root: Path) -> None:
    if _is_adopted(root):
        raise InputError(
            f"--overwrite: the tars of {root} are not alexnet-prep's, so nothing was deleted; give another --out"
        )
    if _is_foreign(root):
        raise InputError(f"--overwrite: {root} is no data set of alexnet-prep, so nothing was deleted")
    OWN_FILES.refuse_foreign(root)


def _is_foreign(root: Path) -> bool:
    """Say whether a folder is no conversion's, nor empty, nor one in which one was killed before its first file."""
    return not is_begun(root) and (any(path.name != WORK for path in root.iterdir()) or bool(OWN_FILES.foreign(root)))


def refuse_differences(root: Path, found: Job, **wanted: dict[str, Any]) -> None:
    """Raise InputError if a folder's settings, source or versions, but for digests, are others than those wanted."""
    different = [
        f"{field} {there!r} there, {value!r} asked for"
        for key, fields in wanted.items()
        for field, value in fields.items()
        if field != "digest" and (there := getattr(found, key).get(field)) != value
    ]
    if different:
        raise InputError(
            f"{root}: already holds another data set ({'; '.join(different)}); give another --out, or --overwrite"
        )
