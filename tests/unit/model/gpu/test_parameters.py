"""What whole batches in fp32 do not show: the weights of 16 bits, and a batch that counts for less."""

import pytest
import torch

from alexnet.model.gpu.parameters import FlatParameters
from alexnet.model.gpu.step import FusedStep, _distance
from alexnet.model.ranks import Ranks
from tests.unit.model.gpu.small import PX, batches, named, trainer
from tests.unit.model.stand_ins import CPU


def test_a_share_of_a_batch_of_which_colours_are_averaged_counts_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, made = (trainer(named("2014", monkeypatch), channels=1) for _ in range(2))
    ((images, labels),) = batches(3)
    expected = {"loss": plain._loss_and_gradients(images, labels, CPU, 0.25), **plain._gradients()}
    step = FusedStep(made.net, made.optim, Ranks(), torch.float32, PX)
    found = {"loss": step(images, labels, 0.02, weight=0.25), **step.gradients}
    for name, value in expected.items():
        assert _distance(found[name], value) < 2e-5, name


def test_an_update_writes_the_weights_of_16_bits_that_are_computed_with(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(named("two towers", monkeypatch))
    parameters = FlatParameters(made.net, made.optim, torch.bfloat16)
    before = {name: computed.clone() for name, (computed, _) in parameters.named().items()}
    parameters.gradient.fill_(1.0)
    parameters.set_rates(made.optim.set_rates(0.5))
    parameters.update()
    for name, master in made.net.named_parameters():
        computed = parameters.named()[name][0]
        assert computed.dtype == torch.bfloat16
        assert not torch.equal(computed, before[name])
        assert ((computed.float() - master).abs() <= master.abs() * 2**-7).all(), name  # interpreted: cut off


def test_an_update_goes_by_the_gradients_of_all_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    class OfThree(Ranks):
        def add_up(self, values: torch.Tensor) -> None:
            values.mul_(3.0)

    alone, made = (trainer(named("2014", monkeypatch)) for _ in range(2))
    ((images, labels),) = batches(3)
    for one, ranks in ((alone, Ranks()), (made, OfThree())):
        FusedStep(one.net, one.optim, ranks, torch.float32, PX)(images, labels, 0.02)
    theirs = alone.optim.momentum_buffers()
    for name, momentum in made.optim.momentum_buffers().items():
        if name.endswith("bias"):  # which begin at 0, so that decay adds nothing
            assert _distance(momentum, 3 * theirs[name]) < 1e-5, name
