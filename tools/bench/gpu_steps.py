"""The ways to take a training step on a GPU, each a row, so that one run decides what stays."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from alexnet.model.gpu.step import FusedStep
from alexnet.model.trainer import Trainer

WAYS = {
    "layers": "layer by layer",
    "layers-untried": "layer by layer, as cuDNN guesses its kernels",
    "layers-graph": "layer by layer, one CUDA graph",
    "launches": "fused kernels, launched one by one",
    "pixels": "fused kernels, one CUDA graph, conv1 on pixels",
}
"""Beside what `alexnet-train` does: fused kernels as one CUDA graph, conv1 on blocks of pixels, kernels by trial."""
LAYERS = ("layers", "layers-untried")
"""Those that the trainer itself takes when it is told to, and whose parts are seen from outside."""

Step = Callable[[Tensor, Tensor], object]


def step_of(trainer: Trainer, way: str, batch: tuple[Tensor, Tensor], rate: float) -> Step:
    """Return what takes a step in one of the ways, with batches as large as the given one, at a rate."""
    images, labels = batch
    if way in LAYERS:
        torch.backends.cudnn.benchmark = way != "layers-untried"
        return trainer.train_step
    dtype = torch.bfloat16 if trainer.placement.bf16 else torch.float32
    fused, blocks = way != "layers-graph", way != "pixels"
    step = FusedStep(trainer.net, trainer.optim, trainer.ranks, dtype, images.shape[-1], fused=fused, blocks=blocks)
    if way != "launches":
        step.capture(images, labels)
    numbers = itertools.count()

    def take(images: Tensor, labels: Tensor) -> Tensor:
        trainer.net.clock.set(0, next(numbers), 0)
        return step(images, labels, rate)

    return take
