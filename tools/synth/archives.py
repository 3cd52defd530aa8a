"""Write a set as ILSVRC-2012 is downloaded: a tar of class tars, a tar of validation pictures, a devkit.

Workers write parts; this process appends them, in order, to archives that get their names when they are whole. So any
number of workers gives the same bytes, the pictures lie on the disk once, and a killed run goes on where it was.
"""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Split
from alexnet.tools.console import StoppedError
from alexnet.tools.convert.devkit import MOST_BYTES
from alexnet.tools.convert.known import CLASSES, DEVKIT_TAR, TRAIN_TAR, VAL_IMAGES, VAL_TAR
from alexnet.tools.convert.packed import files_in
from alexnet.tools.room import needed_and_free
from alexnet.tools.samples.official import tar_of, write_devkit
from alexnet.tools.synth.classes import wnid_of, words_of
from alexnet.tools.synth.growing import GrowingArchive, put_whole
from alexnet.tools.synth.parts import parts_of
from alexnet.tools.synth.settings import SynthSettings
from alexnet.tools.synth.workers import Workers

RECORD_NAME = "synth.json"
"""What the folder holds; written last, so that a folder that has it is complete."""

_WORK = ".work"
_WORK_SUFFIXES = (".json", ".part", ".partial", ".gz")  # notes, parts, what was cut short, SciPy's devkit
_IMAGE_BYTES = 125_000  # on the disk: 110 kB, header and padding, and some to spare
_ARCHIVES: dict[Split, str] = {"train": TRAIN_TAR, "val": VAL_TAR}
_OWN = (RECORD_NAME, TRAIN_TAR, VAL_TAR, DEVKIT_TAR)  # the record goes first: from then on the set is not complete
_MAT_TEXT_BYTES = 116  # at the start of meta.mat: SciPy writes the time there

Record = dict[str, dict[str, Any]]


def write_archives(
    root: Path,
    settings: SynthSettings,
    versions: dict[str, str],
    *,
    workers: int,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> bool:
    """Write the archives to `root`, or continue what an equal call left there; return False if they all were there.

    `on_progress(drawn, resumed)` counts pictures: of this call, and of earlier ones. The caller holds the folder's
    lock. Raises InputError if the folder holds anything else or there is no room, and StoppedError if the run stopped
    and can be continued.
    """
    if settings.classes == CLASSES and settings.val_images == VAL_IMAGES:
        raise InputError(
            f"val_images={VAL_IMAGES}: with {CLASSES:,} classes they would be taken for ILSVRC-2012's; give one more"
        )
    record: Record = {"settings": settings.as_record(), "versions": versions}
    try:
        if not _claim(root, record, overwrite=overwrite):
            return False
        _draw(root, settings, workers, on_progress)
        _write_devkit(root, settings)
        put_whole((json.dumps(record, indent=1) + "\n").encode(), root / RECORD_NAME, root / _WORK)
        shutil.rmtree(root / _WORK)
    except OSError as error:  # a full disk, a folder that may not be written
        raise StoppedError(
            f"{error.strerror}: {error.filename or root}; mend it and give the same command again"
        ) from None
    return True


def _draw(root: Path, settings: SynthSettings, workers: int, on_progress: Callable[[int, int], None]) -> None:
    """Write the archives of pictures."""
    work = root / _WORK
    archives = {split: GrowingArchive(root / name, work) for split, name in _ARCHIVES.items()}
    waiting = {split: parts[archives[split].parts :] for split, parts in parts_of(work, settings).items()}
    missing = [part.images for parts in waiting.values() for part in parts if not part.path.exists()]
    resumed = settings.images + settings.val_images - sum(missing)
    _check_room(root, sum(missing))
    on_progress(0, resumed)
    with Workers(min(workers, max(1, len(missing))), lambda drawn: on_progress(drawn, resumed)) as processes:
        for split, parts in waiting.items():
            processes.write(parts, archives[split].append)
            archives[split].finish()


def _claim(root: Path, record: Record, *, overwrite: bool) -> bool:
    """Make the folder this set's; return False if the set is complete there."""
    complete, begun = root / RECORD_NAME, root / _WORK / RECORD_NAME
    _refuse_foreign(root, ours=complete.exists() or begun.exists(), overwrite=overwrite)
    if complete.exists() and not overwrite:
        _refuse_differences(root, {"settings": record["settings"]}, _read(complete))
        shutil.rmtree(root / _WORK, ignore_errors=True)  # a kill came between the record and the end
        return False
    if begun.exists() and not overwrite:
        _refuse_differences(root, record, _read(begun))
        return True
    own = [root / name for name in _OWN if (root / name).exists()]
    settings = record["settings"]
    _check_room(root, settings["images"] + settings["val_images"], sum(path.stat().st_size for path in own))
    (root / _WORK).mkdir(exist_ok=True)
    for path in (root / _WORK).iterdir():
        if path != begun:  # which says until the next one takes its place that the folder is ours
            path.unlink()
    put_whole(json.dumps(record).encode(), begun, root / _WORK)
    for path in own:
        path.unlink()
    return True


def _refuse_foreign(root: Path, *, ours: bool, overwrite: bool) -> None:
    """Refuse a folder that holds anything that was not drawn; with `overwrite` also one that holds such things too."""
    work = (root / _WORK).iterdir() if (root / _WORK).is_dir() else ()
    strange = [f"{_WORK}/{path.name}" for path in work if path.suffix not in _WORK_SUFFIXES]
    present = [*sorted(path.name for path in root.iterdir() if path.name != _WORK), *strange]
    foreign = [name for name in present if name not in _OWN] if ours else present
    if foreign and (overwrite or not ours):
        kept = ", so nothing was deleted" if overwrite else ""
        raise InputError(f"{root}: holds {', '.join(foreign[:3])}, not drawn by synth{kept}; give another DIR")


def _refuse_differences(root: Path, wanted: Record, found: Record) -> None:
    different = [
        f"{field} {found.get(key, {}).get(field)} there, {value} asked for"
        for key, fields in wanted.items()
        for field, value in fields.items()
        if found.get(key, {}).get(field) != value
    ]
    if different:
        raise InputError(
            f"{root}: already holds another set ({'; '.join(different)}); give another DIR, or --overwrite"
        )


def _read(path: Path) -> Record:
    try:
        record = json.loads(path.read_text())
    except ValueError:
        record = None
    return record if isinstance(record, dict) else {}


def _check_room(root: Path, images: int, given_back: int = 0) -> None:
    needed, free = images * _IMAGE_BYTES, shutil.disk_usage(root).free + given_back
    if needed > free:
        raise InputError(f"{root}: {needed_and_free(needed, free)}; make room, give another DIR, or fewer --images")


def _write_devkit(root: Path, settings: SynthSettings) -> None:
    """Write the devkit without the times that SciPy and gzip put into it."""
    words = {wnid_of(label): words_of(label) for label in range(settings.classes)}
    val = [wnid_of(settings.val_label(number)) for number in range(1, settings.val_images + 1)]
    work = root / _WORK
    write_devkit(work, words, val)
    folder = DEVKIT_TAR.removesuffix(".tar.gz") + "/data"
    files = dict(files_in(work / DEVKIT_TAR, lambda _: True, MOST_BYTES))
    meta = next(name for name in files if name.endswith(".mat"))
    files[meta] = b"MATLAB 5.0 MAT-file".ljust(_MAT_TEXT_BYTES) + files[meta][_MAT_TEXT_BYTES:]
    devkit = gzip.compress(tar_of({f"{folder}/{name}": data for name, data in files.items()}), mtime=0)
    put_whole(devkit, root / DEVKIT_TAR, work)
