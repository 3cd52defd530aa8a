"""Batches that ranks gather: those of one stream that finishes its own."""

from pathlib import Path
from typing import Any

import pytest
import torch

from alexnet.model.batches import GatheredBatches
from alexnet.model.placement import Layout
from alexnet.pipeline import AugmentSettings, ImageStream

# Without the noise, and the division that makes up for it, from the second epoch on.
AUGMENTATION = AugmentSettings(crop_px=32, lighting_division=True, lighting_epochs=1)


@pytest.mark.parametrize("batch_images", [24, 8])
def test_each_batch_has_its_own_epochs_plan_and_finish(
    data_set: Path, monkeypatch: pytest.MonkeyPatch, batch_images: int
) -> None:
    """Also where an epoch has a single step, after which the stream stands in the next."""
    monkeypatch.setattr("alexnet.model.batches.of_all", lambda rows, sizes, group: [rows])  # one rank alone
    options: dict[str, Any] = {"rank": 0, "ranks": 1, "threads": 1, "augmentation": AUGMENTATION}
    whole = ImageStream(data_set / "train", batch_images=batch_images, **options)
    crops = ImageStream(data_set / "train", batch_images=batch_images, output="uint8", **options)
    group: Any = None
    gathered = GatheredBatches(crops, Layout(), group)
    with whole, crops:
        for source in (whole, gathered):
            source.seek(0, len(whole) - 1)
        for _ in range(3):
            pairs = list(zip(whole, gathered, strict=True))
            assert pairs
            for (expected, of), (images, labels) in pairs:
                assert torch.equal(images, expected)
                assert torch.equal(labels, of)
