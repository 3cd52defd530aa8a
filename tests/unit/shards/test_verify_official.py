"""On the official classes everybody knows some labels: a set that has others took IDs for labels."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

from alexnet.shards import index
from alexnet.shards.index import INDEX_DTYPE, official_label_problems
from alexnet.shards.manifest import ClassRecord, SplitCounts, read_manifest


def test_ids_taken_for_labels_are_recognised_on_the_official_classes(
    data_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wnids = ["n01440764", *(f"n02{i:06d}" for i in range(998)), "n15075141"]
    text = "".join(f"{wnid}\n" for wnid in wnids)
    monkeypatch.setattr(index, "OFFICIAL_CLASSES_SHA256", hashlib.sha256(text.encode()).hexdigest())
    manifest = dataclasses.replace(
        read_manifest(data_set),
        classes=tuple(ClassRecord(wnid=wnid, words="") for wnid in wnids),
        counts={"val": SplitCounts(input=50_000, written=50_000, rejected=0)},
    )
    rows = np.zeros(50_000, INDEX_DTYPE)
    rows["place"] = np.arange(50_000)
    rows["label"] = np.arange(50_000) % 1000

    def found() -> list[str]:
        return list(official_label_problems(manifest, rows))

    rows["label"][[0, 1, 2, 3]] = (490 - 1, 361 - 1, 171 - 1, 822 - 1)
    assert "labels ILSVRC2012_val_00000001 489, which is 65 everywhere else" in found()
    for place, label in enumerate((65, 970, 230, 809)):  # exchange, so that each class keeps its 50
        rows["label"][place], rows["label"][label] = label, place
    rows["label"][[489, 360, 170, 821]] = (489, 360, 170, 821)
    assert found() == []
    rows["label"][-1] = 0
    assert found() == ["has 51 validation images of class 0: ILSVRC-2012 has 50"]
