"""Update rule, schedule, evaluation and placement, each against its definition."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alexnet.model.evaluate import evaluate
from alexnet.model.optim import MomentumSGD, OptimSettings
from alexnet.model.placement import Placement, choose_placement, cpu_has_bf16
from alexnet.model.schedule import Schedule, ScheduleSettings
from alexnet.shards.errors import InputError


def test_update_is_the_papers_rule_also_when_the_rate_changes() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 3).double()
    weights = {name: p.detach().numpy().copy() for name, p in layer.named_parameters()}
    velocity = {name: np.zeros_like(w) for name, w in weights.items()}
    optim = MomentumSGD(layer, OptimSettings(lr=0.01, momentum=0.9, weight_decay=0.0005))
    for rate in (0.01, 0.01, 0.001, 0.001, 0.02, 1e-6, 0.01):
        x = torch.randn(7, 5).double()
        layer(x).square().sum().backward()
        gradients = {name: p.grad.numpy().copy() for name, p in layer.named_parameters() if p.grad is not None}
        optim.step(rate)
        for name, w in weights.items():
            velocity[name] = 0.9 * velocity[name] - rate * (0.0005 * w + gradients[name])
            weights[name] = w + velocity[name]
        for name, p in layer.named_parameters():
            np.testing.assert_allclose(p.detach().numpy(), weights[name], rtol=1e-12, atol=1e-14)


class OneOfEach(nn.Module):
    """A first convolution, another, and a fully connected layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.full = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.full(torch.tanh(self.conv2(torch.tanh(self.conv1(x)))).flatten(1))
        return scores


# What each group's rate and weight decay must be, when the schedule says a rate and a factor for the first layer.
_SOURCE = OptimSettings(
    lr=0.01, weight_decay=0.004, bias_lr_scale=2.0, bias_lr="constant", bias_decay=False, full_decay_scale=250.0
)


def rate_and_decay(name: str, rate: float, first_layer: float) -> tuple[float, float]:
    mine = rate * first_layer if name.startswith("conv1") else rate
    if name.endswith("bias"):
        return (0.02 if mine else 0.0), 0.0
    return mine, 1.0 if name.startswith("full") else 0.004


def test_biases_full_layers_and_the_first_layer_have_rules_of_their_own() -> None:
    """As in the authors' code: constant bias rates without decay, decay by layer, a first layer slowed and frozen."""
    torch.manual_seed(0)
    net = OneOfEach().double()
    weights = {name: p.detach().numpy().copy() for name, p in net.named_parameters()}
    velocity = {name: np.zeros_like(w) for name, w in weights.items()}
    optim = MomentumSGD(net, _SOURCE, [net.conv1])
    for rate, first_layer in ((0.01, 1.0), (0.01, 1.0), (0.001, 0.1), (0.001, 0.0), (0.001, 0.0), (0.0001, 0.5)):
        net(torch.randn(4, 1, 6, 6).double()).square().sum().backward()
        gradients = {name: p.grad.numpy().copy() for name, p in net.named_parameters() if p.grad is not None}
        optim.step(rate, first_layer)
        for name, w in weights.items():
            mine, decay = rate_and_decay(name, rate, first_layer)
            if mine:
                velocity[name] = 0.9 * velocity[name] - mine * (decay * w + gradients[name])
                weights[name] = w + velocity[name]
        for name, p in net.named_parameters():
            np.testing.assert_allclose(p.detach().numpy(), weights[name], rtol=1e-11, atol=1e-13, err_msg=name)


def test_a_restored_rule_goes_on_as_if_nothing_had_happened() -> None:
    def step(net: OneOfEach, optim: MomentumSGD, number: int, rate: float, first_layer: float) -> None:
        images = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(number))
        net(images).square().sum().backward()
        optim.step(rate, first_layer)

    torch.manual_seed(1)
    whole, parts = OneOfEach(), OneOfEach()
    parts.load_state_dict(whole.state_dict())
    one, two = MomentumSGD(whole, _SOURCE, [whole.conv1]), MomentumSGD(parts, _SOURCE, [parts.conv1])
    plan = [(0.01, 1.0), (0.001, 0.1), (0.001, 0.0), (0.0001, 0.1), (0.0001, 1.0)]
    for number, (rate, first_layer) in enumerate(plan):
        step(whole, one, number, rate, first_layer)
        if number == 3:
            buffers, rates = {n: b.clone() for n, b in two.momentum_buffers().items()}, two.rates()
            two = MomentumSGD(parts, _SOURCE, [parts.conv1])
            two.restore(buffers, rates)
        step(parts, two, number, rate, first_layer)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)


