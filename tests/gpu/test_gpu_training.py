"""Training on a GPU: one fp32 step as on the CPU, the same units dropped, and bf16 steps that learn."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alexnet.model.checkpoint import Checkpoint
from alexnet.model.evaluate import Evaluation
from alexnet.model.layers import HashDropout, StepClock
from alexnet.model.metrics import Metrics
from alexnet.model.placement import Placement
from alexnet.tools.run.assembly import Streams, build_trainer
from alexnet.tools.run.settings import RunSettings, load_recipe
from alexnet.tools.settings import with_settings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that PyTorch can use"),
]

CLASSES = 10
RELATIVE_DIFFERENCE = 1e-4
"""Two CPU implementations of this step differ by 2e-6 in norm; TF32 alone rounds each factor by up to 5e-4."""


class OneBatch:
    """A source of one batch, made up from a seed, once an epoch or more often."""

    images = 8
    batches = 1

    def __init__(self, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        pictures = torch.randn(self.images, 3, 224, 224, generator=generator)
        labels = torch.randint(CLASSES, (self.images,), generator=generator)
        self._batch = pictures.to(device, memory_format=torch.channels_last), labels.to(device)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.batches):
            yield self._batch

    def seek(self, epoch: int, step: int) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {}

    def resume(self, state: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


class Losses:
    """Keep the losses that a run reports."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def step(self, step: int) -> None:
        pass

    def record(self, record: dict[str, Any]) -> None:
        self.losses.append(record["loss"])

    def evaluation(self, step: int, epoch: int, evaluation: Evaluation) -> None:
        pass


def small_recipe(steps: int) -> RunSettings:
    return with_settings(load_recipe("small"), [("train.steps", steps)]).with_classes(CLASSES)


def placement_on(device: str, *, bf16: bool) -> Placement:
    return Placement(device=torch.device(device), bf16=bf16, why="a test")


def after_one_step(device: str) -> tuple[float, dict[str, Tensor]]:
    """Train one step in fp32; return the loss and, by name, parameters and momentum (the gradient with decay)."""
    placement = placement_on(device, bf16=False)
    losses, saved = Losses(), list[Checkpoint]()
    trainer = build_trainer(small_recipe(1), placement, steps_per_epoch=1)
    source = OneBatch(placement.device)
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        trainer.train(source, source, Metrics([losses]), saved.append)
    return losses.losses[0], {name: tensor.detach().cpu() for name, tensor in saved[-1].tensors.items()}


def test_one_fp32_step_is_close_to_the_cpus() -> None:
    cpu_loss, cpu = after_one_step("cpu")
    gpu_loss, gpu = after_one_step("cuda")
    assert gpu_loss == pytest.approx(cpu_loss, rel=RELATIVE_DIFFERENCE)
    assert gpu.keys() == cpu.keys()
    differences = {name: ((gpu[name] - cpu[name]).norm() / cpu[name].norm()).item() for name in cpu}
    assert max(differences.values()) < RELATIVE_DIFFERENCE, differences


class Watched(Losses):
    """Have PyTorch raise an error where Python waits for the GPU, after the steps from 21 to 38."""

    def step(self, step: int) -> None:
        torch.cuda.set_sync_debug_mode("error" if 20 < step < 39 else "default")


def test_nothing_between_logging_steps_waits_for_the_gpu() -> None:
    placement = placement_on("cuda", bf16=True)
    trainer = build_trainer(with_settings(small_recipe(40), [("train.checkpoint_every", 1000)]), placement, 1000)
    source, watched = OneBatch(placement.device), Watched()
    source.batches = 40
    try:
        trainer.train(source, OneBatch(placement.device), Metrics([watched]), lambda _: None)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(watched.losses) == 21


@pytest.mark.parametrize("bf16", [False, True])
def test_a_captured_graph_trains_as_the_steps_do(bf16: bool) -> None:
    """Dropout is on: a graph that did not draw new masks would have other losses from the second step on."""
    outcomes = []
    for capture in (False, True):
        settings = with_settings(small_recipe(8), [("train.capture", capture)])
        placement = placement_on("cuda", bf16=bf16)
        source, losses = OneBatch(placement.device), Losses()
        source.batches = 8
        trainer = build_trainer(settings, placement, steps_per_epoch=8)
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            trainer.train(source, OneBatch(placement.device), Metrics([losses]), lambda _: None)
        outcomes.append(losses.losses)
    assert outcomes[1] == pytest.approx(outcomes[0], rel=1e-2 if bf16 else 1e-4)
    assert len(set(outcomes[1])) == 8


def test_the_same_units_are_dropped_as_on_the_cpu() -> None:
    ones = torch.ones(64, 2048)
    outcomes = []
    for device in ("cpu", "cuda"):
        clock = StepClock().to(device)
        clock.set(seed=5, step=70_000, first_row=128)
        outcomes.append(HashDropout(clock, layer=6, first_unit=2048)(ones.to(device)).cpu())
    assert torch.equal(*outcomes)
    assert 0.4 < outcomes[0].mean().item() < 0.6


@pytest.mark.parametrize("capture", [False, True])
def test_bf16_steps_from_the_stream_learn(ci_100: Path, capture: bool) -> None:
    """Captured, too, while the stream's threads allocate memory for the batches to come."""
    pytest.importorskip("nvidia.dali")
    placement = placement_on("cuda", bf16=True)
    settings = with_settings(small_recipe(100), [("train.capture", capture)])
    streams = Streams(ci_100, settings, placement)
    losses = Losses()
    trainer = build_trainer(settings, placement, steps_per_epoch=len(streams.train))
    evaluation = trainer.train(streams.train, streams.validation, Metrics([losses]), lambda _: None)
    streams.train.close()
    assert all(parameter.is_cuda for parameter in trainer.net.parameters())
    assert losses.losses[-1] < 0.8 * losses.losses[0]
    assert evaluation.images == streams.validation.images
