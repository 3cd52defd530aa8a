"""Compare planes with what the JPEGs that they were decoded from give now, sample by sample."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import MANIFEST_NAME, SPLITS, Manifest, Split, StoredSettings, read_manifest
from alexnet.shards.processes import Counts, WorkerDiedError, WorkerPool
from alexnet.shards.verify_shard import Findings
from alexnet.shards.writer import Sample
from alexnet.tools.decode.plan import PlanesSet, PlanesShard, plan_planes
from alexnet.tools.decode.shard import decoded, reader_of, stem_of
from alexnet.tools.progress import Amount


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Hold all that a worker needs to compare one shard. `first`: the id of its first sample among the planes."""

    planes: Path
    jpegs: Path
    shard: PlanesShard
    stored: StoredSettings
    first: int


def plan_comparison(planes: Path, jpegs: Path) -> PlanesSet:
    """Return what the JPEGs would become now. Raises InputError if it is not them that the planes were decoded from."""
    made, found = read_manifest(planes), read_manifest(jpegs)
    if made.stored.encoding == "jpeg":
        raise InputError(f"--against {jpegs}: is for planes, and {planes} holds JPEGs; leave it out")
    if made.source["digest"] != found.digest():
        raise InputError(
            f"--against {jpegs}: is not what {planes} was decoded from, whose manifest has the sha256 "
            f"{made.source['digest']}"
        )
    return plan_planes(jpegs, _split_of(made, found), _labels_of(made, found))


def _split_of(made: Manifest, found: Manifest) -> Split | None:
    there, whole = ([split for split in SPLITS if manifest.counts[split].input] for manifest in (made, found))
    return there[0] if len(there) == 1 and there != whole else None


def _labels_of(made: Manifest, found: Manifest) -> list[int] | None:
    if "classes" not in made.source:
        return None
    label_of = {record.wnid: label for label, record in enumerate(found.classes)}
    if strange := [record.wnid for record in made.classes if record.wnid not in label_of]:
        raise InputError(f"--against: the JPEGs have no class {strange[0]!r}, of which there are planes")
    return [label_of[record.wnid] for record in made.classes]


def compare(planes: Path, plan: PlanesSet, workers: int, on_progress: Callable[[Amount], None]) -> Findings:
    """Compare what the manifest says, and all samples; return what differs.

    Raises InputError if a JPEG is damaged, or a worker dies.
    """
    found = _compare_manifests(read_manifest(planes), plan)
    if list(found.all()):
        return found
    first, jobs = dict.fromkeys(SPLITS, 0), list[Comparison]()
    for shard in plan.shards:
        begin = first[shard.split]
        jobs.append(
            Comparison(planes=planes.absolute(), jpegs=plan.source, shard=shard, stored=plan.stored, first=begin)
        )
        first[shard.split] += len(shard.ids)

    def on_counts(counts: list[int]) -> None:
        on_progress(Amount(event="progress", stage="against", done=counts[0], total=plan.images, unit="images"))

    with WorkerPool(compare_shard, workers, on_counts=on_counts) as pool:
        try:
            for findings in pool.results(jobs, in_order=True):
                found.merge(findings)
        except WorkerDiedError as error:
            raise InputError(f"workers={workers}: {error}") from None
    return found


def _compare_manifests(made: Manifest, plan: PlanesSet) -> Findings:
    """Return what is not as planned; what is said of colours is only if all classes were taken."""
    found = Findings()
    wanted: dict[str, object] = {"settings": plan.job.settings, "versions": plan.job.versions, "classes": plan.classes}
    wanted |= {"counts": plan.counts, "source": plan.job.source}
    if not plan.chosen:
        wanted["colour"] = plan.jpegs.colour
    for field, value in wanted.items():
        if getattr(made, field) != value:
            found.add(MANIFEST_NAME, f"its {field} are not what they are by the JPEGs")
    return found


def compare_shard(job: Comparison, counts: Counts) -> Findings:
    """Return what of one shard of planes is not what the JPEGs give; the first of `counts` grows by each image."""
    found, shard = Findings(), job.shard
    reader, jpegs = reader_of(job.planes, shard.split), reader_of(job.jpegs, shard.split)
    file = reader.shards[shard.number].file
    if reader.shards[shard.number].images != len(shard.ids):
        found.add(file, f"holds {reader.shards[shard.number].images:,} samples, by the JPEGs {len(shard.ids):,}")
        return found
    places, labels = shard.places.tolist(), shard.labels.tolist()
    for position, (key, planes) in enumerate(decoded(jpegs, shard.ids, job.stored)):
        sample_id = job.first + position
        actual, stored = reader.key_and_stored(sample_id)
        expected = Sample(place=places[position], stem=stem_of(key, job.stored), label=labels[position], stored=b"")
        if actual != expected.key:
            found.add(file, f"is {expected.key} by the JPEGs", actual)
        if reader.labels[sample_id] != labels[position]:
            found.add(file, f"its label is {reader.labels[sample_id]}, by the JPEGs {labels[position]}", actual)
        if not np.array_equal(stored, planes):
            found.add(file, f"{np.count_nonzero(stored != planes):,} bytes are not what its JPEG decodes to", actual)
        counts[0] += 1
    return found
