"""Verify a data set: is every byte what the converter wrote, and does everything agree with everything else.

Three things are compared. SHA256SUMS and the manifest say what each file's sha256 is; the tars say what the manifest,
the index and the DALI index files must hold; and, given a decoder, the pixels say whether the colour statistics are
theirs. Nothing is written and nothing is mended.
"""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from alexnet.shards.colour import ColourSums, axes_agree, stored_colour_problems
from alexnet.shards.errors import InputError
from alexnet.shards.files import CHECKSUMS_NAME, read_bytes, read_checksums, sha256_of
from alexnet.shards.index import class_problem, map_index, official_label_problems
from alexnet.shards.info import INFO_NAME, info_json
from alexnet.shards.manifest import (
    INDEX_NAME,
    MANIFEST_NAME,
    MEAN_IMAGE_NAME,
    MEND,
    REJECTED_NAME,
    SPLITS,
    FileRecord,
    Manifest,
    ShardRecord,
    Split,
    read_manifest,
    read_rejects,
)
from alexnet.shards.processes import WorkerDiedError, WorkerPool
from alexnet.shards.reader import read_mean_image
from alexnet.shards.verify_files import FolderFiles, files_of_set
from alexnet.shards.verify_shard import DecodeStored, Finding, Findings, ShardCheck, check_shard

T = TypeVar("T")
OnProgress = Callable[[int, int], None]
"""Told of bytes that are done, and of all that there are."""

_BESIDE = re.compile(rf"LICENSE|README[^/]*|{re.escape(INFO_NAME)}")  # what some data sets have, and others not
_SHARED_DIGITS = 32  # two unrelated sha256 agree in 4 of 64 digits; in 32 with a probability of 1e-21
_MAX_EXTRA = 100
_MEAN_TOLERANCE = 1e-4  # float32 rounds a pixel of the mean image by less than 1e-5


def verify(
    root: Path | FolderFiles,
    *,
    decode: DecodeStored | None = None,
    workers: int = 0,
    on_progress: OnProgress = lambda done, total: None,
) -> "Verification":
    """Check a data set's files against its manifest and its SHA256SUMS, and all of them against its tars.

    `decode`: also decode every stored image with it and recompute the colour statistics; worker processes must be able
    to import it. `workers`: processes, 0 for this one alone; the findings do not depend on it. Memory does not grow
    with the number of images, but for the index (24 bytes an image) and the places of rejects. Raises InputError if
    `root` is no data set at all, or if a worker dies.
    """
    started = time.perf_counter()
    checked = Verification(FolderFiles(root) if isinstance(root, Path) else root, on_progress)
    checked.hash_files()
    if checked.manifest:
        checked.check_shards(checked.manifest, decode, workers)
    checked.judge_files()
    if checked.manifest:
        checked.check_manifest(checked.manifest)
        checked.check_places(checked.manifest)
        checked.check_colours(checked.manifest)
    checked.seconds = time.perf_counter() - started
    return checked