def rates_by_epoch(settings: ScheduleSettings, epochs: int) -> list[tuple[float, float]]:
    """Return (rate, factor of the first layer) in each epoch, from a schedule that is restored after every one."""
    schedule = Schedule(settings, 0.01, 10**6)
    seen = []
    for _ in range(epochs):
        seen.append((schedule.rate(0), schedule.first_layer()))
        schedule.after_epoch(0.5)
        state, schedule = schedule.state(), Schedule(settings, 0.01, 10**6)
        schedule.restore(state)
    return seen


def test_run_145_is_the_log_of_the_authors_run() -> None:
    """layer-params-145.cfg: .01; epoch 25: .001; 51: .0001; 67: conv1 .00001; 72: conv1 0; 79: .00001; 91: killed."""
    expected = [
        (0.01 if e < 25 else 0.001 if e < 51 else 0.0001 if e < 79 else 0.00001, 1 if e < 67 else 0.1 if e < 72 else 0)
        for e in range(1, 92)
    ]
    assert rates_by_epoch(ScheduleSettings(kind="run-145"), 91) == [pytest.approx(pair) for pair in expected]


def test_steps_divide_by_ten_after_the_epochs_they_name() -> None:
    rates = rates_by_epoch(ScheduleSettings(kind="steps", drop_epochs=(2, 5)), 7)
    assert rates == [pytest.approx((r, 1.0)) for r in (0.01, 0.01, 0.001, 0.001, 0.001, 0.0001, 0.0001)]
    assert rates_by_epoch(ScheduleSettings(kind="steps"), 3) == [(0.01, 1.0)] * 3


def test_linear_tail_falls_to_nearly_zero_over_the_last_third() -> None:
    schedule = Schedule(ScheduleSettings(kind="linear-tail"), base_rate=0.3, total_steps=30)
    rates = [schedule.rate(step) for step in range(30)]
    assert rates[:21] == [0.3] * 21
    assert all(a > b > 0 for a, b in itertools.pairwise(rates[20:]))
    assert rates[-1] == pytest.approx(0.03)


def test_plateau_divides_by_ten_three_times_when_the_error_stalls() -> None:
    schedule = Schedule(ScheduleSettings(kind="plateau", patience_epochs=2, drops=3), 0.01, 10**6)
    errors = [0.9, 0.8, 0.8, 0.85, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]
    rates = []
    for error in errors:
        schedule.after_epoch(error)
        rates.append(schedule.rate(0))
    expected = [0.01] * 3 + [0.001] * 3 + [0.0001] * 2 + [0.00001] * 4
    assert rates == pytest.approx(expected)
    other = Schedule(ScheduleSettings(kind="plateau", patience_epochs=2, drops=3), 0.01, 10**6)
    other.restore(schedule.state())
    assert other.rate(0) == schedule.rate(0)


class Fixed:
    """A source of two batches whose scores are known."""

    images = 5

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        scores = torch.eye(6)[torch.tensor([0, 1, 2, 3, 4])] * 5 + torch.arange(6.0) * 0.01
        yield scores[:3], torch.tensor([0, 1, 5])
        yield scores[3:], torch.tensor([3, 0])

    def seek(self, epoch: int, step: int) -> None: ...

    def state(self) -> dict[str, Any]:
        return {}

    def resume(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


def test_evaluation_counts_every_image_of_partial_batches() -> None:
    net = nn.Identity().train()
    result = evaluate(net, Fixed(), Placement(device=torch.device("cpu"), bf16=False, why=""))
    assert (result.images, result.of) == (5, 5)
    # image 4 has label 0, whose score is the lowest of six: wrong in the first place and in the first five
    assert [result.top1, result.top5] == pytest.approx([3 / 5, 4 / 5])
    assert str(result) == "top-1 60.0%, top-5 80.0% (5/5 images, each once)"
    assert net.training


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU is told")
def test_placement_says_what_works_on_a_machine_without_a_gpu() -> None:
    with pytest.raises(InputError, match=r"--gpus 2: this machine has 0 GPUs; --gpus 1 .*--gpus 2 --device cpu"):
        choose_placement(None, 2, "auto")
    with pytest.raises(InputError, match=r"--device cuda: this machine has no GPU .*--device cpu"):
        choose_placement("cuda", 1, "auto")
    placement = choose_placement(None, 1, "auto")
    assert (placement.device.type, placement.bf16) == ("cpu", cpu_has_bf16())
    assert "no GPU here" in placement.why
    assert choose_placement("cpu", 1, "fp32").bf16 is False
