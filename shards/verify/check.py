"""Verify a data set: is every byte what the converter wrote, and does everything agree with everything else.

Three witnesses are heard. SHA256SUMS and the manifest say what each file's sha256 is; the tars, read by the standard
library alone, say what the manifest, the index and the DALI index files must hold; and, given a decoder, the pixels
say whether the colour statistics are theirs. Nothing is written and nothing is mended.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from alexnet.shards.errors import InputError, reason_of
from alexnet.shards.files import CHECKSUMS_NAME, read_checksums
from alexnet.shards.index import IndexRows
from alexnet.shards.manifest import MANIFEST_NAME, MEAN_IMAGE_NAME, SPLITS, Manifest, Split, read_manifest
from alexnet.shards.verify.colour import ColourCheck, compare_colour
from alexnet.shards.verify.files import FileFacts, check_presence, facts_of, judge, recorded_files
from alexnet.shards.verify.findings import FindingList
from alexnet.shards.verify.index import check_class_counts, check_mean_image, check_places, load_index
from alexnet.shards.verify.manifest import check_manifest
from alexnet.shards.verify.pool import check_shards
from alexnet.shards.verify.report import Report, Totals
from alexnet.shards.verify.shard import Decoder, ShardTask

_TAR = re.compile(f"({'|'.join(SPLITS)})/([0-9]{{6,9}})\\.tar")

OnProgress = Callable[[int, int], None]
"""Told of bytes read, and of all bytes there are to read."""


def verify(
    root: Path, *, decode: Decoder | None = None, workers: int = 0, on_progress: OnProgress = lambda *_: None
) -> Report:
    """Check a data set's files against its manifest and its SHA256SUMS, and all of them against its tars.

    `decode`: also decode every JPEG with it and recompute the colour statistics; worker processes must be able to
    import it. `workers`: processes, 0 for this one alone; the findings do not depend on it. Memory does not grow with
    the number of images, but for the index (24 bytes an image) and the places of rejects. Raises InputError if `root`
    is no data set at all.
    """
    started = time.perf_counter()
    findings = FindingList()
    manifest, checksums = _read_manifest(root, findings), _read_checksums(root, findings)
    names = check_presence(root, manifest, checksums, findings)
    progress = _Progress(sum((root / name).stat().st_size for name in names), on_progress)
    facts = _hash([name for name in names if not _TAR.fullmatch(name)], root, progress, findings)
    index = load_index(root, manifest, findings) if manifest else None
    totals = Totals(len(manifest.classes) if manifest else 0, manifest.size_px if manifest else 1)
    for outcome in check_shards(root, _tasks(names, manifest, index, decode), workers, progress.advance):
        findings.merge(outcome.findings)
        totals.add(outcome)
        if outcome.sha256 is not None:
            facts[outcome.file] = FileFacts(sha256=outcome.sha256, bytes=outcome.bytes)
    _judge_all(facts, manifest, checksums, findings)
    if manifest is not None and index is not None:
        check_places(root, manifest, index, findings)
        check_class_counts(manifest, index, totals.class_images, findings)
    colour = _check_colour(root, manifest, totals, findings) if manifest else None
    return Report(
        findings=findings.all(),
        files=len(facts),
        bytes=sum(found.bytes or 0 for found in facts.values()),
        shards=totals.shards,
        images={str(split): images for split, images in totals.images.items()},
        class_images={str(s): (int(c.min()), int(c.max())) for s, c in totals.class_images.items() if len(c)},
        decoded=totals.decoded,
        digests={name: facts[name].sha256 for name in (MANIFEST_NAME, CHECKSUMS_NAME) if name in facts},
        colour=colour,
        seconds=time.perf_counter() - started,
    )


class _Progress:
    """Add up the bytes read."""

    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self._done, self._total, self._on_progress = 0, total, on_progress

    def advance(self, count: int) -> None:
        self._done += count
        self._on_progress(self._done, self._total)


def _read_manifest(root: Path, findings: FindingList) -> Manifest | None:
    """Read the manifest; without one, SHA256SUMS alone must do, and without both there is no data set."""
    path = root / MANIFEST_NAME
    if not path.is_file() and (root / CHECKSUMS_NAME).is_file():
        return None  # reported with the missing files
    try:
        manifest = read_manifest(root)
    except InputError as error:
        if not path.is_file():
            raise
        findings.add(MANIFEST_NAME, f"cannot be used: {error}")
        return None
    check_manifest(root, manifest, findings)
    return manifest


def _read_checksums(root: Path, findings: FindingList) -> dict[str, str] | None:
    if not (root / CHECKSUMS_NAME).is_file():
        return None  # reported with the missing files
    try:
        checksums, faults = read_checksums(root)
    except (OSError, ValueError) as error:
        findings.add(CHECKSUMS_NAME, f"cannot be read: {reason_of(error)}")
        return None
    for fault in faults:
        findings.add(CHECKSUMS_NAME, fault)
    return checksums


def _hash(names: list[str], root: Path, progress: _Progress, findings: FindingList) -> dict[str, FileFacts]:
    facts = {}
    for name in names:
        try:
            facts[name] = facts_of(root / name)
        except OSError as error:
            findings.add(name, f"cannot be read: {error.strerror or error}")
        else:
            progress.advance(facts[name].bytes or 0)
    return facts


def _judge_all(
    facts: dict[str, FileFacts], manifest: Manifest | None, checksums: dict[str, str] | None, findings: FindingList
) -> None:
    recorded = recorded_files(manifest) if manifest else {}
    listed = checksums if checksums else {}
    for name, found in facts.items():
        judge(name, found, recorded.get(name), listed.get(name), findings)


def _tasks(
    names: list[str], manifest: Manifest | None, index: dict[Split, IndexRows] | None, decode: Decoder | None
) -> list[ShardTask]:
    """Make a task of each tar; without a manifest a tar is held against its DALI index file alone."""
    matches = [match for name in names if (match := _TAR.fullmatch(name))]
    found = {(SPLITS.index(cast(Split, match[1])), int(match[2])) for match in matches}
    if manifest is None:
        return [ShardTask(split=SPLITS[split], number=number) for split, number in sorted(found)]
    tasks, first_row, most_jpeg_bytes = [], 0, manifest.most_jpeg_bytes
    for k, split in enumerate(SPLITS):
        for number, shard in enumerate(manifest.shards_of(split)):
            task = ShardTask(
                split=split,
                number=number,
                first_row=None if index is None else first_row,
                images=shard.images,
                classes=len(manifest.classes),
                stored=manifest.stored,
                most_jpeg_bytes=most_jpeg_bytes,
                decode=decode,
            )
            tasks += [task] if (k, number) in found else []
            first_row += shard.images
    return tasks


def _check_colour(root: Path, manifest: Manifest, totals: Totals, findings: FindingList) -> ColourCheck | None:
    """Compare colours, if every training image has been decoded: without some, a difference would mean nothing."""
    mean_image = check_mean_image(root, manifest, findings)
    if not totals.colour.images or totals.colour.images != manifest.counts["train"].written:
        return None
    check = compare_colour(totals.colour, totals.dc_step, manifest.colour, mean_image)
    for problem in check.problems:
        findings.add(MANIFEST_NAME, problem)
    if check.mean_image_problem:
        findings.add(MEAN_IMAGE_NAME, check.mean_image_problem)
    return check
