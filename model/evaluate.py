"""Count how often the network is right."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from alexnet.model.batches import BatchSource
from alexnet.model.placement import Placement
from alexnet.model.ranks import OneProcess, Ranks


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Hold the outcome over a whole source: `images` seen, `of` there are; shares of 1; mean loss."""

    images: int
    of: int
    top1: float
    top5: float
    loss: float

    def __str__(self) -> str:
        if not self.of:
            return "no images"
        once = ", each once" if self.images == self.of else ""
        return f"top-1 {self.top1:.1%}, top-5 {self.top5:.1%} ({self.images:,}/{self.of:,} images{once})"


@torch.no_grad()
def evaluate(net: nn.Module, source: BatchSource, placement: Placement, ranks: Ranks | None = None) -> Evaluation:
    """Run the source once through the network in evaluation mode and count, over all ranks."""
    was_training = net.training
    net.eval()
    source.seek(0, 0)
    totals = torch.zeros(4, dtype=torch.float64, device=placement.device)
    for batch, labels in source:
        if not len(labels):  # the last batch may be too small for every rank to have a part
            continue
        with placement.autocast():
            scores = net(batch).float()
        best = scores.topk(min(5, scores.shape[1]), dim=1).indices == labels[:, None]
        loss = F.cross_entropy(scores, labels, reduction="sum")
        totals += torch.stack([best[:, 0].sum(), best.sum(), loss, torch.full_like(loss, len(labels))])
    source.close()
    net.train(was_training)
    *sums, images = (ranks or OneProcess()).total(totals).tolist()
    top1, top5, loss_mean = (value / max(images, 1) for value in sums)
    return Evaluation(images=int(images), of=source.images, top1=top1, top5=top5, loss=loss_mean)
