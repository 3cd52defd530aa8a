"""The fused step on a GPU against the one layer by layer; the same bits each time, and after a resume."""

from collections.abc import Iterator

import pytest
import torch

from alexnet.model.networks.settings import architecture_named
from alexnet.model.trainer import Trainer
from tests.gpu.trainers import FUSED, losses, one_batch, tensors, trainer_on
from tests.unit.model.stand_ins import Batches

SIZES = (8, 8, 8, 5, 8, 8)  # the fourth as if damaged images had been left out
RATES = (0.01, 0.01, 0.003, 0.003, 0.003, 0.01)


@pytest.fixture(autouse=True)
def the_same_kernels_each_time() -> Iterator[None]:
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


def trained(
    trainer: Trainer, *, rates: tuple[float, ...] = RATES, first: int = 0, last: int = len(SIZES)
) -> list[float]:
    """Take steps at the given rates, on a batch each; return their losses."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trainer.schedule, "rate", lambda step: rates[step])
        batches = (one_batch("cuda", SIZES[step], seed=step) for step in range(first, last))
        return list(losses(trainer, batches))


@pytest.mark.parametrize(
    "arch",
    ["alexnet-2012", "alexnet-2012-source", "alexnet-owt", "cuda-convnet-cifar", "lenet-5"],
)
def test_every_kind_of_network_is_trained_by_it(arch: str) -> None:
    """Before its first step a trainer checks loss and gradients against the plain network's, in fp32 and in bf16."""
    trainer = trainer_on("cuda", bf16=True, capture=True, net__arch=arch)
    trainer.train_step(*one_batch("cuda", px=architecture_named(arch).input_px[0]))
    assert trainer.steps_taken.startswith(FUSED), trainer.steps_taken


@pytest.mark.parametrize(("bf16", "within"), [(False, 2e-4), (True, 2e-2)])
def test_it_trains_as_the_layers_do(bf16: bool, within: float) -> None:
    """Dropout is on: a graph that did not draw new masks would have other losses from the second step on."""
    fused, layers, unchanged = (trainer_on("cuda", bf16=bf16, capture=capture) for capture in (True, False, False))
    expected = trained(layers)
    assert trained(fused) == pytest.approx(expected, rel=within)
    assert fused.steps_taken.startswith(FUSED), fused.steps_taken
    assert trained(unchanged, rates=(0.01,) * 6) != pytest.approx(expected, rel=within), "it would hide another rate"


@pytest.mark.parametrize("capture", [False, True])
def test_two_runs_and_one_resumed_are_equal_to_the_bit(capture: bool) -> None:
    source = Batches(100, 8, lambda number: one_batch("cuda", seed=number))
    whole, again, resumed = (trainer_on("cuda", bf16=True, capture=capture) for _ in range(3))
    trained(whole)
    trained(again, last=3)
    resumed.restore(again.checkpoint(source), source)
    trained(resumed, first=3)
    trained(again, first=3)
    there = tensors(whole)
    for trainer in (again, resumed):
        assert trainer.steps_taken == whole.steps_taken
        assert all(torch.equal(tensor, there[name]) for name, tensor in tensors(trainer).items())
