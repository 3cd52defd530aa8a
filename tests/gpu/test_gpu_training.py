"""Training on a GPU: one fp32 step as on the CPU, the same units dropped, and bf16 steps that learn."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from alexnet.model.evaluate import evaluate
from alexnet.model.layers import HashDropout, StepClock
from alexnet.tools.run.assembly import Streams
from tests.gpu.trainers import FUSED, LAYERS, losses, one_batch, settings, tensors, trainer_on

RELATIVE_DIFFERENCE = 1e-4
"""Two CPU implementations of this step differ by 2e-6 in norm; TF32 alone rounds each factor by up to 5e-4."""


def after_one_step(device: str, *, capture: bool = False) -> tuple[float, dict[str, Tensor]]:
    """Train one step in fp32; return the loss and, by name, parameters and momentum (the gradient with decay)."""
    trainer = trainer_on(device, bf16=False, capture=capture)
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        (loss,) = losses(trainer, [one_batch(device)])
    assert trainer.steps_taken.startswith(FUSED if capture else LAYERS), trainer.steps_taken
    return loss, tensors(trainer)


@pytest.fixture(scope="module")
def on_the_cpu() -> tuple[float, dict[str, Tensor]]:
    return after_one_step("cpu")


@pytest.mark.parametrize("capture", [False, True])
def test_one_fp32_step_is_close_to_the_cpus(on_the_cpu: tuple[float, dict[str, Tensor]], capture: bool) -> None:
    cpu_loss, cpu = on_the_cpu
    gpu_loss, gpu = after_one_step("cuda", capture=capture)
    assert gpu_loss == pytest.approx(cpu_loss, rel=RELATIVE_DIFFERENCE)
    assert gpu.keys() == cpu.keys()
    differences = {name: ((gpu[name] - cpu[name]).norm() / cpu[name].norm()).item() for name in cpu}
    assert max(differences.values()) < RELATIVE_DIFFERENCE, differences


@pytest.mark.parametrize("capture", [False, True])
def test_nothing_between_logging_steps_waits_for_the_gpu(capture: bool) -> None:
    """PyTorch raises an error where Python waits for the GPU, in the steps from 21 to 39."""
    trainer, batch = trainer_on("cuda", bf16=True, capture=capture), one_batch("cuda")
    assert len(list(losses(trainer, [batch] * 20))) == 20
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert list(losses(trainer, [batch] * 19)) == []
    finally:
        torch.cuda.set_sync_debug_mode("default")


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
