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

from alexnet.shards.adopted import listed_samples
from alexnet.shards.colour import ColourSums
from alexnet.shards.errors import one_line, reason_of
from alexnet.shards.files import map_array, open_regular
from alexnet.shards.index import INDEX_DTYPE
from alexnet.shards.manifest import INDEX_NAME, ShardRecord, StoredSettings, dali_index_file
from alexnet.shards.processes import Counts
from alexnet.shards.tar import TarFaultError, TarSample, dali_line, walk_samples
from alexnet.shards.verify_files import FolderFiles

DecodeStored = Callable[[bytes], tuple[npt.NDArray[np.uint8], int]]
"""Decode a stored image: uint8 (height, width, channels), and the coarsest step that its DC terms were rounded to.

Raises ValueError with the reason where it cannot, or where the image is not of the format's kind."""

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


@dataclass(kw_only=True)
class ShardCheck:
    """Hold the check of one tar: it goes to a worker with what is said of the tar, and comes back with what was found.

    `number`: of its split's shards. `first_row`: in the index, None if there is no sound one. `classes`: how many there
    are. `decode`: None leaves the pixels alone. Found: `sha256`, None if the tar could not be read. `decoded`,
    `dc_step`: images whose pixels were looked at, and the coarsest step of their DC terms. `colour`: the sums of
    decoded training images.
    """

    files: FolderFiles
    record: ShardRecord
    number: int
    first_row: int | None
    classes: int
    stored: StoredSettings
    decode: DecodeStored | None

    bytes: int = 0
    sha256: str | None = None
    images: int = 0
    decoded: int = 0
    dc_step: int = 0
    colour: ColourSums | None = None
    findings: Findings = field(default_factory=Findings)


def check_shard(shard: ShardCheck, counts: Counts) -> ShardCheck:
    """Check a tar, its index rows and its DALI index file; the first of `counts` grows by each byte that is done.

    A byte is done when it is hashed or, if pixels are looked at, which takes ten times as long, when they were.
    """
    if shard.decode and shard.record.split == "train":
        shard.colour = ColourSums(shard.stored.size_px)
    try:
        with shard.files.at_hand(shard.record.file):
            _hash(shard, [0] if shard.decode else counts)
            before = counts[0]
            _Walk(shard, counts).check()
        counts[0] = before + (shard.bytes if shard.decode else 0)  # with headers, labels and padding
    except OSError as error:
        shard.findings.add(shard.record.file, f"cannot be read: {reason_of(error)}")
    return shard


