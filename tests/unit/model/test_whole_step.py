"""A whole training step of the 2012 network, forwards, backwards and update, against NumPy in float64."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alexnet.model.layers import HashDropout
from alexnet.model.metrics import Metrics
from alexnet.model.networks.build import Network
from alexnet.model.trainer import Trainer
from alexnet.tools.run.assembly import build_trainer
from alexnet.tools.run.settings import load_recipe, with_overrides
from tests.unit.model.numpy_2012 import Key, Parameters, Step, updated
from tests.unit.model.stand_ins import CPU, Batch, Batches, Kept

BATCH, SEED, RATE = 2, 5, 0.01
EVERY = 7  # rows of the 56 million weights of fully connected layers, one of which is compared


def batch(number: int = 0) -> Batch:
    """Return the same two images and labels, on the paper's scale, time and again."""
    generator = torch.Generator().manual_seed(3)
    return 60 * torch.randn(BATCH, 3, 224, 224, generator=generator), torch.tensor([7, 2])


def paper_trainer() -> Trainer:
    """Return a trainer for one step, at the values that it starts from."""
    assignments = (f"train.batch_images={BATCH}", f"train.seed={SEED}", "train.steps=1")
    settings = with_overrides(load_recipe("paper"), assignments)
    settings = dataclasses.replace(settings, net=dataclasses.replace(settings.net, classes=10))
    return build_trainer(settings, CPU, 1)


def key_of(name: str) -> Key:
    """Take `towers.0.conv1.weight` apart."""
    _, tower, layer, kind = name.split(".")
    return int(tower), layer, kind


def arrays(net: Network, every: int = 1) -> Parameters:
    """Return copies of the parameters; of matrices one row of so many."""
    parts = {name: p.detach()[:: every if p.dim() == 2 else 1] for name, p in net.named_parameters()}
    return {key_of(name): part.double().numpy().copy() for name, part in parts.items()}


def masks_of(net: Network) -> dict[tuple[int, str], np.ndarray[Any, np.dtype[np.float64]]]:
    """Return what dropout leaves of ones in the first step."""
    net.clock.set(SEED, 0, 0)
    ones = torch.ones(BATCH, 2048, dtype=torch.float64)
    drops = {tuple(name.split(".")): module for name, module in net.named_modules() if isinstance(module, HashDropout)}
    return {(int(tower), f"fc{module.layer}"): module.train()(ones).numpy() for (_, tower, _), module in drops.items()}


@pytest.fixture(scope="module")
def by_hand() -> tuple[float, Parameters]:
    """Return loss and gradients of the first step, as the reference has them."""
    net = paper_trainer().net
    images, labels = batch()
    step = Step(arrays(net), masks_of(net))
    loss = step.run(images.double().numpy(), labels.numpy())
    return loss, {key: values[::EVERY] if values.ndim == 2 else values for key, values in step.gradients.items()}


def test_a_step_in_float64_is_that_of_the_reference(by_hand: tuple[float, Parameters]) -> None:
    """From a velocity that is not zero. 1e-10: sums of 9,216 products of relative error 1e-16, eight layers deep."""
    trainer = paper_trainer()
    net, optim, generator = trainer.net.double().train(), trainer.optim, torch.Generator().manual_seed(1)
    buffers = {name: torch.randn(p.shape, generator=generator).double() for name, p in net.named_parameters()}
    optim.restore(buffers, optim.rates())
    start, velocity = arrays(net, EVERY), {key_of(name): -RATE * buffer.numpy() for name, buffer in buffers.items()}
    net.clock.set(SEED, 0, 0)
    images, labels = batch()
    loss = F.cross_entropy(net(images.double()), labels)
    loss.backward()
    optim.step(RATE)
    assert loss.item() == pytest.approx(by_hand[0], rel=1e-12)
    for key, weights in arrays(net, EVERY).items():
        # PyTorch's buffer is the velocity over the rate, with the other sign.
        before = velocity[key][::EVERY] if weights.ndim == 2 else velocity[key]
        expected, _ = updated(start[key], before, by_hand[1][key], rate=RATE)
        assert np.linalg.norm(weights - expected) < 1e-10 * np.linalg.norm(RATE * by_hand[1][key]), key


def test_the_trainers_own_step_is_that_of_the_reference_in_fp32(by_hand: tuple[float, Parameters]) -> None:
    """The step to 1e-4, a thousand roundings, and half an fp32 digit of the weight that it is added to."""
    trainer, kept = paper_trainer(), Kept()
    start = arrays(trainer.net, EVERY)
    trainer.train(Batches(1, BATCH, batch), Batches(1, BATCH, batch), Metrics([kept]), lambda _: None)
    assert [loss for _, loss in kept.losses] == pytest.approx([by_hand[0]], rel=1e-5)
    for key, weights in arrays(trainer.net, EVERY).items():
        expected, velocity = updated(start[key], np.zeros_like(weights), by_hand[1][key], rate=RATE)
        allowed = 1e-4 * np.linalg.norm(velocity) + 2**-24 * np.linalg.norm(expected)
        assert np.linalg.norm(weights - expected) < allowed, key
