"""Write a set as ILSVRC-2012 is downloaded: a tar of class tars, a tar of validation images, a devkit.

Worker processes make the images; this one writes them, in order, so any number of workers gives the same bytes. The
archives are written in `.work` and get their names when all of them are whole. A run that was stopped starts over.
"""

import gzip
import io
import itertools
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
from scipy.io import savemat

from alexnet.shards.errors import InputError
from alexnet.shards.files import put_on_disk, replace
from alexnet.shards.processes import Counts, WorkerDiedError, WorkerPool
from alexnet.tools.console import StoppedError
from alexnet.tools.convert.known import CLASSES, DEVKIT_TAR, TRAIN_TAR, VAL_IMAGES, VAL_TAR
from alexnet.tools.convert.sources.tables import GROUND_TRUTH, META
from alexnet.tools.output_folder import OwnFiles, needed_and_free
from alexnet.tools.synth.classes import VERSION, Choices, SynthSettings, traits_of, wnid_of, words_of
from alexnet.tools.synth.image import encode_photograph

RECORD_NAME = "synth.json"
"""What the folder holds; written last, so that a folder that has it is complete."""

_WORK = ".work"
_NAMES = (RECORD_NAME, TRAIN_TAR, VAL_TAR, DEVKIT_TAR)  # the record goes first: from then on the set is not complete
_WRITTEN = (*_NAMES, f".{RECORD_NAME}.partial")
_OWN = OwnFiles(files=(*_WRITTEN, *(f"{_WORK}/{name}" for name in _WRITTEN)), folders=(_WORK,))
_IMAGE_BYTES = 125_000  # on the disk: 110 kB, header and padding, and some to spare
_IMAGES_A_TASK = 16  # 2 MB that go through a pipe at a time
_MAT_TEXT_BYTES = 116  # at the start of meta.mat: SciPy writes the time there

Record = dict[str, dict[str, Any]]
Task = tuple[int, list[tuple[int, str]]]
"""A seed, and label and name of some images."""


