"""Check one shard: the unit of parallel work.

The tar is read once for its sha256 and walked once by its own headers; the index rows, the DALI index file and, given
a decoder, the pixels are held against what is found there. This room has no decoder of its own.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from alexnet.shards.colour import ColourSums
from alexnet.shards.files import map_array, open_regular
from alexnet.shards.index import INDEX_DTYPE, IndexRows
from alexnet.shards.manifest import INDEX_NAME, Split, StoredSettings, shard_file
from alexnet.shards.verify.findings import FindingList
from alexnet.shards.verify.tar_walk import TarFaultError, TarSample, walk_samples

_KEY = re.compile(r"([0-9]{8})_[A-Za-z0-9_-]{0,60}")
_LABEL = re.compile(rb"0|[1-9][0-9]{0,8}")
_CHUNK_BYTES = 1 << 20
_LINE_BYTES = 1 << 10  # a line of a `.idx` file has at most 250


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Hold a stored JPEG's pixels, uint8 (height, width, channels), and the coarsest step of its DC terms."""

    pixels: npt.NDArray[np.uint8]
    dc_step: int


Decoder = Callable[[bytes], Decoded]
"""Decode a stored JPEG. Raises ValueError with the reason where it cannot, or where it is not of the format's kind."""


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """Say which shard to check and against what.

    `first_row`: its first row in the index, None if there is no sound index. `images`, `classes`, `stored`: what the
    manifest says, None if there is no sound manifest. `decode`: None leaves the pixels alone.
    """

    split: Split
    number: int
    first_row: int | None = None
    images: int | None = None
    classes: int | None = None
    stored: StoredSettings | None = None
    most_jpeg_bytes: int = 1 << 62
    decode: Decoder | None = None

    @property
    def file(self) -> str:
        """Return the tar's path inside the data set."""
        return shard_file(self.split, self.number)


@dataclass(frozen=True, kw_only=True)
class ShardOutcome:
    """Hold what was found in one shard; `sha256` is None if it could not be read.

    `class_images`: int64, images by label. `colour`: the arrays of a ColourSums, for decoded training shards.
    """

    split: Split
    file: str
    bytes: int
    sha256: str | None
    images: int
    decoded: int
    dc_step: int
    class_images: npt.NDArray[np.int64]
    colour: dict[str, npt.NDArray[np.int64]] | None
    findings: FindingList


def check_shard(root: Path, task: ShardTask, on_bytes: Callable[[int], None] = lambda _: None) -> ShardOutcome:
    """Check one tar, its index rows and its DALI index file; `on_bytes` is told once of each byte that is done.

    A byte is done when it is hashed or, if pixels are looked at, which takes ten times as long, when they were.
    """
    findings = FindingList()
    keys, pixels = _KeysAndLabels(task, findings), _Pixels(task, findings, on_bytes)
    size_bytes, sha256, images = 0, None, 0
    try:
        size_bytes, sha256 = _hash(root / task.file, _nobody if task.decode else on_bytes)
        images = _walk(root, task, findings, keys, pixels)
        if task.decode:
            on_bytes(size_bytes - pixels.bytes)  # headers, labels and padding
    except OSError as error:
        findings.add(task.file, f"cannot be read: {error.strerror or error}")
    return ShardOutcome(
        split=task.split,
        file=task.file,
        bytes=size_bytes,
        sha256=sha256,
        images=images,
        decoded=pixels.decoded,
        dc_step=pixels.dc_step,
        class_images=np.bincount(np.array(keys.labels, np.int64), minlength=task.classes or 0),
        colour=pixels.sums.to_arrays() if pixels.sums is not None and pixels.decoded else None,
        findings=findings,
    )


def _walk(root: Path, task: ShardTask, findings: FindingList, keys: "_KeysAndLabels", pixels: "_Pixels") -> int:
    """Hold everything against the samples of the tar and return how many there are."""
    path, images = root / task.file, 0
    rows, dali = _IndexRows(root, task, findings), _DaliIndex(path.with_suffix(".idx"), findings)
    oddities: list[str] = []
    with os.fdopen(open_regular(path), "rb") as tar:
        try:
            for sample in walk_samples(tar, oddities.append):
                keys.check(sample)
                rows.check(images, sample)
                dali.check(sample)
                pixels.check(tar, sample)
                images += 1
        except TarFaultError as fault:
            findings.add(task.file, str(fault))
    if oddities:
        more = f", and {len(oddities) - 1:,} more of the kind" if len(oddities) > 1 else ""
        findings.add(task.file, oddities[0] + more)
    dali.finish(task.file, images)
    if task.images is not None and images != task.images:
        findings.add(task.file, f"holds {images:,} samples where the manifest says {task.images:,}")
    return images


def _hash(path: Path, on_bytes: Callable[[int], None]) -> tuple[int, str]:
    sha256, size_bytes = hashlib.sha256(), 0
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
            size_bytes += len(chunk)
            on_bytes(len(chunk))
    return size_bytes, sha256.hexdigest()


def _nobody(_: int) -> None:
    """Tell nobody."""


def _place(sample: TarSample) -> int | None:
    match = _KEY.fullmatch(sample.key)
    return int(match[1]) if match else None