class Verification:
    """Check a data set part by part, and hold what was found and how much was looked at.

    `place`: where it is. `found`: findings as they come. `files`, `bytes`: read and hashed. `shards`: tars among them.
    `images`: in the tars, by split. `decoded`: images whose pixels were looked at. `manifest`, `listed` (sha256 by
    path), `index`: what the lists say; None or empty if they are missing or damaged.
    """

    def __init__(self, place: FolderFiles, on_progress: OnProgress) -> None:
        self.files = self.bytes = self.shards = self.decoded = 0
        self.images: dict[Split, int] = dict.fromkeys(SPLITS, 0)
        self.seconds = 0.0
        self.place, self._root, self.found = place, place.root, Findings()
        self.manifest = manifest = self._read_manifest()
        self.listed = self._read(CHECKSUMS_NAME, self._read_checksums)
        self.index = (self._read(INDEX_NAME, lambda path: map_index(path.parent, manifest)) if manifest else None) or {}
        self._sizes = self._find_files()
        self._hashed: dict[str, tuple[str, int]] = {}  # sha256 and bytes
        self._total_bytes, self._on_progress = sum(self._sizes.values()), on_progress
        self._colour, self._dc_step = ColourSums(manifest.size_px if manifest else 1), 0

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return what was found, by file."""
        return tuple(self.found.all())

    @property
    def passed(self) -> bool:
        """Say whether all is well."""
        return not self.findings

    def _read(self, file: str, read: Callable[[Path], T]) -> T | None:
        """Read a file; None, with a finding, if it cannot be used. One that is missing is reported elsewhere."""
        try:
            return read(self._root / file) if (self._root / file).is_file() else None
        except (OSError, ValueError) as error:
            self.found.add(file, f"cannot be used: {self.place.reason_of(error)}")
            return None

    def _read_manifest(self) -> Manifest | None:
        """Read the manifest; without one, SHA256SUMS alone must do, and without both there is no data set."""
        if not any((self._root / name).is_file() for name in (MANIFEST_NAME, CHECKSUMS_NAME)):
            return read_manifest(self._root)  # which says what is wrong
        return self._read(MANIFEST_NAME, lambda _: read_manifest(self._root))

    def _read_checksums(self, path: Path) -> dict[str, str]:
        sha256, faults = read_checksums(path.parent)
        for fault in faults:
            self.found.add(CHECKSUMS_NAME, fault)
        return sha256

    def _find_files(self) -> dict[str, int]:
        """Note files that are missing, extra or unlisted; return the bytes of those that can be looked at, by path."""
        listed = set(self.listed or ())
        expected = files_of_set(self.manifest, listed)
        present = self.place.sizes(expected | listed)
        expected |= {n for n in (*present, *listed) if _BESIDE.fullmatch(n)}
        for name in sorted(expected.difference(present)):
            no_list = "the data set has no SHA256SUMS: what only it knows could not be checked"
            self.found.add(name, no_list if name == CHECKSUMS_NAME else "is missing")
        extra = [name for name in present if name not in expected]
        for name in extra[:_MAX_EXTRA]:
            self.found.add(name, "is no file of this data set")
        if len(extra) > _MAX_EXTRA:
            self.found.add(".", f"holds {len(extra) - _MAX_EXTRA:,} more files that are not of this data set")
        for name in sorted(listed - expected):
            self.found.add(CHECKSUMS_NAME, f"lists {name}, which is no file of this data set")
        for name in sorted(expected - listed - {CHECKSUMS_NAME}) if self.listed is not None else ():
            self.found.add(CHECKSUMS_NAME, f"does not list {name}")
        readable = {name: size for name, size in present.items() if name in expected and size is not None}
        for name in sorted(expected.intersection(present).difference(readable)):
            self.found.add(name, "is no regular file")
        return readable

    def hash_files(self) -> None:
        """Hash all files but the tars that are read when they are checked: without a manifest, none are."""
        shards = {shard.file for shard in self.manifest.shards} if self.manifest else ()
        others = [name for name in self._sizes if name not in shards]
        self.place.bring(name for name in others if not name.endswith(".tar"))
        for name in others:
            with self.place.at_hand(name):
                sha256 = self._read(name, sha256_of)
            if sha256:
                self._note_hash(name, sha256, self._sizes[name])
                self._on_progress(self.bytes, self._total_bytes)

    def _note_hash(self, name: str, sha256: str, size: int) -> None:
        self._hashed[name] = sha256, size
        self.files += 1
        self.bytes += size

    def check_shards(self, manifest: Manifest, decode: DecodeStored | None, workers: int) -> None:
        """Check all tars with what belongs to each, and add up what they hold. Raises InputError if a worker dies."""
        before = self.bytes

        def tell(counts: list[int]) -> None:
            self._on_progress(before + counts[0], self._total_bytes)

        with WorkerPool(check_shard, workers, on_counts=tell) as pool:
            try:
                for shard in pool.results(self._shards(manifest, decode), in_order=True):
                    self.found.merge(shard.findings)
                    if shard.sha256:
                        self._note_hash(shard.record.file, shard.sha256, shard.bytes)
                    self.shards += 1
                    self.images[shard.record.split] += shard.images
                    self.decoded += shard.decoded
                    if shard.colour:
                        self._colour.merge(shard.colour)
                        self._dc_step = max(self._dc_step, shard.dc_step)
            except WorkerDiedError:
                reason = f"a worker process died while it checked {self.place.name}"
                mend = "if memory was short, give fewer --workers"
                raise InputError(f"workers={workers}: {reason}; {mend}") from None

    def _shards(self, manifest: Manifest, decode: DecodeStored | None) -> Iterator[ShardCheck]:
        first_row = 0
        for split in SPLITS:
            for number, record in enumerate(manifest.shards_of(split)):
                if record.file in self._sizes:
                    yield ShardCheck(
                        files=self.place,
                        record=record,
                        number=number,
                        first_row=first_row if self.index else None,
                        classes=len(manifest.classes),
                        stored=manifest.stored,
                        decode=decode,
                    )
                first_row += record.images

    def judge_files(self) -> None:
        """Compare each file with the manifest's record and SHA256SUMS's line, and note which of the three was altered.

        Where they disagree, two against one tell; and a mistyped digit is the list's fault.
        """
        listed: list[ShardRecord | FileRecord] = []
        if self.manifest:
            listed = [*self.manifest.shards, *self.manifest.files]
        records = {record.file: record for record in listed}
        for name, (actual, size) in self._hashed.items():
            record = records.get(name)
            said = {MANIFEST_NAME: record.sha256 if record else None, CHECKSUMS_NAME: (self.listed or {}).get(name)}
            right = actual in said.values()
            for source, sha256 in said.items():
                if sha256 in (None, actual):
                    continue
                if right or sum(map(str.__eq__, sha256, actual)) >= _SHARED_DIGITS:
                    self.found.add(source, f"gives {name} the sha256 {sha256}, but it is {actual}")
                    right = True  # a list of which one digit is wrong speaks for the file
                else:
                    self.found.add(name, f"has the sha256 {actual} where {source} says {sha256}")
            if record and record.bytes != size and right:
                self.found.add(MANIFEST_NAME, f"gives {name} {record.bytes:,} bytes, but it has {size:,}")
            elif record and record.bytes != size:
                self.found.add(name, f"has {size:,} bytes where it must have {record.bytes:,}")

    def check_manifest(self, manifest: Manifest) -> None:
        """Note classes and colours that contradict themselves, and a manifest that says more than it was read for."""
        if problem := class_problem(manifest):
            self.found.add(MANIFEST_NAME, problem)
        if not axes_agree(manifest.colour):
            figures = "colour.eigenvalues, eigenvectors and standard_deviations"
            self.found.add(MANIFEST_NAME, f"{figures} are not those of colour.covariance")
        if self._hashed.get(MANIFEST_NAME, ("",))[0] != manifest.digest():
            self.found.add(MANIFEST_NAME, "has members, numbers or a layout that the converter does not write")
        info = b"" if manifest.stored.adopted else info_json(manifest)  # others' names splits as they like
        if info and self._read(INFO_NAME, lambda path: read_bytes(path, len(info))) not in (None, info):
            self.found.add(INFO_NAME, "does not say which tars the manifest has, with how many images")

    def check_places(self, manifest: Manifest) -> None:
        """Require that every place of a split is either in the index or among the rejects: input = written + rejected.

        Rows are held against tars shard by shard; here stands what concerns a split as a whole.
        """
        for problem in official_label_problems(manifest, self.index["val"]) if self.index else ():
            self.found.add(INDEX_NAME, problem)
        rejected = self._read(REJECTED_NAME, lambda path: self._rejected_places(path, manifest))
        for split, rows in self.index.items() if rejected else ():
            assert rejected is not None
            counts, places = manifest.counts[split], np.array(rejected[split], np.int64)
            if len(places) != counts.rejected:
                problem = f"lists {len(places):,} {split} images where the manifest counts {counts.rejected:,}"
                self.found.add(REJECTED_NAME, problem)
                continue
            times = np.zeros(counts.input, np.int64)
            for part in (rows["place"], places):
                times += np.bincount(part[(part >= 0) & (part < counts.input)], minlength=counts.input)
            for place in np.flatnonzero(times != 1)[:3].tolist():
                found = "there more than once" if times[place] else "neither in the index nor among the rejects"
                self.found.add(INDEX_NAME, f"place {place} of {split} is {found}")

    def _rejected_places(self, path: Path, manifest: Manifest) -> dict[Split, list[int]]:
        places: dict[Split, list[int]] = {split: [] for split in SPLITS}
        before = (0, -1)
        for number, reject in enumerate(read_rejects(path), start=1):
            split, place = reject.split, reject.place
            places[split].append(place)
            if place >= manifest.counts[split].input:
                self.found.add(REJECTED_NAME, f"line {number} names place {place} of {split}, which has no such place")
            if (SPLITS.index(split), place) <= before:
                problem = f"line {number} comes after a later place: lines follow splits and places"
                self.found.add(REJECTED_NAME, problem)
            before = SPLITS.index(split), place
        return places

    def check_colours(self, manifest: Manifest) -> None:
        """Compare the mean image with the manifest and, if all training images were decoded, both with the pixels."""
        said = manifest.colour
        mean_image = self._read(MEAN_IMAGE_NAME, lambda path: read_mean_image(path, manifest.size_px, mend=MEND))
        if mean_image is not None:
            means = mean_image.mean(axis=(0, 1), dtype=np.float64)
            if not np.all(np.abs(means - np.array(said.mean)) <= _MEAN_TOLERANCE):
                texts = [", ".join(f"{v:.3f}" for v in row) for row in (means, said.mean)]
                problem = f"has the mean {texts[0]} where the manifest's colour.mean is {texts[1]}"
                self.found.add(MEAN_IMAGE_NAME, problem)
                mean_image = None
        if self._colour.images and self._colour.images == manifest.counts["train"].written:
            problems = stored_colour_problems(self._colour, self._dc_step, said, mean_image)
            for file, of_file in zip((MANIFEST_NAME, MEAN_IMAGE_NAME), problems, strict=True):
                for problem in of_file:
                    self.found.add(file, problem)
