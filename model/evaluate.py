"""Count how often the network is right."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.model.batches import BatchSource
from alexnet.model.placement import Placement
from alexnet.model.ranks import Ranks

Stop = Callable[[], bool]
"""Say whether to stop; asked often, so it must be cheap."""


class StopRequestedError(Exception):
    """Say that work was left because it was asked to be, at a point from which a checkpoint goes on."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Hold the outcome over a whole source: `images` seen, `of` there are; shares of 1; mean loss.

    `views`: of each image, whose probabilities were averaged.
    """

    images: int
    of: int
    top1: float
    top5: float
    loss: float = math.nan
    views: int = 1

    def __str__(self) -> str:
        if not self.images:
            return f"none of {self.of:,} images could be used"
        once = ", each once" if self.images == self.of else ""
        views = f", {self.views} views" if self.views > 1 else ""
        return f"top-1 {self.top1:.1%}, top-5 {self.top5:.1%} ({self.images:,}/{self.of:,} images{once}{views})"


@torch.no_grad()
def evaluate(
    net: nn.Module,
    source: BatchSource,
    placement: Placement,
    ranks: Ranks | None = None,
    stop: Stop = lambda: False,
    epoch: int = 0,
) -> Evaluation:
    """Run the source once through the network in evaluation mode and count, over all ranks.

    The source yields images, (n, 3, px, px), or views of them, (n, views, 3, px, px). `stop`: asked before each batch;
    once it says yes in one process, all raise StopRequestedError. `epoch`: which of the source's. Closing that is the
    caller's: left open, its threads go on into the next epoch, whose first batches are then ready.
    """
    ranks = ranks or Ranks()
    totals = torch.zeros(4, dtype=torch.float64, device=placement.device)
    views, was_training = 1, net.training
    net.eval()
    source.seek(epoch, 0)
    try:
        for images, labels in ranks.batches(source):
            if ranks.any(stop()):
                raise StopRequestedError
            views = images.shape[1] if images.dim() == _WITH_VIEWS else 1
            if len(labels):  # the last batch may be too small for every rank to have a part
                with placement.autocast():
                    totals += count_right(log_probabilities(net, images), labels)
    finally:
        net.train(was_training)
    return evaluation_of(ranks.total(totals), source.images, views)


def log_probabilities(net: nn.Module, images: Tensor) -> Tensor:
    """Return float32 (n, classes): logarithms of the softmax, or of its mean over the views (paper, section 4.1)."""
    views = images.shape[1] if images.dim() == _WITH_VIEWS else 1
    scores: Tensor = net(images.flatten(0, 1) if images.dim() == _WITH_VIEWS else images).float()
    each = F.log_softmax(scores, dim=1)
    return each if views == 1 else each.unflatten(0, (-1, views)).logsumexp(dim=1) - math.log(views)


_WITH_VIEWS = 5
"""Dimensions of a batch of views."""


def count_right(log_probability: Tensor, labels: Tensor) -> Tensor:
    """Return how many of a batch are right at the first guess and among five, the sum of losses, and the images."""
    guesses = log_probability.topk(min(5, log_probability.shape[1]), dim=1).indices == labels[:, None]
    loss = F.nll_loss(log_probability, labels, reduction="sum")
    return torch.stack([guesses[:, 0].sum(), guesses.sum(), loss, torch.full_like(loss, len(labels))])


def evaluation_of(totals: Tensor, of: int, views: int) -> Evaluation:
    """Return the shares that sums of `count_right` make, float64 (4,). `of`: images of the whole source."""
    *sums, seen = totals.tolist()
    top1, top5, loss = (value / max(seen, 1) for value in sums)
    return Evaluation(images=int(seen), of=of, top1=top1, top5=top5, loss=loss, views=views)
