"""Verify a data set: is every byte what the converter wrote, and does everything agree with everything else.

Three things are compared. SHA256SUMS and the manifest say what each file's sha256 is; the tars say what the manifest,
the index and the DALI index files must hold; and, given a decoder, the pixels say whether the colour statistics are
theirs. Nothing is written and nothing is mended.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from alexnet.shards import manifest as known
from alexnet.shards.colour import ColourSums, axes_agree, stored_colour_problems
from alexnet.shards.errors import InputError, reason_of
from alexnet.shards.files import CHECKSUMS_NAME, read_checksums, sha256_of
from alexnet.shards.index import map_index, official_label_problems
from alexnet.shards.manifest import INDEX_NAME, MANIFEST_NAME, MEAN_IMAGE_NAME, REJECTED_NAME, SPLITS, Manifest, Split
from alexnet.shards.processes import Pool, WorkerDiedError
from alexnet.shards.reader import read_mean_image
from alexnet.shards.verify_shard import Decoder, Finding, Findings, ShardTask, check_shard
from alexnet.shards.writer import entries_below

T = TypeVar("T")
OnProgress = Callable[[int, int], None]
"""Told of bytes that are done, and of all that there are."""

_SHARED_DIGITS = 32  # two unrelated sha256 agree in 4 of 64 digits; in 32 with a probability of 1e-21
_MAX_EXTRA = 100
_MEAN_TOLERANCE = 1e-4  # float32 rounds a pixel of the mean image by less than 1e-5


@dataclass(kw_only=True)
class Report:
    """Hold what a verification found and how much it looked at.

    `files`, `bytes`: read and hashed. `shards`: tars among them. `images`: in the tars, by split. `decoded`: images
    whose pixels were looked at.
    """

    findings: tuple[Finding, ...] = ()
    files: int = 0
    bytes: int = 0
    shards: int = 0
    images: dict[Split, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    decoded: int = 0
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Say whether all is well."""
        return not self.findings


def verify(
    root: Path, *, decode: Decoder | None = None, workers: int = 0, on_progress: OnProgress = lambda done, total: None
) -> Report:
    """Check a data set's files against its manifest and its SHA256SUMS, and all of them against its tars.

    `decode`: also decode every JPEG with it and recompute the colour statistics; worker processes must be able to
    import it. `workers`: processes, 0 for this one alone; the findings do not depend on it. Memory does not grow with
    the number of images, but for the index (24 bytes an image) and the places of rejects. Raises InputError if `root`
    is no data set at all, or if a worker dies.
    """
    started = time.perf_counter()
    checks = _Checks(root, on_progress)
    checks.hash_files()
    if checks.manifest:
        checks.check_shards(checks.manifest, decode, workers)
    checks.judge_files()
    if checks.manifest:
        checks.check_manifest(checks.manifest)
        checks.check_places(checks.manifest)
        checks.check_colours(checks.manifest)
    report = checks.report
    report.findings, report.seconds = tuple(checks.findings.all()), time.perf_counter() - started
    return report


