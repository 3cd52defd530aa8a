"""Check what lies beside the shards: the index, the rejects, the mean image.

Rows are held against tars shard by shard elsewhere (`verify_shard`); here stands what concerns a split as a whole.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet.shards.errors import InputError
from alexnet.shards.index import IndexRows, map_index
from alexnet.shards.manifest import (
    INDEX_NAME,
    MEAN_IMAGE_NAME,
    MEND,
    REJECTED_NAME,
    SPLITS,
    Manifest,
    Split,
    read_rejects,
)
from alexnet.shards.reader import read_mean_image
from alexnet.shards.verify.findings import FindingList

_FIRST_WNID, _LAST_WNID = "n01440764", "n15075141"  # of the 1,000 classes of ILSVRC-2012
_VAL_IMAGES, _VAL_IMAGES_PER_CLASS = 50_000, 50
_VAL_LABELS = (65, 970, 230, 809)  # of ILSVRC2012_val_00000001 to 4; their ILSVRC2012_IDs are 490, 361, 171, 822
_MEAN_TOLERANCE = 1e-4  # float32 rounds a pixel of the mean image by less than 1e-5


def load_index(root: Path, manifest: Manifest, findings: FindingList) -> dict[Split, IndexRows] | None:
    """Map the index and cut it into splits; None, with a finding, if it cannot be the manifest's."""
    if not (root / INDEX_NAME).is_file():
        return None  # reported with the missing files
    try:
        return map_index(root, manifest)
    except (OSError, ValueError) as error:
        findings.add(INDEX_NAME, f"cannot be read: {error}")
        return None


def check_places(root: Path, manifest: Manifest, index: Mapping[Split, IndexRows], findings: FindingList) -> None:
    """Require that every place of a split is either in the index or among the rejects: input = written + rejected."""
    rejected = _rejected_places(root / REJECTED_NAME, manifest, findings)
    if rejected is None:
        return
    for split, rows in index.items():
        counts, places = manifest.counts[split], rejected[split]
        if len(places) != counts.rejected:
            problem = f"lists {len(places):,} {split} images where the manifest counts {counts.rejected:,}"
            findings.add(REJECTED_NAME, problem)
            continue
        times = np.bincount(_inside(rows["place"], counts.input), minlength=counts.input)
        times += np.bincount(_inside(np.array(places, np.int64), counts.input), minlength=counts.input)
        for place in np.flatnonzero(times != 1)[:3].tolist():
            found = "neither in the index nor among the rejects" if times[place] == 0 else "there more than once"
            findings.add(INDEX_NAME, f"place {place} of {split} is {found}")


def check_class_counts(
    manifest: Manifest,
    index: Mapping[Split, IndexRows],
    in_tars: Mapping[Split, npt.NDArray[np.int64]],
    findings: FindingList,
) -> None:
    """Compare the images of each class in the tars with the index, and with what is known of ILSVRC-2012."""
    for split, rows in index.items():
        classes = len(manifest.classes)
        labels = rows["label"]
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            findings.add(
                INDEX_NAME, f"has {split} labels from {labels.min()} to {labels.max()}: must be under {classes}"
            )
            continue
        indexed = np.bincount(labels, minlength=classes)
        for label in np.flatnonzero(indexed != in_tars[split]).tolist():
            wnid = manifest.classes[label].wnid
            problem = (
                f"has {indexed[label]:,} {split} images of class {label} ({wnid}), the tars {in_tars[split][label]:,}"
            )
            findings.add(INDEX_NAME, problem)
    if _is_ilsvrc2012(manifest):
        _check_ilsvrc2012(manifest, index["val"], findings)


def check_mean_image(root: Path, manifest: Manifest, findings: FindingList) -> npt.NDArray[np.float32] | None:
    """Check the mean image, and its mean against the manifest's; return it if it is sound."""
    if not (root / MEAN_IMAGE_NAME).is_file():
        return None
    try:
        image = read_mean_image(root / MEAN_IMAGE_NAME, manifest.size_px, mend=MEND)
    except InputError as error:
        findings.add(MEAN_IMAGE_NAME, f"cannot be used: {error}")
        return None
    means = image.mean(axis=(0, 1), dtype=np.float64)
    if not np.all(np.abs(means - np.array(manifest.colour.mean)) <= _MEAN_TOLERANCE):
        said, found = (", ".join(f"{v:.3f}" for v in row) for row in (manifest.colour.mean, means))
        findings.add(MEAN_IMAGE_NAME, f"has the mean {found} where the manifest's colour.mean is {said}")
        return None
    return image


def _inside(places: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    return places[(places >= 0) & (places < count)]


def _rejected_places(path: Path, manifest: Manifest, findings: FindingList) -> dict[Split, list[int]] | None:
    if not path.is_file():
        return None  # reported with the missing files
    places: dict[Split, list[int]] = {split: [] for split in SPLITS}
    before = (0, -1)
    try:
        for number, reject in enumerate(read_rejects(path), start=1):
            split, place = reject.split, reject.place
            places[split].append(place)
            if place >= manifest.counts[split].input:
                findings.add(REJECTED_NAME, f"line {number} names place {place} of {split}, which has no such place")
            if (SPLITS.index(split), place) <= before:
                findings.add(REJECTED_NAME, f"line {number} comes after a later place: lines follow splits and places")
            before = SPLITS.index(split), place
    except OSError:
        return None  # reported with the unreadable files
    except ValueError as error:
        findings.add(REJECTED_NAME, str(error))
        return None
    return places


def _is_ilsvrc2012(manifest: Manifest) -> bool:
    classes = manifest.classes
    official = len(classes) == 1000 and (classes[0].wnid, classes[-1].wnid) == (_FIRST_WNID, _LAST_WNID)
    return official and "class_order" not in manifest.settings and manifest.counts["val"].input == _VAL_IMAGES


def _check_ilsvrc2012(manifest: Manifest, rows: IndexRows, findings: FindingList) -> None:
    """Hold the validation labels against what everybody's must be: the mark of IDs that were taken for labels."""
    for row in rows[: len(_VAL_LABELS)]:
        place = int(row["place"])
        if place < len(_VAL_LABELS) and int(row["label"]) != _VAL_LABELS[place]:
            problem = (
                f"labels ILSVRC2012_val_{place + 1:08d} {row['label']}, which is {_VAL_LABELS[place]} everywhere else"
            )
            findings.add(INDEX_NAME, problem)
    images = np.bincount(rows["label"], minlength=len(manifest.classes))
    if images.max() > _VAL_IMAGES_PER_CLASS:
        most = int(images.argmax())
        problem = f"has {images[most]} validation images of class {most}: ILSVRC-2012 has {_VAL_IMAGES_PER_CLASS}"
        findings.add(INDEX_NAME, problem)