def _hash(shard: ShardCheck, counts: Counts) -> None:
    sha256 = hashlib.sha256()
    with os.fdopen(open_regular(shard.files.root / shard.record.file), "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
            shard.bytes += len(chunk)
            counts[0] += len(chunk)
    shard.sha256 = sha256.hexdigest()


class _Walk:
    """Hold the samples of a tar, in their order, against all that is said of them elsewhere."""

    def __init__(self, shard: ShardCheck, counts: Counts) -> None:
        self._shard, self._counts = shard, counts
        self._rows = np.zeros(0, INDEX_DTYPE)
        if shard.first_row is not None:
            last_row = shard.first_row + shard.record.images
            self._rows = map_array(shard.files.root / INDEX_NAME, INDEX_DTYPE)[shard.first_row : last_row]
        self._dali_name = dali_index_file(shard.record.file)
        self._is_adopted = shard.stored.adopted and shard.stored.encoding == "jpeg"
        lines = _lines(shard.files.root / self._dali_name) if (shard.files.root / self._dali_name).is_file() else None
        self._dali_lines = itertools.chain(lines, itertools.repeat(b"")) if lines else None
        self._dali_line = 0
        self._oddity, self._oddities, self._last_place = "", 0, -1

    def check(self) -> None:
        """Check every sample, and what stands at the ends."""
        shard = self._shard
        self._check_dali(f"v1.2 {shard.record.images}\n")
        with os.fdopen(open_regular(shard.files.root / shard.record.file), "rb") as tar:
            try:
                for sample in self._samples(tar):
                    self._check_key_and_label(sample)
                    self._check_row(sample)
                    if not self._is_adopted:  # whose index file is held against the tar where it is read
                        self._check_dali(dali_line(sample), sample.key)
                    self._check_image(tar, sample)
                    shard.images += 1
            except TarFaultError as fault:
                self._add(str(fault))
        if self._oddities:
            more = f", and {self._oddities - 1:,} more of the kind" if self._oddities > 1 else ""
            self._add(self._oddity + more)
        if shard.images != shard.record.images:
            self._add(f"holds {shard.images:,} samples where the manifest says {shard.record.images:,}")
        if not self._is_adopted:
            self._check_dali("")

    def _samples(self, tar: IO[bytes]) -> Iterator[TarSample]:
        if self._is_adopted:
            return listed_samples(tar, self._shard.files.root / self._dali_name)
        return walk_samples(tar, self._shard.stored.extension, self._note_oddity)

    def _add(self, problem: str, key: str | None = None) -> None:
        self._shard.findings.add(self._shard.record.file, problem, key)

    def _note_oddity(self, text: str) -> None:
        self._oddity, self._oddities = self._oddity or text, self._oddities + 1

    def _check_key_and_label(self, sample: TarSample) -> None:
        """Check that places rise and lie in the shard's share of the split, so that no key comes twice in a split."""
        place, label, last, per_shard = sample.place, sample.label, self._last_place, self._shard.stored.shard_images
        if self._is_adopted:
            pass  # keys are the writer's own
        elif place is None:
            self._add("its key is not eight digits, `_` and up to 60 of [A-Za-z0-9_-]", sample.key)
        elif place <= last:
            problem = f"its key begins with place {place} after {last}: places rise, so that keys are unique"
            self._add(problem, sample.key)
        elif place // per_shard != self._shard.number and not self._shard.stored.adopted:
            first = self._shard.number * per_shard
            held = f"this shard holds {first:,} to {first + per_shard - 1:,}"
            self._add(f"its key begins with place {place}: {held}", sample.key)
        self._last_place = last if place is None else place
        if label is None:
            self._add(f"its label is {sample.label_text!r}: must be digits", sample.key)
        elif label >= self._shard.classes:
            problem = f"its label is {label}: the manifest has {self._shard.classes:,} classes, from 0"
            self._add(problem, sample.key)

    def _check_row(self, sample: TarSample) -> None:
        if (position := self._shard.images) >= len(self._rows):
            return  # the counts are compared at the end
        found = (sample.offset, sample.length, self._shard.number, sample.label, sample.place)
        for name, indexed, actual in zip(INDEX_DTYPE.names or (), self._rows[position].item(), found, strict=True):
            if actual not in (None, indexed):
                problem = f"says {name} {indexed} where {self._shard.record.file} has {actual}"
                self._shard.findings.add(INDEX_NAME, problem, sample.key)

    def _check_dali(self, wanted: str, key: str | None = None) -> None:
        """Compare the next line of the DALI index file; behind its end there are empty ones."""
        if self._dali_lines is None:
            return  # a missing file is reported with the missing files
        line, self._dali_line = next(self._dali_lines), self._dali_line + 1
        if line != wanted.encode(errors="surrogateescape"):
            found = line.rstrip(b"\n")[:200].decode("ascii", "backslashreplace")
            problem = f"line {self._dali_line} is '{found}': must be '{wanted.rstrip()}'"
            self._shard.findings.add(self._dali_name, problem, key)
            self._dali_lines = None  # what follows is wrong, too, where a line is missing

    def _check_image(self, tar: IO[bytes], sample: TarSample) -> None:
        """Check a stored image's length and, if there is a decoder, its pixels, and sum up those of training images."""
        shard, stored = self._shard, self._shard.stored
        if not stored.min_sample_bytes <= sample.length <= stored.max_sample_bytes:
            allowed = "more than any of this size can have"
            if stored.min_sample_bytes:
                allowed = f"where planes of this size have {stored.min_sample_bytes:,}"
            self._add(f"its image has {sample.length:,} bytes, {allowed}", sample.key)
            return
        if shard.decode is None:
            return
        tar.seek(sample.offset)
        self._counts[0] += sample.length
        try:
            pixels, dc_step = shard.decode(tar.read(sample.length))
        except ValueError as error:
            self._add(str(error), sample.key)
            return
        shape = (stored.size_px, stored.size_px, stored.channels)
        if pixels.shape != shape:
            found, wanted = ("x".join(map(str, sides)) for sides in (pixels.shape, shape))
            self._add(f"is {found} (height, width, channels): must be {wanted}", sample.key)
            return
        shard.decoded += 1
        shard.dc_step = max(shard.dc_step, dc_step)
        if shard.colour:
            shard.colour.add(np.broadcast_to(pixels, (*shape[:2], 3)))


def _lines(path: Path) -> Iterator[bytes]:
    with os.fdopen(open_regular(path), "rb") as file:
        yield from iter(lambda: file.readline(_LINE_BYTES), b"")
