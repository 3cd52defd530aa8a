"""Check one shard: the unit of a verification's parallel work.

The tar is read once for its sha256 and walked once by its own headers, as any tar reader would; its rows in the index,
its DALI index file and, given a decoder, its pixels are held against what is found there. No decoder is known here.
"""

import hashlib
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
from alexnet.shards.manifest import INDEX_NAME, Split, StoredSettings, shard_file
from alexnet.shards.processes import Counts
from alexnet.shards.tar import TarFaultError, TarSample, dali_line, walk_samples

Decoder = Callable[[bytes], tuple[npt.NDArray[np.uint8], int]]
"""Decode a stored JPEG: uint8 (height, width, channels), and the coarsest step that its DC terms are rounded to.

Raises ValueError with the reason where it cannot, or where the JPEG is not of the format's kind."""

_LINE_BYTES = 1 << 10  # a line of a `.idx` file has at most 250
_CHUNK_BYTES = 1 << 20
_MAX_CHARACTERS = 2000
_MAX_PER_FILE = 10  # a tar that was cut in half would otherwise fill the screen with its missing samples


@dataclass(frozen=True, kw_only=True)
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
        self._keep(Finding(file=file, problem=problem[:_MAX_CHARACTERS], sample=sample))

    def merge(self, other: Self) -> None:
        """Note what others found after this."""
        for finding in (finding for kept in other._kept.values() for finding in kept):
            self._keep(finding)
        self._more += other._more

    def all(self) -> Iterator[Finding]:
        """Yield what was kept, by file, and a finding for each file of which more was found."""
        for file, kept in sorted(self._kept.items()):
            yield from kept
            if self._more[file]:
                yield Finding(file=file, problem=f"and {self._more[file]:,} findings more")

    def _keep(self, finding: Finding) -> None:
        kept = self._kept.setdefault(finding.file, [])
        if len(kept) < _MAX_PER_FILE:
            kept.append(finding)
        else:
            self._more[finding.file] += 1


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """Say which shard of the data set `root` to check and against what.

    `first_row`: its first row in the index, None if there is no sound index. `images`, `classes`, `stored`: what the
    manifest says, None if there is no sound manifest. `decode`: None leaves the pixels alone.
    """

    root: Path
    split: Split
    number: int
    first_row: int | None = None
    images: int | None = None
    classes: int | None = None
    stored: StoredSettings | None = None
    decode: Decoder | None = None


@dataclass(kw_only=True)
class ShardResult:
    """Hold what one shard has; `sha256` is None if it could not be read.

    `decoded`, `dc_step`: images whose pixels were looked at, and the coarsest step of their
    DC terms. `colour`: the sums of decoded training images.
    """

    split: Split
    file: str
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
    check = _ShardCheck(task, counts)
    try:
        check.hash_tar()
        check.walk_tar()
    except OSError as error:
        check.result.findings.add(check.result.file, f"cannot be read: {reason_of(error)}")
    return check.result


