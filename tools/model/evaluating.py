"""Evaluate trained networks, each on its own and all of them together, over the validation images of a data set.

The paper's 15.3% is such an average: the softmax outputs of five networks and of two with a sixth convolution. Images
are decoded once for all networks that cut the same window; each network then prepares them as its own run did.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alexnet.model.evaluate import Evaluation, log_probabilities
from alexnet.model.networks.network import Network
from alexnet.model.placement import Placement, choose_placement
from alexnet.pipeline import AugmentSettings, ImageStream
from alexnet.pipeline.decoders.finish_pass import FinishPass
from alexnet.pipeline.encoded import image_means
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Manifest, read_manifest
from alexnet.tools.run.data_record import same_classes
from alexnet.tools.run.trained import Trained

Views = Literal[1, 10]


@dataclass(frozen=True, kw_only=True)
class Evaluations:
    """Hold the outcome for each network, in order, and for the mean of their outputs."""

    each: tuple[Evaluation, ...]
    together: Evaluation


def check_together(networks: Sequence[Trained], manifest: Manifest, data: Path) -> None:
    """Raise InputError unless all networks tell the classes of a data set apart, stored as theirs were."""
    if not manifest.counts["val"].written:
        raise InputError(f"{data}: has no validation images")
    for network in networks:
        if different := same_classes(network.data.classes, manifest.classes):
            raise InputError(
                f"{network.path}: was trained on other classes than {data} has ({different}); evaluate it on data with "
                "its own classes"
            )
        if network.data.size_px != manifest.size_px:
            raise InputError(
                f"{network.path}: was trained on images stored at {network.data.size_px} px, {data} holds "
                f"{manifest.size_px} px; `alexnet-prep shard SOURCE --size {network.data.size_px}` makes such data"
            )


def evaluate_together(
    networks: Sequence[Trained],
    data: Path,
    *,
    views: Views = 1,
    device: str | None = None,
    batch_images: int = 128,
    on_batch: Callable[[int], object] = lambda images: None,
) -> Evaluations:
    """Evaluate over exactly the validation images of `data`, each once.

    `views`: of each image; softmax outputs of all views and then of all networks are averaged. `batch_images`: windows
    that go through a network at a time, views counted. `on_batch`: told how many images each batch had. Raises
    InputError if networks and data do not go together.
    """
    check_together(networks, read_manifest(data), data)
    members = [_Member(network, device) for network in networks]
    tallies = [_Tally() for _ in range(len(members) + 1)]
    with ExitStack() as opened:
        streams = {
            px: opened.enter_context(_stream(data, px, members[0].placement, views, batch_images))
            for px in sorted({network.augment.crop_px for network in networks})
        }
        of = next(iter(streams.values())).images
        for batches in zip(*streams.values(), strict=True):
            windows = {px: images for px, (images, _) in zip(streams, batches, strict=True)}
            labels = batches[0][1]
            outputs = [member.log_probabilities(windows[member.crop_px]) for member in members]
            mean = torch.stack(outputs).logsumexp(dim=0) - math.log(len(outputs))
            for tally, output in zip(tallies, [*outputs, mean], strict=True):
                tally.add(output, labels)
            on_batch(len(labels))
    *each, together = (tally.evaluation(of, views) for tally in tallies)
    return Evaluations(each=tuple(each), together=together)


def _stream(data: Path, crop_px: int, placement: Placement, views: Views, batch_images: int) -> ImageStream:
    """Open the validation images: uint8, and in the order of their ids, so that streams go side by side."""
    return ImageStream(
        data / "val",
        batch_images=-(-batch_images // views),
        rank=0,
        ranks=1,
        augment=False,
        augmentation=AugmentSettings(crop_px=crop_px),
        device=str(placement.device),
        output="uint8",
        channels_last=True,
        views=views,
    )


class _Member:
    """One network, ready to run, with what prepares its images."""

    def __init__(self, trained: Trained, device: str | None) -> None:
        self.placement = choose_placement(device, 1, trained.precision)
        self.crop_px = trained.augment.crop_px
        self._net: Network = trained.network(self.placement.device)
        finish = trained.finish()
        self._means = torch.from_numpy(image_means(finish, np.zeros((1, 3), np.float32))).to(self.placement.device)
        self._finish = FinishPass(finish, "float32", channels_last=True, device=self.placement.device)

    @torch.no_grad()
    def log_probabilities(self, windows: Tensor) -> Tensor:
        """Return float32 (n, classes) of uint8 windows, (n, 3, H, W), or of views of each image, (n, v, 3, H, W)."""
        flat = windows.flatten(0, -4)
        images = self._finish(flat.movedim(1, -1), self._means.expand(len(flat), 3))
        with self.placement.autocast():
            return log_probabilities(self._net, images.unflatten(0, windows.shape[:-3]))


class _Tally:
    """Count over batches how often the right class was among the most probable."""

    def __init__(self) -> None:
        self._sums = torch.zeros(4, dtype=torch.float64)

    def add(self, log_probabilities: Tensor, labels: Tensor) -> None:
        """Count one batch."""
        best = log_probabilities.topk(min(5, log_probabilities.shape[1]), dim=1).indices == labels[:, None]
        loss = F.nll_loss(log_probabilities, labels, reduction="sum")
        self._sums[:3] += torch.stack([best[:, 0].sum(), best.sum(), loss]).cpu()
        self._sums[3] += len(labels)

    def evaluation(self, of: int, views: int) -> Evaluation:
        """Return the shares."""
        top1, top5, loss, images = self._sums.tolist()
        n = max(images, 1)
        return Evaluation(images=int(images), of=of, top1=top1 / n, top5=top5 / n, loss=loss / n, views=views)
