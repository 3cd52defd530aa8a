"""Small networks of each kind, trained by the plain step and by the fused one."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from alexnet.model.gpu.step import FusedStep, _distance
from alexnet.model.initialise import InitSettings, initialise
from alexnet.model.networks.architecture import (
    ALL_GATHER,
    DROP,
    FLATTEN,
    RELU,
    TANH,
    Architecture,
    Conv,
    Drop,
    Full,
    Layer,
    NormAcrossMaps,
    NormInMap,
    PadEnd,
    Pool,
    PoolTo,
)
from alexnet.model.networks.build import Network
from alexnet.model.networks.others import ARCHITECTURES
from alexnet.model.networks.settings import NetSettings
from alexnet.model.optim import MomentumSGD, OptimSettings
from alexnet.model.ranks import Ranks
from alexnet.model.schedule import Schedule, ScheduleSettings
from alexnet.model.trainer import Trainer, TrainSettings
from tests.unit.model.stand_ins import CPU

PX, CLASSES, IMAGES = 51, 7, 3
POOL, NORM = Pool(3, 2), NormAcrossMaps(size=5, alpha=1e-2, k=1.5)


def fully_connected(*between: Layer) -> tuple[Layer, ...]:
    return (
        *between,
        FLATTEN,
        Full("fc6", 12),
        RELU,
        DROP,
        *between,
        Full("fc7", 10),
        RELU,
        DROP,
        *between,
        Full("fc8"),
    )


def convolutions(first: tuple[Layer, ...], second: tuple[Layer, ...], *between: Layer) -> tuple[Layer, ...]:
    return (
        PadEnd(3), Conv("conv1", 8, window=11, stride=4), *first,
        Conv("conv2", 6, window=5, padding=2, first_bias=1), *second,
        *between,
        Conv("conv3", 8, window=3, padding=1), RELU,
        Conv("conv4", 6, window=3, padding=1), RELU,
        Conv("conv5", 8, window=3, padding=1), RELU, Pool(2, 2),
    )  # fmt: skip


PAPER = (RELU, NORM, POOL)
NETWORKS: dict[str, tuple[int, tuple[Layer, ...]]] = {
    "two towers": (2, (*convolutions(PAPER, PAPER, ALL_GATHER), *fully_connected(ALL_GATHER))),
    "as its source": (
        2,
        (
            *convolutions((NORM, POOL, RELU), (RELU, NORM, NormInMap(5, 1e-2), POOL), ALL_GATHER),
            *fully_connected(ALL_GATHER),
        ),
    ),
    "towers that never meet": (2, (*convolutions(PAPER, PAPER), *fully_connected())),
    "disjoint windows, no norm": (1, (*convolutions((RELU, Pool(2, 2)), (RELU, Pool(2, 2))), *fully_connected())),
    "tanh, ragged and mean windows": (
        2,
        (*convolutions((TANH, NORM, Pool(3, 2, ceil=True)), (Pool(3, 2, "average"), TANH)), *fully_connected()),
    ),
    "2014": (
        1,
        (
            Conv("conv1", 8, window=11, stride=4, padding=2), RELU, POOL,
            Conv("conv2", 6, window=3, padding=1), RELU, PoolTo(3), FLATTEN, Drop(scaled=True),
            Full("fc6", 12), RELU, Drop(scaled=True), Full("fc8"),
        ),
    ),
}  # fmt: skip


def named(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    towers, layers = NETWORKS[name]
    made = Architecture(name=name, about="a test", input_px=(PX,), layers=layers, towers=towers)
    monkeypatch.setitem(ARCHITECTURES, name, made)
    return name


def trainer(arch: str, channels: int = 0, **optim: Any) -> Trainer:
    net = Network(NetSettings(arch=arch, classes=CLASSES, channels=channels))
    initialise(net, InitSettings(kind="he"), seed=1)
    net = net.to(CPU.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    first = [module for module in next(iter(net.weighted().values())) if module is not None]
    rule = MomentumSGD(net, OptimSettings(lr=0.02, **optim), first)
    schedule = Schedule(ScheduleSettings(kind="constant"), 0.02, 100)
    made = Trainer(net, rule, schedule, CPU, TrainSettings(batch_images=IMAGES), 100)
    made.net.train()
    return made


def fused(made: Trainer, **options: bool) -> Trainer:
    """Let a trainer on a CPU take its steps as one on a GPU would, but for the graph."""
    made.fused, made.steps_taken = FusedStep(made.net, made.optim, Ranks(), torch.float32, PX, **options), "fused"
    return made


def batches(*sizes: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    for size in sizes:
        yield torch.randn(size, 3, PX, PX, generator=generator), torch.randint(CLASSES, (size,), generator=generator)


def trained(made: Trainer, *sizes: int, rates: tuple[float, ...] = (), first_layer: tuple[float, ...] = ()) -> Trainer:
    """Take a step for each batch, at the given rates."""
    for number, (images, labels) in enumerate(batches(*sizes)):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(made.schedule, "rate", functools.partial(_nth, rates or [0.02] * 9, number))
            patched.setattr(made.schedule, "first_layer", functools.partial(_nth, first_layer or [1.0] * 9, number))
            made.train_step(images, labels)
    return made


def _nth(values: Sequence[float], number: int, *_: object) -> float:
    return values[number]


def tensors(made: Trainer) -> dict[str, Tensor]:
    velocity = {f"velocity of {name}": buffer for name, buffer in made.optim.momentum_buffers().items()}
    return {**dict(made.net.named_parameters()), **velocity}


def assert_near(one: Trainer, other: Trainer, within: float) -> None:
    there = tensors(other)
    for name, tensor in tensors(one).items():
        assert _distance(tensor.detach(), there[name].detach()) < within, name