class _ShardCheck:
    """Hold the samples of a tar, in their order, against all that is said of them elsewhere.

    Places rise within a shard and stay inside its share of the split, and a key begins with its place: so no key comes
    twice in a split, without a list of 14 million.
    """

    def __init__(self, task: ShardTask, counts: Counts) -> None:
        self._task, self._counts = task, counts
        file, side = shard_file(task.split, task.number), task.stored.size_px if task.stored else 0
        colour = ColourSums(side) if task.decode and task.split == "train" else None
        self.result = ShardResult(split=task.split, file=file, colour=colour)
        self._path = task.root / file
        self._last_place, self._undone = -1, 0
        self._oddity, self._oddities = "", 0
        self._dali_name = f"{task.split}/{self._path.stem}.idx"
        self._dali_lines: Iterator[bytes] | None = None  # None: missing, or wrong already

    def hash_tar(self) -> None:
        sha256 = hashlib.sha256()
        with os.fdopen(open_regular(self._path), "rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                sha256.update(chunk)
                self.result.bytes += len(chunk)
                self._counts[0] += 0 if self._task.decode else len(chunk)
        self.result.sha256 = sha256.hexdigest()
        self._undone = self.result.bytes if self._task.decode else 0

    def walk_tar(self) -> None:
        task, result = self._task, self.result
        rows = np.zeros(0, INDEX_DTYPE)
        if task.first_row is not None and task.images is not None:
            rows = map_array(task.root / INDEX_NAME, INDEX_DTYPE)[task.first_row : task.first_row + task.images]
        dali = self._path.with_suffix(".idx")
        if dali.is_file():  # a missing one is reported with the missing files
            self._dali_lines = _lines(dali)
        head = next(self._dali_lines or iter(()), b"")
        with os.fdopen(open_regular(self._path), "rb") as tar:
            try:
                for sample in walk_samples(tar, self._note_oddity):
                    self._check_key_and_label(sample)
                    if result.images < len(rows):  # the counts are compared at the end
                        self._check_row(rows[result.images].item(), sample)
                    self._check_dali_line(sample)
                    self._check_jpeg(tar, sample)
                    result.images += 1
            except TarFaultError as fault:
                self._add(str(fault))
        self._check_ends(head)

    def _add(self, problem: str, sample: TarSample | None = None) -> None:
        self.result.findings.add(self.result.file, problem, sample.key if sample else None)

    def _note_oddity(self, text: str) -> None:
        self._oddity, self._oddities = self._oddity or text, self._oddities + 1

    def _check_key_and_label(self, sample: TarSample) -> None:
        per_shard = self._task.stored.shard_images if self._task.stored else None
        place, last, classes = sample.place, self._last_place, self._task.classes
        if place is None:
            self._add("its key is not eight digits, `_` and up to 60 of [A-Za-z0-9_-]", sample)
        elif place <= last:
            self._add(f"its key begins with place {place} after {last}: places rise, so that keys are unique", sample)
        elif per_shard and place // per_shard != self._task.number:
            first = self._task.number * per_shard
            held = f"this shard holds {first:,} to {first + per_shard - 1:,}"
            self._add(f"its key begins with place {place}: {held}", sample)
        self._last_place = last if place is None else place
        if sample.label is None:
            self._add(f"its label is {sample.label_text!r}: must be digits", sample)
        elif classes is not None and sample.label >= classes:
            self._add(f"its label is {sample.label}: the manifest has {classes:,} classes, from 0", sample)

    def _check_row(self, row: tuple[int, ...], sample: TarSample) -> None:
        found = (sample.offset, sample.length, self._task.number, sample.label, sample.place)
        for name, indexed, actual in zip(INDEX_DTYPE.names or (), row, found, strict=True):
            if actual is not None and indexed != actual:
                problem = f"says {name} {indexed} where {self.result.file} has {actual}"
                self.result.findings.add(INDEX_NAME, problem, sample.key)

    def _check_dali_line(self, sample: TarSample) -> None:
        wanted = dali_line(sample.key, sample.offset, sample.length, sample.label_offset, sample.label_length)
        self._require_dali_line(self.result.images + 2, next(self._dali_lines or iter(()), b""), wanted, sample.key)

    def _require_dali_line(self, number: int, line: bytes, wanted: str, key: str | None = None) -> None:
        """Note the first line of a `.idx` file that is wrong; nothing is said of others."""
        if self._dali_lines is not None and line != f"{wanted}\n".encode(errors="surrogateescape"):
            self._dali_lines = None
            found = line.rstrip(b"\n")[:200].decode("ascii", "backslashreplace")
            self.result.findings.add(self._dali_name, f"line {number} is '{found}': must be '{wanted}'", key)

    def _check_jpeg(self, tar: IO[bytes], sample: TarSample) -> None:
        """Check a JPEG's length and, if there is a decoder, its pixels, and sum up those of training images."""
        task, result = self._task, self.result
        if task.stored and sample.length > task.stored.max_jpeg_bytes:
            self._add(f"its JPEG has {sample.length:,} bytes, more than any of this size can have", sample)
            return
        if task.decode is None or task.stored is None:
            return
        tar.seek(sample.offset)
        self._counts[0] += sample.length
        self._undone -= sample.length
        try:
            pixels, dc_step = task.decode(tar.read(sample.length))
        except ValueError as error:
            self._add(str(error), sample)
            return
        shape = (task.stored.size_px, task.stored.size_px, task.stored.channels)
        if pixels.shape != shape:
            found, wanted = ("x".join(map(str, sides)) for sides in (pixels.shape, shape))
            self._add(f"is {found} (height, width, channels): must be {wanted}", sample)
            return
        result.decoded += 1
        result.dc_step = max(result.dc_step, dc_step)
        if result.colour is not None:
            result.colour.add(np.broadcast_to(pixels, (*shape[:2], 3)))

    def _check_ends(self, dali_head: bytes) -> None:
        task, result = self._task, self.result
        if self._oddities:
            more = f", and {self._oddities - 1:,} more of the kind" if self._oddities > 1 else ""
            self._add(self._oddity + more)
        self._require_dali_line(1, dali_head, f"v1.2 {result.images}")
        if self._dali_lines is not None and next(self._dali_lines, b""):
            problem = f"does not end after the {result.images:,} samples of {result.file}"
            result.findings.add(self._dali_name, problem)
        if task.images is not None and result.images != task.images:
            self._add(f"holds {result.images:,} samples where the manifest says {task.images:,}")
        self._counts[0] += self._undone  # headers, labels and padding


def _lines(path: Path) -> Iterator[bytes]:
    with os.fdopen(open_regular(path), "rb") as file:
        yield from iter(lambda: file.readline(_LINE_BYTES), b"")
