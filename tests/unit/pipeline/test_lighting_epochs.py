"""Colour noise that ends after some epochs, through the stream: what its batches are, wherever one comes in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet.pipeline import AugmentSettings, ImageStream
from alexnet.shards.manifest import read_manifest
from tests.unit.pipeline.streams import epochs_of, stream_of

LIT_EPOCHS, EPOCHS = 2, 4
STD = 0.1


def lit(root: Path, **options: Any) -> ImageStream:
    augmentation = AugmentSettings(crop_px=64, lighting_division=True, lighting_std=STD, lighting_epochs=LIT_EPOCHS)
    return stream_of(root, batch_images=50, augmentation=augmentation, **options)


def images_of(stream: ImageStream) -> list[torch.Tensor]:
    """Return each epoch's images."""
    batches, steps = epochs_of(stream, EPOCHS), len(stream)
    return [torch.cat([images for images, _ in batches[i : i + steps]]) for i in range(0, len(batches), steps)]


@pytest.mark.parametrize("decode", ["host", "dali"])
def test_batches_lose_noise_and_division_between_two_epochs(ci_100: Path, decode: str) -> None:
    """Against windows of the same plan, finished here in NumPy: also the first batch, which was wanted ahead."""
    if decode == "dali":
        pytest.importorskip("nvidia.dali")
    stream = lit(ci_100, decode=decode)
    windows = images_of(lit(ci_100, output="uint8", decode=decode))
    mean = np.array(read_manifest(ci_100).colour.mean, np.float32)
    for epoch, images in enumerate(images_of(stream)):
        offsets = np.concatenate([stream.plan(epoch, step).colour_offset for step in range(len(stream))])
        assert bool(offsets.any()) == (epoch < LIT_EPOCHS)
        divisor = 1 + STD if epoch < LIT_EPOCHS else 1.0
        expected = (windows[epoch].numpy() - (mean - offsets)[:, :, None, None]) / divisor
        np.testing.assert_allclose(images.numpy(), expected, rtol=0, atol=2.0**-14)  # a division, a product: 255 each


@pytest.mark.parametrize(("epoch", "step"), [(1, 1), (2, 0), (2, 1), (3, 0)])
def test_resuming_on_either_side_gives_the_same_batches(ci_100: Path, epoch: int, step: int) -> None:
    stream = lit(ci_100)
    stream.seek(epoch, step)
    state = stream.state()
    resumed = lit(ci_100)
    resumed.resume(state)
    batches = [images for images, _ in epochs_of(resumed, EPOCHS - epoch)]
    whole = torch.stack(images_of(lit(ci_100))).reshape(-1, 50, 3, 64, 64)
    assert torch.equal(torch.stack(batches), whole[epoch * len(stream) + step :])


def test_the_finishing_pass_is_that_of_the_epoch(ci_100: Path) -> None:
    """For ranks that gather their windows first."""
    crops, whole = lit(ci_100, output="uint8"), images_of(lit(ci_100))
    with crops:
        for epoch in range(EPOCHS):
            for step, (windows, _) in enumerate(crops):
                means = crops.means_of(crops.plan(epoch, step))
                images = crops.finish_pass()(windows.movedim(1, -1), means)
                assert torch.equal(images, whole[epoch][step * 50 : (step + 1) * 50])


def test_a_run_says_how_long_there_is_noise(ci_100: Path) -> None:
    assert any(line.endswith("then divided by 1.1; in the first 2 epochs") for line in lit(ci_100).describe())
