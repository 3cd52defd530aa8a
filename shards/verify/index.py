"""Check what lies beside the shards: the index, the rejects, the mean image.

Rows are held against tars shard by shard elsewhere (`verify_shard`); here stands what concerns a split as a whole.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet.shards.index import INDEX_DTYPE, IndexRows
from alexnet.shards.manifest import INDEX_NAME, MEAN_IMAGE_NAME, REJECTED_NAME, SPLITS, Manifest, Split
from alexnet.shards.verify.findings import FindingList
from alexnet.shards.verify.manifest import channels_of, counts_of

_FIRST_WNID, _LAST_WNID = "n01440764", "n15075141"  # of the 1,000 classes of ILSVRC-2012
_VAL_IMAGES, _VAL_IMAGES_PER_CLASS = 50_000, 50
_VAL_LABELS = (65, 970, 230, 809)  # of ILSVRC2012_val_00000001 to 4; their ILSVRC2012_IDs are 490, 361, 171, 822
_MEAN_TOLERANCE = 1e-4  # float32 rounds a pixel of the mean image by less than 1e-5


def load_index(root: Path, manifest: Manifest, findings: FindingList) -> dict[Split, IndexRows] | None:
    """Map the index and cut it into splits; None, with a finding, if it cannot be the manifest's."""
    written = {split: counts_of(manifest, split).written for split in SPLITS}
    if not (root / INDEX_NAME).is_file():
        return None  # reported with the missing files
    try:
        rows: npt.NDArray[Any] = np.load(root / INDEX_NAME, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy's header parser raises whatever its tokeniser trips over
        findings.add(INDEX_NAME, f"cannot be read: {error}")
        return None
    if rows.dtype != INDEX_DTYPE or rows.shape != (sum(written.values()),):
        shape = "x".join(map(str, rows.shape))
        findings.add(INDEX_NAME, f"holds {shape} rows of {rows.dtype} where {sum(written.values()):,} samples must be")
        return None
    return {"train": rows[: written["train"]], "val": rows[written["train"] :]}


def check_places(root: Path, manifest: Manifest, index: Mapping[Split, IndexRows], findings: FindingList) -> None:
    """Require that every place of a split is either in the index or among the rejects: input = written + rejected."""
    rejected = _rejected_places(root / REJECTED_NAME, manifest, findings)
    if rejected is None:
        return
    for split, rows in index.items():
        counts = counts_of(manifest, split)
        if len(rejected[split]) != counts.rejected:
            problem = f"lists {len(rejected[split]):,} {split} images where the manifest counts {counts.rejected:,}"
            findings.add(REJECTED_NAME, problem)
        times = np.bincount(_inside(rows["place"], counts.input), minlength=counts.input)
        times += np.bincount(_inside(np.array(rejected[split], np.int64), counts.input), minlength=counts.input)
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
    """Check the mean image's kind, and its mean against the manifest's; return it if it is sound."""
    if not (root / MEAN_IMAGE_NAME).is_file():
        return None
    try:
        image: npt.NDArray[Any] = np.load(root / MEAN_IMAGE_NAME, allow_pickle=False)
    except Exception as error:  # as in load_index
        findings.add(MEAN_IMAGE_NAME, f"cannot be read: {error}")
        return None
    side = manifest.size_px
    if image.dtype != np.float32 or image.shape not in ((side, side, 3), (side, side, channels_of(manifest))):
        shape = "x".join(map(str, image.shape))
        findings.add(MEAN_IMAGE_NAME, f"is {shape} of {image.dtype}: must be {side}x{side}x3 of float32")
        return None
    means = image.mean(axis=(0, 1), dtype=np.float64)
    if not np.all(np.abs(means - np.array(manifest.colour.mean)[: len(means)]) <= _MEAN_TOLERANCE):
        said = ", ".join(f"{v:.3f}" for v in manifest.colour.mean)
        found = ", ".join(f"{v:.3f}" for v in means)
        findings.add(MEAN_IMAGE_NAME, f"has the mean {found} where the manifest's colour.mean is {said}")
        return None
    return image


def _inside(places: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    return places[(places >= 0) & (places < count)]


def _rejected_places(path: Path, manifest: Manifest, findings: FindingList) -> dict[Split, list[int]] | None:
    places: dict[Split, list[int]] = {split: [] for split in SPLITS}
    try:
        lines = path.read_bytes().splitlines() if path.is_file() else None
    except OSError:
        lines = None
    if lines is None:
        return None  # reported with the missing or unreadable files
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            split, place, texts = entry["split"], entry["place"], (entry["member"], entry["reason"])
            if not isinstance(place, int) or not all(isinstance(text, str) for text in texts):
                raise ValueError("`place` must be a number, `member` and `reason` texts")
            places[split].append(place)
        except (ValueError, KeyError, TypeError) as error:
            findings.add(REJECTED_NAME, f"line {number} is not a record of a rejected image: {error!r}")
            return None
        if not 0 <= place < counts_of(manifest, split).input:
            findings.add(REJECTED_NAME, f"line {number} names place {place} of {split}, which has no such place")
    return places


def _is_ilsvrc2012(manifest: Manifest) -> bool:
    classes = manifest.classes
    official = len(classes) == 1000 and (classes[0].wnid, classes[-1].wnid) == (_FIRST_WNID, _LAST_WNID)
    return official and "class_order" not in manifest.settings and counts_of(manifest, "val").input == _VAL_IMAGES


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
