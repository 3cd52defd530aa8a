"""Trainers and batches for tests of training on a GPU."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from alexnet.model.placement import Placement
from alexnet.model.trainer import Trainer
from alexnet.tools.run.assembly import build_trainer
from alexnet.tools.run.settings import RunSettings, load_recipe
from alexnet.tools.settings import with_settings

CLASSES, IMAGES = 10, 8
FUSED, LAYERS = "fused kernels, one CUDA graph a step; ", "layer by layer"


def settings(**changes: Any) -> RunSettings:
    """Return the settings of `small` with changes, whose names have two underscores for a dot."""
    named = {"train.batch_images": IMAGES} | {name.replace("__", "."): value for name, value in changes.items()}
    return with_settings(load_recipe("small"), named.items()).with_classes(CLASSES)


def trainer_on(device: str, *, bf16: bool, capture: bool = False, **changes: Any) -> Trainer:
    placement = Placement(device=torch.device(device), bf16=bf16, why="a test")
    return build_trainer(settings(train__capture=capture, **changes), placement, steps_per_epoch=1000)


def one_batch(device: str, images: int = IMAGES, px: int = 224, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A batch made up from a seed."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(images, 3, px, px, generator=generator)
    labels = torch.randint(CLASSES, (images,), generator=generator)
    return pixels.to(device, memory_format=torch.channels_last), labels.to(device)


def losses(trainer: Trainer, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[float]:
    """Take a step a batch; yield the losses of logging steps, of which the first twenty are."""
    for images, labels in batches:
        if measured := trainer.train_step(images, labels):
            yield measured[0].item()


def tensors(trainer: Trainer) -> dict[str, Tensor]:
    """Return parameters and momentum (after one step the gradient with decay) by name, on the CPU."""
    found: dict[str, Tensor] = dict(trainer.net.named_parameters())
    found |= {f"momentum.{name}": tensor for name, tensor in trainer.optim.momentum_buffers().items()}
    return {name: tensor.detach().cpu() for name, tensor in found.items()}