class _Checks:
    """Check a data set part by part, and gather what is found.

    `manifest`, `listed` (sha256 by path), `index`: what the lists say; None or empty if they are missing or damaged.
    """

    def __init__(self, root: Path, on_progress: OnProgress) -> None:
        self.root, self.report, self.findings = root, Report(), Findings()
        self.manifest = manifest = self._read_manifest()
        self.listed = self._read(CHECKSUMS_NAME, self._read_checksums)
        self.index = (self._read(INDEX_NAME, lambda _: map_index(root, manifest)) if manifest else None) or {}
        self._names = self._find_files()
        self._hashed: dict[str, tuple[str, int]] = {}  # sha256 and bytes
        self._total_bytes, self._on_progress = sum((root / name).stat().st_size for name in self._names), on_progress
        self._colour, self._dc_step = ColourSums(manifest.size_px if manifest else 1), 0

    def _read(self, file: str, read: Callable[[Path], T]) -> T | None:
        """Read a file; None, with a finding, if it cannot be used. One that is missing is reported elsewhere."""
        try:
            return read(self.root / file) if (self.root / file).is_file() else None
        except (OSError, ValueError) as error:
            self.findings.add(file, f"cannot be used: {reason_of(error)}")
            return None

    def _read_manifest(self) -> Manifest | None:
        """Read the manifest; without one, SHA256SUMS alone must do, and without both there is no data set."""
        if not any((self.root / name).is_file() for name in (MANIFEST_NAME, CHECKSUMS_NAME)):
            return known.read_manifest(self.root)  # which says what is wrong
        return self._read(MANIFEST_NAME, lambda _: known.read_manifest(self.root))

    def _read_checksums(self, path: Path) -> dict[str, str]:
        sha256, faults = read_checksums(path.parent)
        for fault in faults:
            self.findings.add(CHECKSUMS_NAME, fault)
        return sha256

    def _find_files(self) -> list[str]:
        """Note files that are missing, extra or unlisted; return those that belong to the data set and can be read."""
        present, listed = entries_below(self.root), set(self.listed or ())
        expected = listed
        if self.manifest:
            tars = [shard.file for shard in self.manifest.shards]
            expected = {*tars, *(f"{tar.removesuffix('.tar')}.idx" for tar in tars), *known.FILES}
        expected = expected | {MANIFEST_NAME, CHECKSUMS_NAME} | {n for n in (*present, *listed) if _may_lie_beside(n)}
        for name in sorted(expected.difference(present)):
            no_list = "the data set has no SHA256SUMS: what only it knows could not be checked"
            self.findings.add(name, no_list if name == CHECKSUMS_NAME else "is missing")
        extra = [name for name in present if name not in expected]
        for name in extra[:_MAX_EXTRA]:
            self.findings.add(name, "is no file of this data set")
        if len(extra) > _MAX_EXTRA:
            self.findings.add(".", f"holds {len(extra) - _MAX_EXTRA:,} more files that are not of this data set")
        for name in sorted(listed - expected):
            self.findings.add(CHECKSUMS_NAME, f"lists {name}, which is no file of this data set")
        for name in sorted(expected - listed - {CHECKSUMS_NAME}) if self.listed is not None else ():
            self.findings.add(CHECKSUMS_NAME, f"does not list {name}")
        readable = [name for name in present if name in expected and (self.root / name).is_file()]
        for name in sorted(expected.intersection(present).difference(readable)):
            self.findings.add(name, "is no regular file")
        return readable

    def hash_files(self) -> None:
        """Hash all files but the tars that are read when they are checked: without a manifest, none are."""
        shards = {shard.file for shard in self.manifest.shards} if self.manifest else ()
        for name in self._names:
            if name not in shards and (sha256 := self._read(name, sha256_of)):
                self._note_hash(name, sha256, (self.root / name).stat().st_size)
                self._on_progress(self.report.bytes, self._total_bytes)

    def _note_hash(self, name: str, sha256: str, size: int) -> None:
        self._hashed[name] = sha256, size
        self.report.files += 1
        self.report.bytes += size

    def check_shards(self, manifest: Manifest, decode: Decoder | None, workers: int) -> None:
        """Check all tars with what belongs to each, and add up what they hold. Raises InputError if a worker dies."""
        report, before = self.report, self.report.bytes

        def tell(counts: list[int]) -> None:
            self._on_progress(before + counts[0], self._total_bytes)

        with Pool(check_shard, workers, on_counts=tell) as pool:
            try:
                for shard in pool.results(self._tasks(manifest, decode), in_order=True):
                    self.findings.merge(shard.findings)
                    if shard.sha256:
                        self._note_hash(shard.record.file, shard.sha256, shard.bytes)
                    report.shards += 1
                    report.images[shard.record.split] += shard.images
                    report.decoded += shard.decoded
                    if shard.colour:
                        self._colour.merge(shard.colour)
                        self._dc_step = max(self._dc_step, shard.dc_step)
            except WorkerDiedError:
                reason = f"a worker process died while it checked {self.root}"
                mend = "if memory was short, give fewer --workers"
                raise InputError(f"workers={workers}: {reason}; {mend}") from None

    def _tasks(self, manifest: Manifest, decode: Decoder | None) -> Iterator[ShardTask]:
        first_row, classes, stored, readable = 0, len(manifest.classes), manifest.stored, set(self._names)
        for split in SPLITS:
            for number, record in enumerate(manifest.shards_of(split)):
                if record.file in readable:
                    row = first_row if self.index else None
                    yield ShardTask(self.root, record, number, row, classes, stored, decode)
                first_row += record.images

    def judge_files(self) -> None:
        """Compare each file with the manifest's record and SHA256SUMS's line, and note which of the three was altered.

        Where they disagree, two against one tell; and a mistyped digit is the list's fault.
        """
        records = {}
        if self.manifest:
            of_files: list[known.ShardRecord | known.FileRecord] = [*self.manifest.shards, *self.manifest.files]
            records = {record.file: record for record in of_files}
        for name, (actual, size) in self._hashed.items():
            record = records.get(name)
            said = {MANIFEST_NAME: record.sha256 if record else None, CHECKSUMS_NAME: (self.listed or {}).get(name)}
            right = actual in said.values()
            for source, sha256 in said.items():
                if sha256 in (None, actual):
                    continue
                if right or sum(map(str.__eq__, sha256, actual)) >= _SHARED_DIGITS:
                    self.findings.add(source, f"gives {name} the sha256 {sha256}, but it is {actual}")
                    right = True  # a list of which one digit is wrong speaks for the file
                else:
                    self.findings.add(name, f"has the sha256 {actual} where {source} says {sha256}")
            if record and record.bytes != size and right:
                self.findings.add(MANIFEST_NAME, f"gives {name} {record.bytes:,} bytes, but it has {size:,}")
            elif record and record.bytes != size:
                self.findings.add(name, f"has {size:,} bytes where it must have {record.bytes:,}")

    def check_manifest(self, manifest: Manifest) -> None:
        """Note classes and colours that contradict themselves, and a manifest that says more than it was read for."""
        if problem := _class_problem(manifest):
            self.findings.add(MANIFEST_NAME, problem)
        if not axes_agree(manifest.colour):
            problem = "colour.eigenvalues, eigenvectors and standard_deviations are not those of colour.covariance"
            self.findings.add(MANIFEST_NAME, problem)
        if self._hashed.get(MANIFEST_NAME, ("",))[0] != manifest.digest():
            self.findings.add(MANIFEST_NAME, "has members, numbers or a layout that the converter does not write")

    def check_places(self, manifest: Manifest) -> None:
        """Require that every place of a split is either in the index or among the rejects: input = written + rejected.

        Rows are held against tars shard by shard; here stands what concerns a split as a whole.
        """
        for problem in official_label_problems(manifest, self.index["val"]) if self.index else ():
            self.findings.add(INDEX_NAME, problem)
        rejected = self._read(REJECTED_NAME, lambda path: self._rejected_places(path, manifest))
        for split, rows in self.index.items() if rejected else ():
            assert rejected is not None
            counts, places = manifest.counts[split], np.array(rejected[split], np.int64)
            if len(places) != counts.rejected:
                problem = f"lists {len(places):,} {split} images where the manifest counts {counts.rejected:,}"
                self.findings.add(REJECTED_NAME, problem)
                continue
            times = np.zeros(counts.input, np.int64)
            for part in (rows["place"], places):
                times += np.bincount(part[(part >= 0) & (part < counts.input)], minlength=counts.input)
            for place in np.flatnonzero(times != 1)[:3].tolist():
                found = "there more than once" if times[place] else "neither in the index nor among the rejects"
                self.findings.add(INDEX_NAME, f"place {place} of {split} is {found}")

    def _rejected_places(self, path: Path, manifest: Manifest) -> dict[Split, list[int]]:
        places: dict[Split, list[int]] = {split: [] for split in SPLITS}
        before = (0, -1)
        for number, reject in enumerate(known.read_rejects(path), start=1):
            split, place = reject.split, reject.place
            places[split].append(place)
            if place >= manifest.counts[split].input:
                self.findings.add(
                    REJECTED_NAME, f"line {number} names place {place} of {split}, which has no such place"
                )
            if (SPLITS.index(split), place) <= before:
                problem = f"line {number} comes after a later place: lines follow splits and places"
                self.findings.add(REJECTED_NAME, problem)
            before = SPLITS.index(split), place
        return places

    def check_colours(self, manifest: Manifest) -> None:
        """Compare the mean image with the manifest and, if all training images were decoded, both with the pixels."""
        said = manifest.colour
        mean_image = self._read(MEAN_IMAGE_NAME, lambda path: read_mean_image(path, manifest.size_px, mend=known.MEND))
        if mean_image is not None:
            means = mean_image.mean(axis=(0, 1), dtype=np.float64)
            if not np.all(np.abs(means - np.array(said.mean)) <= _MEAN_TOLERANCE):
                texts = [", ".join(f"{v:.3f}" for v in row) for row in (means, said.mean)]
                problem = f"has the mean {texts[0]} where the manifest's colour.mean is {texts[1]}"
                self.findings.add(MEAN_IMAGE_NAME, problem)
                mean_image = None
        if self._colour.images and self._colour.images == manifest.counts["train"].written:
            of_manifest, of_mean_image = stored_colour_problems(self._colour, self._dc_step, said, mean_image)
            for problem in of_manifest:
                self.findings.add(MANIFEST_NAME, problem)
            for problem in of_mean_image:
                self.findings.add(MEAN_IMAGE_NAME, problem)


def _may_lie_beside(name: str) -> bool:
    """Say whether a file of the top folder is one that people put there: its licence, its description."""
    return name == "LICENSE" or (name.startswith("README") and "/" not in name)


def _class_problem(manifest: Manifest) -> str:
    wnids = [record.wnid for record in manifest.classes]
    if manifest.settings.get("class_order", "sorted") != "sorted":
        return "" if len(set(wnids)) == len(wnids) else "has a class twice"
    for label, (before, after) in enumerate(itertools.pairwise(wnids), start=1):
        if before >= after:
            said = f"class {label} ({after}) must not come after class {label - 1} ({before})"
            return f"{said}: labels follow the sorted WNIDs"
    return ""