def write_archives(
    root: Path,
    settings: SynthSettings,
    versions: dict[str, str],
    *,
    workers: int,
    overwrite: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> bool:
    """Write the archives to `root`; return False if they all were there.

    `on_progress` is told how many images are made. The caller holds the folder (`folder.held`, which reports an
    OSError). Raises InputError if it holds anything else or there is not the disk space, and StoppedError if the run
    stopped and may be started again.
    """
    if settings.classes == CLASSES and settings.val_images == VAL_IMAGES:
        raise InputError(
            f"val_images={VAL_IMAGES}: with {CLASSES:,} classes they would be taken for ILSVRC-2012's; give one more"
        )
    record = {"settings": {"version": VERSION, **asdict(settings)}, "versions": versions}
    try:
        if not _take_folder(root, record, overwrite=overwrite):
            return False
        with WorkerPool(make_images, workers, on_counts=lambda counts: on_progress(counts[0])) as pool:
            made = itertools.chain.from_iterable(pool.results(_tasks(settings), in_order=True))
            _write(root / _WORK / TRAIN_TAR, lambda file: _write_train(file, settings, made))
            if settings.val_images:
                _write(root / _WORK / VAL_TAR, lambda file: _write_tar(file, settings.val_stems(), made))
        _write(root / _WORK / DEVKIT_TAR, lambda file: file.write(_devkit(settings)))
        for path in list((root / _WORK).glob("*.tar*")):
            path.rename(root / path.name)
        replace(root / RECORD_NAME, (json.dumps(record, indent=1) + "\n").encode())
        shutil.rmtree(root / _WORK)
    except WorkerDiedError as error:
        raise StoppedError(f"{error} Give the same command again, with fewer --workers") from None
    return True


def make_images(task: Task, counts: Counts) -> list[bytes]:
    """Make some images' files, in a worker; `counts[0]`: how many there are."""
    seed, images = task
    files = []
    for label, stem in images:
        files.append(encode_photograph(traits_of(label), Choices(f"{seed} {stem}")))
        counts[0] += 1
    return files


def _tasks(settings: SynthSettings) -> Iterator[Task]:
    """Yield all images in the order of the archives."""
    train = ((label, stem) for label in range(settings.classes) for stem in settings.train_stems(label))
    images = itertools.chain(train, zip(settings.val_labels(), settings.val_stems(), strict=True))
    while some := list(itertools.islice(images, _IMAGES_A_TASK)):
        yield settings.seed, some


def _take_folder(root: Path, record: Record, *, overwrite: bool) -> bool:
    """Make the folder this set's and empty but for a record of it; return False if the set is complete there."""
    complete, begun = root / RECORD_NAME, root / _WORK / RECORD_NAME
    found = next((path for path in (complete, begun) if path.exists()), None)
    foreign = _OWN.foreign(root) if found else sorted(path.name for path in root.iterdir() if path.name != _WORK)
    if foreign and (overwrite or not found):
        kept = ", so nothing was deleted" if overwrite else ""
        raise InputError(f"{root}: holds {', '.join(foreign[:3])}, not made by synth{kept}; give another DIR")
    if found and not overwrite:
        _refuse_differences(root, record["settings"], _read(found))
        if found == complete:
            shutil.rmtree(root / _WORK, ignore_errors=True)  # a kill came between the record and the end
            return False
    own = [path for path in (*root.glob("*"), *root.glob(f"{_WORK}/*")) if path.is_file()] if found else []
    _check_disk(root, record["settings"], sum(path.stat().st_size for path in own))
    (root / _WORK).mkdir(exist_ok=True)
    replace(begun, json.dumps(record).encode())  # first: it says whose all else is
    for path in sorted(own, key=lambda path: path != complete):
        if path != begun:
            path.unlink(missing_ok=True)  # what a killed run left of the record went when it was written
    return True


def _refuse_differences(root: Path, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    different = [
        f"{field} {found.get(field)} there, {value} asked for"
        for field, value in wanted.items()
        if found.get(field) != value
    ]
    if different:
        raise InputError(
            f"{root}: already holds another set ({'; '.join(different)}); give another DIR, or --overwrite"
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text())["settings"]
    except (ValueError, LookupError, TypeError):
        settings = None
    return settings if isinstance(settings, dict) else {}


def _check_disk(root: Path, settings: dict[str, Any], given_back: int) -> None:
    needed = (settings["images"] + settings["val_images"]) * _IMAGE_BYTES
    free = shutil.disk_usage(root).free + given_back
    if needed > free:
        raise InputError(f"{root}: {needed_and_free(needed, free)}; make room, give another DIR, or fewer --images")


def _write(path: Path, content: Callable[[IO[bytes]], object]) -> None:
    with path.open("wb") as file:
        content(file)
    put_on_disk(path)


def _write_train(file: IO[bytes], settings: SynthSettings, made: Iterator[bytes]) -> None:
    """Write the tar of class tars; the header that comes before each is known when it is written."""
    for label in range(settings.classes):
        start = file.tell() + tarfile.BLOCKSIZE
        file.seek(start)
        _write_tar(file, settings.train_stems(label), made)
        end = file.tell()
        file.seek(start - tarfile.BLOCKSIZE)
        file.write(_header(f"{wnid_of(label)}.tar", end - start))
        file.seek(end)
    file.write(end_of_tar(file.tell()))


def _write_tar(file: IO[bytes], stems: Sequence[str], made: Iterator[bytes]) -> None:
    start = file.tell()
    for stem, data in zip(stems, made, strict=False):  # takes no image more than it has names
        file.write(_header(f"{stem}.JPEG", len(data)) + data + bytes(-len(data) % tarfile.BLOCKSIZE))
    file.write(end_of_tar(file.tell() - start))


def end_of_tar(length: int) -> bytes:
    """Return what ends a tar of a length: two empty blocks, and more to fill its last record."""
    end = length + 2 * tarfile.BLOCKSIZE
    return bytes(end + -end % tarfile.RECORDSIZE - length)


def _header(name: str, size: int) -> bytes:
    """Return a member's header: one block, whatever the size, and no time or owner in it."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


def _devkit(settings: SynthSettings) -> bytes:
    """Return the devkit without the times that SciPy and gzip put into it."""
    words = {wnid_of(label): words_of(label) for label in range(settings.classes)}
    files = devkit_files(words, [wnid_of(label) for label in settings.val_labels()])
    files[META] = b"MATLAB 5.0 MAT-file".ljust(_MAT_TEXT_BYTES) + files[META][_MAT_TEXT_BYTES:]
    folder = f"{DEVKIT_TAR.removesuffix('.tar.gz')}/data"
    return gzip.compress(tar_of({f"{folder}/{name}": data for name, data in files.items()}), mtime=0)


def tar_of(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    """Pack files by name into a tar, gzipped with mode `w:gz`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def devkit_files(
    words: Mapping[str, str], val: Sequence[str], ids: Mapping[str, int] | None = None
) -> dict[str, bytes]:
    """Return the devkit's two files that matter, by name.

    `words`: of each WNID. `val`: the WNID of each validation image. `ids`: the ILSVRC2012_ID of each WNID; given in
    falling order of WNIDs by default, so that they differ from labels, as in the real set.
    """
    ids = ids or {wnid: i for i, wnid in enumerate(sorted(words, reverse=True), start=1)}
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [(float(i), wnid, words[wnid], "", 0.0) for wnid, i in sorted(ids.items(), key=lambda item: item[1])]
    rows.append((float(len(ids) + 1), "n00000000", "everything", "", float(len(ids))))  # an inner synset, no class
    table = io.BytesIO()
    savemat(table, {"synsets": np.array(rows, dtype=fields).reshape(-1, 1)})
    return {META: table.getvalue(), GROUND_TRUTH: "".join(f"{ids[wnid]}\n" for wnid in val).encode()}
