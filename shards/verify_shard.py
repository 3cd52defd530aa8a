"""Check one shard: the unit of a verification's parallel work.

The tar is read once for its sha256 and walked once by its own headers, as any tar reader would; its rows in the index,
its DALI index file and, given a decoder, its pixels are held against what is found there. No decoder is known here.
"""

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

import numpy as np
import numpy.typing as npt

from alexnet.shards.colour import ColourSums
from alexnet.shards.errors import one_line, reason_of
from alexnet.shards.files import map_array, open_regular
from alexnet.shards.index import INDEX_DTYPE
from alexnet.shards.manifest import INDEX_NAME, ShardRecord, StoredSettings
from alexnet.shards.processes import Counts
from alexnet.shards.tar import TarFaultError, TarSample, dali_line, walk_samples

Decoder = Callable[[bytes], tuple[npt.NDArray[np.uint8], int]]
"""Decode a stored JPEG: uint8 (height, width, channels), and the coarsest step that its DC terms are rounded to.

Raises ValueError with the reason where it cannot, or where the JPEG is not of the format's kind."""

_LINE_BYTES = 1 << 10  # a line of a `.idx` file has at most 250
_CHUNK_BYTES = 1 << 20
_MAX_CHARACTERS = 2000
_MAX_PER_FILE = 10  # a tar that was cut in half would otherwise fill the screen with its missing samples


@dataclass(frozen=True)
class Finding:
    """Name one thing that is wrong. `file` is relative to the data set; `sample` a key, where one is concerned."""

    file: str
    problem: str
    sample: str | None = None

    def __str__(self) -> str:
        """Say it in one line, whatever characters a file's name holds."""
        where = self.file if self.sample is None else f"{self.file}, sample {self.sample}"
        return one_line(f"{where}: {self.problem}")


