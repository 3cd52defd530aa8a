"""Does a manifest contradict itself? Nothing but the manifest is looked at.

A manifest that is one changed byte away from what was written may still parse: a count with a decimal point, a class
out of order. Everything later relies on what is settled here, so findings of the first kind end the check.
"""

import itertools
import re

import numpy as np
import numpy.typing as npt

from alexnet.shards.colour import ColourStatistics
from alexnet.shards.manifest import (
    INDEX_NAME,
    MANIFEST_NAME,
    MEAN_IMAGE_NAME,
    REJECTED_NAME,
    SPLITS,
    FileRecord,
    Manifest,
    ShardRecord,
    Split,
    SplitCounts,
)
from alexnet.shards.verify.findings import FindingList
from alexnet.shards.writer import shard_file

Array = npt.NDArray[np.float64]

FILES = (INDEX_NAME, MEAN_IMAGE_NAME, REJECTED_NAME)

_SHA256 = re.compile("[0-9a-f]{64}")
_RESIDUAL = 1e-6  # of the largest eigenvalue: figures are rounded to 12 digits


def channels_of(manifest: Manifest) -> int:
    """Return the channels of the stored images: 3 unless the settings say otherwise."""
    return int(manifest.settings.get("channels", 3))


def counts_of(manifest: Manifest, split: Split) -> SplitCounts:
    """Return a split's counts; a split that is not there counts nothing."""
    return manifest.counts.get(split, SplitCounts(input=0, written=0, rejected=0))


def check_manifest(manifest: Manifest, findings: FindingList) -> bool:
    """Note what a manifest has wrong in itself; return whether the data can be checked against it at all."""
    problems = [*_type_problems(manifest)]
    usable = not problems
    if usable:
        problems += [*_shard_problems(manifest), *_class_problems(manifest), *_colour_problems(manifest.colour)]
    for problem in problems:
        findings.add(MANIFEST_NAME, problem)
    return usable


def _type_problems(manifest: Manifest) -> list[str]:
    """Find fields that are not of the kind, or in the range, that the format gives them."""
    settings, problems = manifest.settings, []
    for name, low, high in (("size_px", 1, 1 << 16), ("shard_images", 1, 99_999_999)):
        if not _is_count(settings.get(name), low, high):
            problems.append(f"settings.{name} is {settings.get(name)!r}: must be a whole number from {low} to {high}")
    if not _is_count(settings.get("channels", 3), 1, 3):
        problems.append(f"settings.channels is {settings['channels']!r}: must be 1 or 3")
    if "train" not in manifest.counts or not set(manifest.counts) <= set(SPLITS):
        problems.append(f"counts has the splits {', '.join(manifest.counts)}: must be {' and '.join(SPLITS)}")
    for split, counts in manifest.counts.items():
        if not all(_is_count(value) for value in (counts.input, counts.written, counts.rejected)):
            problems.append(f"counts.{split} is {counts.input!r} in, {counts.written!r} written: must be whole numbers")
    problems += _record_problems(manifest)
    if not all(isinstance(c.wnid, str) and isinstance(c.words, str) for c in manifest.classes):
        problems.append("a class has no wnid or no words")
    if not _figures(manifest.colour):
        problems.append("colour holds something that is not a number, or a mean and a covariance of different sizes")
    return problems


def _record_problems(manifest: Manifest) -> list[str]:
    problems = []
    records: list[ShardRecord | FileRecord] = [*manifest.shards, *manifest.files]
    for record in records:
        numbers = (record.bytes, getattr(record, "images", 0))
        texts = isinstance(record.file, str) and isinstance(record.sha256, str)
        if not texts or not all(_is_count(value) for value in numbers) or not _SHA256.fullmatch(record.sha256):
            problems.append(f"the record of {record.file!r} has no whole-numbered bytes and images, or no sha256")
    return problems


def _is_count(value: object, low: int = 0, high: int = 1 << 62) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _shard_problems(manifest: Manifest) -> list[str]:
    """Find shards and files that do not add up to the counts, or that lie elsewhere than the format says."""
    problems = []
    planned = manifest.settings["shard_images"]
    for split in SPLITS:
        counts, shards = counts_of(manifest, split), manifest.shards_of(split)
        images = sum(shard.images for shard in shards)
        if images != counts.written:
            problems.append(f"its {split} shards hold {images:,} images where counts says {counts.written:,} written")
        if len(shards) != -(-counts.input // planned):
            problems.append(f"has {len(shards)} {split} shards where {counts.input:,} images make {planned:,} a shard")
        for number, shard in enumerate(shards):
            if shard.file != shard_file(split, number):
                problems.append(f"names {shard.file!r} where {shard_file(split, number)} must be")
    if len(manifest.shards) != sum(len(manifest.shards_of(split)) for split in SPLITS):
        problems.append(f"has a shard that belongs to neither {' nor '.join(SPLITS)}")
    if sorted(record.file for record in manifest.files) != sorted(FILES):
        problems.append(f"lists the files {', '.join(r.file for r in manifest.files)}: must be {', '.join(FILES)}")
    return problems


def _class_problems(manifest: Manifest) -> list[str]:
    wnids = [record.wnid for record in manifest.classes]
    if manifest.settings.get("class_order", "sorted") != "sorted":
        return [] if len(set(wnids)) == len(wnids) > 0 else ["has no classes, or one twice"]
    problems = [
        f"class {label + 1} ({after}) must not come after class {label} ({before}): labels follow the sorted WNIDs"
        for label, (before, after) in enumerate(itertools.pairwise(wnids))
        if before >= after
    ]
    return problems[:1] if wnids else ["has no classes"]


def _figures(colour: ColourStatistics) -> list[Array]:
    """Return mean, covariance, eigenvalues, eigenvectors and deviations; empty if they are no figures of one size."""
    lists = (colour.mean, colour.covariance, colour.eigenvalues, colour.eigenvectors, colour.standard_deviations)
    n = len(colour.mean)
    try:
        figures = [np.array(values, np.float64) for values in lists]
    except (TypeError, ValueError):
        return []
    sound = n > 0 and [values.shape for values in figures] == [(n,), (n, n), (n,), (n, n), (n,)]
    return figures if sound and all(np.isfinite(values).all() for values in figures) else []


def _colour_problems(colour: ColourStatistics) -> list[str]:
    """Find axes that are not those of the covariance: the eigenproblem's solution is tested, not found again."""
    mean, covariance, values, vectors, deviations = _figures(colour)
    scale = max(float(np.abs(covariance).max()), 1e-12)
    residuals = (
        np.abs(covariance - covariance.T).max() / scale,
        np.abs(vectors @ covariance - values[:, None] * vectors).max() / scale,
        np.abs(vectors @ vectors.T - np.eye(len(mean))).max(),
        np.abs(deviations**2 - np.maximum(values, 0.0)).max() / scale,
    )
    problems = []
    if max(residuals) > _RESIDUAL or np.any(np.diff(values) > 0):
        problems.append("colour.eigenvalues, eigenvectors and standard_deviations are not those of colour.covariance")
    if not np.all((mean >= 0) & (mean <= 255)):
        problems.append(f"colour.mean is {', '.join(f'{v:g}' for v in mean)}: must lie between 0 and 255")
    return problems