class _KeysAndLabels:
    """Hold each sample's key and label against the format.

    Places rise within a shard and stay inside its share of the split, and a key begins with its place: so no key comes
    twice in a split, without a list of 14 million.
    """

    def __init__(self, task: ShardTask, findings: FindingList) -> None:
        self._task, self._findings = task, findings
        self._last_place = -1
        self.labels: list[int] = []

    def check(self, sample: TarSample) -> None:
        for problem in (self._key_problem(sample), self._label_problem(sample)):
            if problem:
                self._findings.add(self._task.file, problem, sample.key)

    def _key_problem(self, sample: TarSample) -> str | None:
        place, last = _place(sample), self._last_place
        if place is None:
            return "its key is not eight digits, `_` and up to 60 of [A-Za-z0-9_-]"
        self._last_place = place
        if place <= last:
            return f"its key begins with place {place} after {last}: places rise, so that keys are unique"
        per_shard = self._task.stored.shard_images if self._task.stored else None
        if per_shard and place // per_shard != self._task.number:
            first = self._task.number * per_shard
            return f"its key begins with place {place}: this shard holds {first:,} to {first + per_shard - 1:,}"
        return None

    def _label_problem(self, sample: TarSample) -> str | None:
        classes = self._task.classes
        if not _LABEL.fullmatch(sample.label):
            return f"its label is {sample.label!r}: must be digits"
        label = int(sample.label)
        if classes is not None and label >= classes:
            return f"its label is {label}: the manifest has {classes:,} classes, from 0"
        if classes is not None:
            self.labels.append(label)
        return None


class _IndexRows:
    """Hold the index's rows of a shard against its samples."""

    def __init__(self, root: Path, task: ShardTask, findings: FindingList) -> None:
        self._task, self._findings = task, findings
        self._rows: IndexRows = np.zeros(0, INDEX_DTYPE)
        if task.first_row is not None and task.images is not None:
            self._rows = map_array(root / INDEX_NAME, INDEX_DTYPE)[task.first_row : task.first_row + task.images]

    def check(self, position: int, sample: TarSample) -> None:
        if position >= len(self._rows):
            return  # the counts are compared at the end
        row = self._rows[position].item()
        label = int(sample.label) if _LABEL.fullmatch(sample.label) else None
        found = (sample.offset, sample.length, self._task.number, label, _place(sample))
        for name, indexed, actual in zip(INDEX_DTYPE.names or (), row, found, strict=True):
            if actual is not None and indexed != actual:
                problem = f"says {name} {indexed} where {self._task.file} has {actual}"
                self._findings.add(INDEX_NAME, problem, sample.key)


class _DaliIndex:
    """Hold the lines of a `.idx` file against the samples; nothing is said after its first wrong line."""

    def __init__(self, path: Path, findings: FindingList) -> None:
        self._findings = findings
        self._name = f"{path.parent.name}/{path.name}"
        self._sound = path.is_file()  # a missing file is reported with the missing files
        self._lines = _lines(path) if self._sound else iter(())
        self._head = next(self._lines, b"")
        self._next = 1

    def check(self, sample: TarSample) -> None:
        key = sample.key
        jpeg, label = f"jpg {sample.offset} {sample.length}", f"cls {sample.label_offset} {sample.label_length}"
        self._require(self._next, next(self._lines, b""), f"{jpeg} {key}.jpg {label} {key}.cls", key)
        self._next += 1

    def finish(self, tar: str, samples: int) -> None:
        self._require(0, self._head, f"v1.2 {samples}", None)
        if self._sound and next(self._lines, b""):
            self._findings.add(self._name, f"does not end after the {samples:,} samples of {tar}")

    def _require(self, number: int, line: bytes, wanted: str, key: str | None) -> None:
        if self._sound and line != f"{wanted}\n".encode(errors="surrogateescape"):
            self._sound = False
            found = line.rstrip(b"\n")[:200].decode("ascii", "backslashreplace")
            self._findings.add(self._name, f"line {number + 1} is '{found}': must be '{wanted}'", key)


def _lines(path: Path) -> Iterator[bytes]:
    with os.fdopen(open_regular(path), "rb") as file:
        yield from iter(lambda: file.readline(_LINE_BYTES), b"")


class _Pixels:
    """Decode each JPEG, if there is a decoder, and sum up the colours of the training images."""

    def __init__(self, task: ShardTask, findings: FindingList, on_bytes: Callable[[int], None]) -> None:
        self._task, self._findings, self._on_bytes = task, findings, on_bytes
        side, channels = (task.stored.size_px, task.stored.channels) if task.stored else (0, 3)
        self._shape = (side, side, channels)
        self.decoded = self.dc_step = self.bytes = 0
        self.sums = ColourSums(side) if task.decode and task.split == "train" else None

    def check(self, tar: IO[bytes], sample: TarSample) -> None:
        if sample.length > self._task.most_jpeg_bytes:
            problem = f"its JPEG has {sample.length:,} bytes, more than any of this size can have"
            self._findings.add(self._task.file, problem, sample.key)
            return
        if self._task.decode is None:
            return
        tar.seek(sample.offset)
        self.bytes += sample.length
        self._on_bytes(sample.length)
        try:
            image = self._task.decode(tar.read(sample.length))
        except ValueError as error:
            self._findings.add(self._task.file, str(error), sample.key)
            return
        if image.pixels.shape != self._shape:
            found, wanted = ("x".join(map(str, shape)) for shape in (image.pixels.shape, self._shape))
            problem = f"is {found} (height, width, channels): must be {wanted}"
            self._findings.add(self._task.file, problem, sample.key)
            return
        self.decoded += 1
        self.dc_step = max(self.dc_step, image.dc_step)
        if self.sums is not None:
            self.sums.add(np.broadcast_to(image.pixels, (*self._shape[:2], 3)))
