"""On the official classes everybody knows some labels: a set that has others took IDs for labels."""

import dataclasses
from pathlib import Path

import numpy as np

from alexnet.shards.index import INDEX_DTYPE
from alexnet.shards.manifest import ClassRecord, SplitCounts, read_manifest
from alexnet.shards.verify.findings import FindingList
from alexnet.shards.verify.index import check_class_counts


def test_ids_taken_for_labels_are_recognised_on_the_official_classes(data_set: Path) -> None:
    wnids = ["n01440764", *(f"n02{i:06d}" for i in range(998)), "n15075141"]
    manifest = dataclasses.replace(
        read_manifest(data_set),
        classes=tuple(ClassRecord(wnid=wnid, words="") for wnid in wnids),
        counts={"val": SplitCounts(input=50_000, written=50_000, rejected=0)},
    )
    rows = np.zeros(50_000, INDEX_DTYPE)
    rows["place"] = np.arange(50_000)
    rows["label"] = np.arange(50_000) % 1000

    def found() -> list[str]:
        findings = FindingList()
        counts = np.bincount(rows["label"], minlength=1000)
        check_class_counts(manifest, {"val": rows}, {"val": counts}, findings)
        return [finding.problem for finding in findings.all()]

    rows["label"][[0, 1, 2, 3]] = (490 - 1, 361 - 1, 171 - 1, 822 - 1)
    assert "labels ILSVRC2012_val_00000001 489, which is 65 everywhere else" in found()
    for place, label in enumerate((65, 970, 230, 809)):  # exchange, so that each class keeps its 50
        rows["label"][place], rows["label"][label] = label, place
    rows["label"][[489, 360, 170, 821]] = (489, 360, 170, 821)
    assert found() == []
    rows["label"][-1] = 0
    assert found() == ["has 51 validation images of class 0: ILSVRC-2012 has 50"]
