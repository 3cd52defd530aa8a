"""Training on a GPU: one fp32 step as on the CPU, the same units dropped, and bf16 steps that learn."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alexnet.model.evaluate import evaluate
from alexnet.model.layers import HashDropout, StepClock
from alexnet.model.placement import Placement
from alexnet.model.trainer import Trainer
from alexnet.tools.run.assembly import Streams, build_trainer
from alexnet.tools.run.settings import RunSettings, load_recipe
from alexnet.tools.settings import with_settings

CLASSES, IMAGES = 10, 8
RELATIVE_DIFFERENCE = 1e-4
"""Two CPU implementations of this step differ by 2e-6 in norm; TF32 alone rounds each factor by up to 5e-4."""


def settings(**changes: Any) -> RunSettings:
    return with_settings(load_recipe("small"), changes.items()).with_classes(CLASSES)


def trainer_on(device: str, *, bf16: bool, capture: bool = False) -> Trainer:
    placement = Placement(device=torch.device(device), bf16=bf16, why="a test")
    return build_trainer(settings(**{"train.capture": capture}), placement, steps_per_epoch=1000)


def one_batch(device: str) -> tuple[Tensor, Tensor]:
    """A batch made up from a seed."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, 3, 224, 224, generator=generator)
    labels = torch.randint(CLASSES, (IMAGES,), generator=generator)
    return images.to(device, memory_format=torch.channels_last), labels.to(device)


def losses(trainer: Trainer, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[float]:
    """Take a step a batch; yield the losses of logging steps, of which the first twenty are."""
    for images, labels in batches:
        if measured := trainer.train_step(images, labels):
            yield measured[0].item()


def after_one_step(device: str) -> tuple[float, dict[str, Tensor]]:
    """Train one step in fp32; return the loss and, by name, parameters and momentum (the gradient with decay)."""
    trainer = trainer_on(device, bf16=False)
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        (loss,) = losses(trainer, [one_batch(device)])
    tensors: dict[str, Tensor] = dict(trainer.net.named_parameters())
    tensors |= {f"momentum.{name}": tensor for name, tensor in trainer.optim.momentum_buffers().items()}
    return loss, {name: tensor.detach().cpu() for name, tensor in tensors.items()}


def test_one_fp32_step_is_close_to_the_cpus() -> None:
    cpu_loss, cpu = after_one_step("cpu")
    gpu_loss, gpu = after_one_step("cuda")
    assert gpu_loss == pytest.approx(cpu_loss, rel=RELATIVE_DIFFERENCE)
    assert gpu.keys() == cpu.keys()
    differences = {name: ((gpu[name] - cpu[name]).norm() / cpu[name].norm()).item() for name in cpu}
    assert max(differences.values()) < RELATIVE_DIFFERENCE, differences


def test_nothing_between_logging_steps_waits_for_the_gpu() -> None:
    """PyTorch raises an error where Python waits for the GPU, in the steps from 21 to 39."""
    trainer, batch = trainer_on("cuda", bf16=True), one_batch("cuda")
    assert len(list(losses(trainer, [batch] * 20))) == 20
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert list(losses(trainer, [batch] * 19)) == []
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("bf16", [False, True])
def test_a_captured_graph_trains_as_the_steps_do(bf16: bool) -> None:
    """Dropout is on: a graph that did not draw new masks would have other losses from the second step on."""
    batches = [one_batch("cuda")] * 8
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        plain, captured = (
            list(losses(trainer_on("cuda", bf16=bf16, capture=capture), batches)) for capture in (False, True)
        )
    assert captured == pytest.approx(plain, rel=1e-2 if bf16 else 1e-4)
    assert len(set(captured)) == 8


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
    trainer = trainer_on("cuda", bf16=True, capture=capture)
    streams = Streams(ci_100, settings(), trainer.placement)
    batches = itertools.islice(itertools.chain.from_iterable(itertools.repeat(streams.train)), 100)
    first, *_, last = losses(trainer, batches)
    evaluation = evaluate(trainer.net, streams.validation, trainer.placement)
    streams.close()
    assert all(parameter.is_cuda for parameter in trainer.net.parameters())
    assert last < 0.8 * first
    assert evaluation.images == streams.validation.images