class Findings:
    """Collect findings, the first ten of each file, and count what is left out."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Finding]] = {}
        self._more: Counter[str] = Counter()

    def add(self, file: str, problem: str, sample: str | None = None) -> None:
        """Note a finding."""
        kept = self._kept.setdefault(file, [])
        if len(kept) < _MAX_PER_FILE:
            kept.append(Finding(file, problem[:_MAX_CHARACTERS], sample))
        else:
            self._more[file] += 1

    def merge(self, other: Self) -> None:
        """Note what others found after this."""
        for finding in (finding for kept in other._kept.values() for finding in kept):
            self.add(finding.file, finding.problem, finding.sample)
        self._more += other._more

    def all(self) -> Iterator[Finding]:
        """Yield what was kept, by file, and a finding for each file of which more was found."""
        for file, kept in sorted(self._kept.items()):
            yield from kept
            if self._more[file]:
                yield Finding(file, f"and {self._more[file]:,} findings more")


@dataclass(frozen=True)
class ShardTask:
    """Say which shard of the data set `root` to check, and against what of the manifest.

    `number`: of its split's shards. `first_row`: in the index, None if there is no sound one. `classes`: how many there
    are. `decode`: None leaves the pixels alone.
    """

    root: Path
    record: ShardRecord
    number: int
    first_row: int | None
    classes: int
    stored: StoredSettings
    decode: Decoder | None


@dataclass(kw_only=True)
class ShardResult:
    """Hold what one shard has; `sha256` is None if it could not be read.

    `decoded`, `dc_step`: images whose pixels were looked at, and the coarsest step of their DC terms. `colour`: the
    sums of decoded training images.
    """

    record: ShardRecord
    colour: ColourSums | None
    bytes: int = 0
    sha256: str | None = None
    images: int = 0
    decoded: int = 0
    dc_step: int = 0
    findings: Findings = field(default_factory=Findings)


def check_shard(task: ShardTask, counts: Counts) -> ShardResult:
    """Check one tar, its index rows and its DALI index file; the first of `counts` grows by each byte that is done.

    A byte is done when it is hashed or, if pixels are looked at, which takes ten times as long, when they were.
    """
    train = task.record.split == "train"
    result = ShardResult(record=task.record, colour=ColourSums(task.stored.size_px) if task.decode and train else None)
    try:
        _hash(task.root / task.record.file, result, [0] if task.decode else counts)
        before = counts[0]
        _ShardCheck(task, result, counts).walk()
        counts[0] = before + (result.bytes if task.decode else 0)  # with headers, labels and padding
    except OSError as error:
        result.findings.add(task.record.file, f"cannot be read: {reason_of(error)}")
    return result


def _hash(path: Path, result: ShardResult, counts: Counts) -> None:
    sha256 = hashlib.sha256()
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
            result.bytes += len(chunk)
            counts[0] += len(chunk)
    result.sha256 = sha256.hexdigest()


class _ShardCheck:
    """Hold the samples of a tar, in their order, against all that is said of them elsewhere."""

    def __init__(self, task: ShardTask, result: ShardResult, counts: Counts) -> None:
        self._task, self._result, self._counts = task, result, counts
        self._rows = np.zeros(0, INDEX_DTYPE)
        if task.first_row is not None:
            last_row = task.first_row + task.record.images
            self._rows = map_array(task.root / INDEX_NAME, INDEX_DTYPE)[task.first_row : last_row]
        self._dali_name = f"{task.record.file.removesuffix('.tar')}.idx"
        lines = _lines(task.root / self._dali_name) if (task.root / self._dali_name).is_file() else None
        self._dali_lines = itertools.chain(lines, itertools.repeat(b"")) if lines else None
        self._dali_line = 0
        self._oddity, self._oddities, self._last_place = "", 0, -1

    def walk(self) -> None:
        """Check every sample, and what stands at the ends."""
        task, result = self._task, self._result
        self._check_dali(f"v1.2 {task.record.images}\n")
        with os.fdopen(open_regular(task.root / task.record.file), "rb") as tar:
            try:
                for sample in walk_samples(tar, self._note_oddity):
                    self._check_key_and_label(sample)
                    self._check_row(sample)
                    self._check_dali(dali_line(sample), sample.key)
                    self._check_jpeg(tar, sample)
                    result.images += 1
            except TarFaultError as fault:
                self._add(str(fault))
        if self._oddities:
            more = f", and {self._oddities - 1:,} more of the kind" if self._oddities > 1 else ""
            self._add(self._oddity + more)
        if result.images != task.record.images:
            self._add(f"holds {result.images:,} samples where the manifest says {task.record.images:,}")
        self._check_dali("")

    def _add(self, problem: str, key: str | None = None) -> None:
        self._result.findings.add(self._task.record.file, problem, key)

    def _note_oddity(self, text: str) -> None:
        self._oddity, self._oddities = self._oddity or text, self._oddities + 1

    def _check_key_and_label(self, sample: TarSample) -> None:
        """Check that places rise and lie in the shard's share of the split, so that no key comes twice in a split."""
        place, label, last, per_shard = sample.place, sample.label, self._last_place, self._task.stored.shard_images
        if place is None:
            self._add("its key is not eight digits, `_` and up to 60 of [A-Za-z0-9_-]", sample.key)
        elif place <= last:
            problem = f"its key begins with place {place} after {last}: places rise, so that keys are unique"
            self._add(problem, sample.key)
        elif place // per_shard != self._task.number:
            first = self._task.number * per_shard
            held = f"this shard holds {first:,} to {first + per_shard - 1:,}"
            self._add(f"its key begins with place {place}: {held}", sample.key)
        self._last_place = last if place is None else place
        if label is None:
            self._add(f"its label is {sample.label_text!r}: must be digits", sample.key)
        elif label >= self._task.classes:
            problem = f"its label is {label}: the manifest has {self._task.classes:,} classes, from 0"
            self._add(problem, sample.key)

    def _check_row(self, sample: TarSample) -> None:
        if (position := self._result.images) >= len(self._rows):
            return  # the counts are compared at the end
        found = (sample.offset, sample.length, self._task.number, sample.label, sample.place)
        for name, indexed, actual in zip(INDEX_DTYPE.names or (), self._rows[position].item(), found, strict=True):
            if actual not in (None, indexed):
                problem = f"says {name} {indexed} where {self._task.record.file} has {actual}"
                self._result.findings.add(INDEX_NAME, problem, sample.key)

    def _check_dali(self, wanted: str, key: str | None = None) -> None:
        """Compare the next line of the DALI index file; behind its end there are empty ones."""
        if self._dali_lines is None:
            return  # a missing file is reported with the missing files
        line, self._dali_line = next(self._dali_lines), self._dali_line + 1
        if line != wanted.encode(errors="surrogateescape"):
            found = line.rstrip(b"\n")[:200].decode("ascii", "backslashreplace")
            problem = f"line {self._dali_line} is '{found}': must be '{wanted.rstrip()}'"
            self._result.findings.add(self._dali_name, problem, key)
            self._dali_lines = None  # what follows is wrong, too, where a line is missing

    def _check_jpeg(self, tar: IO[bytes], sample: TarSample) -> None:
        """Check a JPEG's length and, if there is a decoder, its pixels, and sum up those of training images."""
        stored, result, decode = self._task.stored, self._result, self._task.decode
        if sample.length > stored.max_jpeg_bytes:
            self._add(f"its JPEG has {sample.length:,} bytes, more than any of this size can have", sample.key)
            return
        if decode is None:
            return
        tar.seek(sample.offset)
        self._counts[0] += sample.length
        try:
            pixels, dc_step = decode(tar.read(sample.length))
        except ValueError as error:
            self._add(str(error), sample.key)
            return
        shape = (stored.size_px, stored.size_px, stored.channels)
        if pixels.shape != shape:
            found, wanted = ("x".join(map(str, sides)) for sides in (pixels.shape, shape))
            self._add(f"is {found} (height, width, channels): must be {wanted}", sample.key)
            return
        result.decoded += 1
        result.dc_step = max(result.dc_step, dc_step)
        if result.colour:
            result.colour.add(np.broadcast_to(pixels, (*shape[:2], 3)))


def _lines(path: Path) -> Iterator[bytes]:
    with os.fdopen(open_regular(path), "rb") as file:
        yield from iter(lambda: file.readline(_LINE_BYTES), b"")
