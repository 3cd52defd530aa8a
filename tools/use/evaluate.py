"""Evaluate trained networks, each on its own and all of them together, over the validation images of a data set.

The paper's 15.3% is such an average: the softmax outputs of five networks and of two with a sixth convolution. Images
are decoded once for all networks that cut the same crop; each network then prepares them as its own run did.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import torch

from alexnet.model.evaluate import Evaluation, count_right, evaluation_of
from alexnet.model.placement import Placement
from alexnet.pipeline import AugmentSettings, ImageStream, StreamSettings
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import ClassRecord, Manifest, read_manifest
from alexnet.shards.url import place_of
from alexnet.tools.use.predict import Predictor
from alexnet.tools.use.trained import Trained

Views = Literal[1, 10]


def evaluate_together(
    networks: Sequence[Trained],
    data: Path,
    *,
    views: Views = 1,
    device: str | None = None,
    batch_images: int = 128,
    settings: StreamSettings | None = None,
    on_batch: Callable[[int], object] = lambda images: None,
) -> list[Evaluation]:
    """Evaluate over the validation images of `data`, each once: every network, in order, then their average.

    `views`: of each image; softmax outputs of all views and then of all networks are averaged. `batch_images`: crops
    that go through a network at a time, views counted. `settings`: of the stream, such as its cache. `on_batch`: told
    how many images each batch had. Raises InputError if networks and data do not go together.
    """
    _check_together(networks, read_manifest(data), data)
    members = [Predictor(network, device) for network in networks]
    totals = torch.zeros(len(members) + 1, 4, dtype=torch.float64)
    with ExitStack() as opened:
        streams = {
            px: opened.enter_context(_stream(data, px, members[0].placement, views, batch_images, settings))
            for px in sorted({network.augment.crop_px for network in networks})
        }
        of = next(iter(streams.values())).images
        for batches in zip(*streams.values(), strict=True):
            crops = {px: images for px, (images, _) in zip(streams, batches, strict=True)}
            labels = batches[0][1]
            outputs = [member.log_probabilities(crops[member.trained.augment.crop_px]) for member in members]
            mean = torch.stack(outputs).logsumexp(dim=0) - math.log(len(outputs))
            totals += torch.stack([count_right(output, labels) for output in (*outputs, mean)]).cpu()
            on_batch(len(labels))
    return [evaluation_of(each, of, views) for each in totals]


def _check_together(networks: Sequence[Trained], manifest: Manifest, data: Path) -> None:
    """Raise InputError unless all networks tell the classes of a data set apart, stored as theirs were."""
    if not manifest.counts["val"].written:
        raise InputError(f"{place_of(data)}: has no validation images")
    for network in networks:
        if different := _difference(network.data.classes, manifest.classes):
            raise InputError(
                f"{network.path}: was trained on other classes than {place_of(data)} has ({different}); evaluate it on "
                "data with its own classes"
            )
        if network.data.size_px != manifest.size_px:
            raise InputError(
                f"{network.path}: was trained on images stored at {network.data.size_px} px, {place_of(data)} holds "
                f"{manifest.size_px} px; `alexnet-prep shard SOURCE --size {network.data.size_px}` makes such data"
            )


def _difference(a: Sequence[ClassRecord], b: Sequence[ClassRecord]) -> str:
    """Say in words where two lists of classes differ, '' if they do not. Names for people do not count."""
    if len(a) != len(b):
        return f"{len(a):,} classes, not {len(b):,}"
    pairs = enumerate(zip(a, b, strict=True))
    return next((f"class {k} is {x.wnid}, not {y.wnid}" for k, (x, y) in pairs if x.wnid != y.wnid), "")


def _stream(
    data: Path, crop_px: int, placement: Placement, views: Views, batch_images: int, settings: StreamSettings | None
) -> ImageStream:
    """Open the validation images: uint8, and in the order of their ids, so that streams go side by side."""
    return ImageStream(
        data / "val",
        batch_images=-(-batch_images // views),
        rank=0,
        world_size=1,
        augment=False,
        augmentation=AugmentSettings(crop_px=crop_px),
        device=str(placement.device),
        output="uint8",
        channels_last=True,
        views=views,
        settings=settings,
    )
