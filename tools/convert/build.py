"""Make a data set: claim the folder, have its shards converted, write index, statistics and, last, the manifest."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import features

from alexnet import __version__
from alexnet.shards.colour import ColourSums, statistics_of
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import (
    INDEX_NAME,
    MANIFEST_NAME,
    MEAN_IMAGE_NAME,
    REJECTED_NAME,
    SCHEMA,
    SPLITS,
    Manifest,
    SplitCounts,
    read_manifest,
)
from alexnet.shards.writer import file_record
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.plan import ConvertSettings, plan_shards
from alexnet.tools.convert.pool import Progress, convert_all
from alexnet.tools.convert.work import WORK, Outcome, load_outcome

_JOB = "job.json"


def build(
    source: Source, root: Path, settings: ConvertSettings, workers: int, on_progress: Callable[[Progress], None]
) -> Manifest:
    """Convert a source into a data set at `root`; continue what an earlier call with equal settings left there.

    The result does not depend on `workers`. Raises InputError if `root` holds anything else.
    """
    job = _job_of(source, settings)
    if (root / MANIFEST_NAME).exists():
        return _finished(root, job)
    _claim(root, job)
    plans = plan_shards(source, settings)
    missing = [plan for plan in plans if load_outcome(root, plan) is None]
    resumed = sum(len(p.members) for p in plans) - sum(len(p.members) for p in missing)
    convert_all(missing, root, source.root, settings, workers, lambda w, r: on_progress(Progress(w, r, resumed)))
    outcomes = [outcome for plan in plans if (outcome := load_outcome(root, plan)) is not None]
    manifest = _finish(root, job, source, outcomes)
    shutil.rmtree(root / WORK)
    return manifest


def is_complete(root: Path) -> bool:
    """Say whether a folder holds a finished data set."""
    return (root / MANIFEST_NAME).exists()


def _job_of(source: Source, settings: ConvertSettings) -> dict[str, Any]:
    """Describe what is to be made: what two calls must agree on to work on one folder."""
    return {
        "settings": settings.as_manifest(),
        "source": {"kind": source.kind, "digest": source.digest()},
        "versions": {
            "alexnet": __version__,
            "pillow": PIL.__version__,
            "libjpeg-turbo": str(features.version_feature("libjpeg_turbo") or features.version_codec("jpg")),
        },
    }


def _finished(root: Path, job: dict[str, Any]) -> Manifest:
    manifest = read_manifest(root)
    found = {"settings": manifest.settings, "source": manifest.source, "versions": manifest.versions}
    _refuse_differences(root, job, found, keys=("settings", "source"))
    return manifest


def _claim(root: Path, job: dict[str, Any]) -> None:
    """Make the folder ours, or find that it is already; refuse a folder that holds something else."""
    job_file = root / WORK / _JOB
    if job_file.exists():
        _refuse_differences(root, job, json.loads(job_file.read_text()), keys=tuple(job))
    elif root.exists() and (not root.is_dir() or any(p.name != WORK for p in root.iterdir())):
        raise InputError(f"{root}: exists and is no data set of alexnet-prep; give another --out, or empty it")
    for folder in (WORK, *SPLITS):
        (root / folder).mkdir(parents=True, exist_ok=True)
    partial = job_file.with_suffix(".partial")
    partial.write_text(json.dumps(job))
    partial.replace(job_file)


def _refuse_differences(root: Path, wanted: dict[str, Any], found: dict[str, Any], keys: tuple[str, ...]) -> None:
    different = [
        f"{field} {found.get(key, {}).get(field)!r} there, {value!r} asked for"
        for key in keys
        for field, value in wanted[key].items()
        if found.get(key, {}).get(field) != value
    ]
    if different:
        raise InputError(f"{root}: already holds another data set ({'; '.join(different)}); give another --out")


def _finish(root: Path, job: dict[str, Any], source: Source, outcomes: list[Outcome]) -> Manifest:
    """Write everything beside the shards, the manifest last."""
    sums = ColourSums(job["settings"]["size_px"])
    for outcome in outcomes:
        if outcome.sums is not None:
            sums.merge(outcome.sums)
    if not sums.images:
        raise InputError(f"{source.root}: none of its training images can be decoded; see {root / WORK}")
    np.save(root / INDEX_NAME, np.concatenate([outcome.rows for outcome in outcomes]))
    np.save(root / MEAN_IMAGE_NAME, sums.mean_image())
    rejected = [entry for outcome in outcomes for entry in outcome.rejected]
    (root / REJECTED_NAME).write_text("".join(json.dumps(entry) + "\n" for entry in rejected))
    counts = {}
    for split in SPLITS:
        written = sum(o.record.images for o in outcomes if o.record.split == split)
        bad = sum(1 for entry in rejected if entry["split"] == split)
        counts[split] = SplitCounts(input=len(source.members[split]), written=written, rejected=bad)
    manifest = Manifest(
        schema=SCHEMA,
        **job,
        classes=source.classes,
        counts={str(split): c for split, c in counts.items()},
        shards=tuple(outcome.record for outcome in outcomes),
        files=tuple(file_record(root, name) for name in (INDEX_NAME, MEAN_IMAGE_NAME, REJECTED_NAME)),
        colour=statistics_of(sums),
    )
    partial = root / f"{MANIFEST_NAME}.partial"
    partial.write_text(manifest.to_json(), encoding="utf-8")
    partial.replace(root / MANIFEST_NAME)
    return manifest
