"""Count how often the network is right."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from alexnet.model.batches import BatchSource
from alexnet.model.placement import Placement


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
def evaluate(net: nn.Module, source: BatchSource, placement: Placement) -> Evaluation:
    """Run the source once through the network in evaluation mode and count."""
    was_training = net.training
    net.eval()
    source.seek(0, 0)
    totals = torch.zeros(3, dtype=torch.float64, device=placement.device)
    images = 0
    for batch, labels in source:
        with placement.autocast():
            scores = net(batch).float()
        best = scores.topk(min(5, scores.shape[1]), dim=1).indices == labels[:, None]
        totals += torch.stack([best[:, 0].sum(), best.sum(), F.cross_entropy(scores, labels, reduction="sum")])
        images += len(labels)
    source.close()
    net.train(was_training)
    top1, top5, loss = (totals / max(images, 1)).tolist()
    return Evaluation(images=images, of=source.images, top1=top1, top5=top5, loss=loss)
