"""Is a manifest that can be read also right? Nothing but the manifest is looked at."""

import itertools
from pathlib import Path

import numpy as np

from alexnet.shards.colour import ColourStatistics
from alexnet.shards.files import MAX_JSON_BYTES, read_bytes
from alexnet.shards.manifest import MANIFEST_NAME, Manifest
from alexnet.shards.verify.findings import FindingList

_RESIDUAL = 1e-6  # of the largest eigenvalue: figures are rounded to 12 digits


def check_manifest(root: Path, manifest: Manifest, findings: FindingList) -> None:
    """Note classes and colours that contradict themselves, and a manifest that says more than it was read for."""
    for problem in [*_class_problems(manifest), *_colour_problems(manifest.colour)]:
        findings.add(MANIFEST_NAME, problem)
    if read_bytes(root / MANIFEST_NAME, MAX_JSON_BYTES) != manifest.to_json().encode():
        findings.add(MANIFEST_NAME, "has members, numbers or a layout that the converter does not write")


def _class_problems(manifest: Manifest) -> list[str]:
    wnids = [record.wnid for record in manifest.classes]
    if manifest.settings.get("class_order", "sorted") != "sorted":
        return [] if len(set(wnids)) == len(wnids) else ["has a class twice"]
    problems = (
        f"class {label + 1} ({after}) must not come after class {label} ({before}): labels follow the sorted WNIDs"
        for label, (before, after) in enumerate(itertools.pairwise(wnids))
        if before >= after
    )
    return list(itertools.islice(problems, 1))


def _colour_problems(colour: ColourStatistics) -> list[str]:
    """Find axes that are not those of the covariance: the eigenproblem's solution is tested, not found again."""
    lists = (colour.covariance, colour.eigenvalues, colour.eigenvectors, colour.standard_deviations)
    covariance, values, vectors, deviations = (np.array(figures, np.float64) for figures in lists)
    scale = max(float(np.abs(covariance).max()), 1e-12)
    residuals = (
        np.abs(covariance - covariance.T).max() / scale,
        np.abs(vectors @ covariance - values[:, None] * vectors).max() / scale,
        np.abs(vectors @ vectors.T - np.eye(3)).max(),
        np.abs(deviations**2 - np.maximum(values, 0.0)).max() / scale,
    )
    if max(residuals) > _RESIDUAL or np.any(np.diff(values) > 0):
        return ["colour.eigenvalues, eigenvectors and standard_deviations are not those of colour.covariance"]
    return []
