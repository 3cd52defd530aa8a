"""Update rule, schedule and placement, each against its definition."""

import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from alexnet.model.optim import MomentumSGD, OptimSettings
from alexnet.model.placement import Placement, choose_placement, cpu_has_bf16
from alexnet.model.schedule import Schedule, ScheduleSettings
from alexnet.shards.errors import InputError

BASE, TOTAL, WARMUP = 0.02, 1000, 40


class OneOfEach(nn.Module):
    """A first convolution, another, and a fully connected layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.full = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.full(torch.tanh(self.conv2(torch.tanh(self.conv1(x)))).flatten(1))
        return scores

    def leave_gradients(self, number: int) -> dict[str, npt.NDArray[np.floating]]:
        images = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(number))
        self(images.to(self.conv1.weight.dtype)).square().sum().backward()
        return {name: p.grad.numpy().copy() for name, p in self.named_parameters() if p.grad is not None}


PAPER = OptimSettings(lr=0.01, momentum=0.9, weight_decay=0.0005)
SOURCE = OptimSettings(
    lr=0.01, weight_decay=0.004, bias_lr_scale=2.0, bias_lr="constant", bias_decay=False, full_decay_scale=250.0
)
PLAN = [(0.01, 1.0), (0.01, 1.0), (0.001, 0.1), (0.001, 0.0), (0.001, 0.0), (0.0001, 0.1), (0.0001, 1.0)]
COSINE = Schedule(ScheduleSettings(kind="cosine", warmup_steps=5), BASE, 30)


def rate_and_decay(settings: OptimSettings, name: str, rate: float, first_layer: float) -> tuple[float, float]:
    """Return what a parameter's must be, when the schedule says a rate and a factor for the first layer."""
    mine = rate * first_layer if name.startswith("conv1") else rate
    if settings is PAPER:
        return mine, 0.0005
    if name.endswith("bias"):
        return (0.02 if mine else 0.0), 0.0
    return mine, 1.0 if name.startswith("full") else 0.004


@pytest.mark.parametrize(
    ("settings", "plan"),
    [
        (PAPER, [(rate, 1.0) for rate in (0.01, 0.01, 0.001, 0.001, 0.02, 1e-6, 0.01)]),
        (PAPER, [(COSINE.rate(step), 1.0) for step in range(30)]),
        (SOURCE, PLAN),
    ],
    ids=["paper", "through a warm-up and a cosine", "source"],
)
def test_update_is_the_papers_rule_also_when_the_rate_changes(
    settings: OptimSettings, plan: list[tuple[float, float]]
) -> None:
    """v <- 0.9 v - lr (wd w + g), while PyTorch's buffer is rescaled wherever the rate changes.

    And the authors' code: constant bias rates without decay, decay by layer, a first layer slowed and frozen.
    """
    torch.manual_seed(0)
    net = OneOfEach().double()
    weights = {name: p.detach().numpy().copy() for name, p in net.named_parameters()}
    velocity = {name: np.zeros_like(w) for name, w in weights.items()}
    optim = MomentumSGD(net, settings, [net.conv1])
    for step, (rate, first_layer) in enumerate(plan):
        gradients = net.leave_gradients(step)
        optim.step(rate, first_layer)
        for name, p in net.named_parameters():
            mine, decay = rate_and_decay(settings, name, rate, first_layer)
            if mine:
                velocity[name] = 0.9 * velocity[name] - mine * (decay * weights[name] + gradients[name])
                weights[name] = weights[name] + velocity[name]
            np.testing.assert_allclose(p.detach().numpy(), weights[name], rtol=1e-11, atol=1e-13, err_msg=name)


def test_a_restored_rule_goes_on_as_if_nothing_had_happened() -> None:
    torch.manual_seed(1)
    whole, parts = OneOfEach(), OneOfEach()
    parts.load_state_dict(whole.state_dict())
    one, two = MomentumSGD(whole, SOURCE, [whole.conv1]), MomentumSGD(parts, SOURCE, [parts.conv1])
    for step, (rate, first_layer) in enumerate(PLAN):
        whole.leave_gradients(step)
        one.step(rate, first_layer)
        buffers, rates = {n: b.clone() for n, b in two.momentum_buffers().items()}, two.rates()
        two = MomentumSGD(parts, SOURCE, [parts.conv1])
        two.restore(buffers, rates)
        parts.leave_gradients(step)
        two.step(rate, first_layer)
    assert all(map(torch.equal, whole.parameters(), parts.parameters()))


def schedule(kind: str, total: int = TOTAL, **settings: Any) -> Schedule:
    return Schedule(ScheduleSettings(kind=kind, **settings), BASE, total)  # type: ignore[arg-type]


def rates(kind: str, **settings: Any) -> list[float]:
    made = schedule(kind, **settings)
    return [made.rate(step) for step in range(TOTAL)]


def by_epoch(errors: list[float | None], kind: str, **settings: Any) -> list[tuple[float, float]]:
    """Return (rate, factor of the first layer) in each epoch, from a schedule that is restored after every one."""
    made, seen = schedule(kind, **settings), []
    for error in errors:
        seen.append((made.rate(TOTAL // 2) / BASE, made.first_layer()))
        made.after_epoch(error)
        state, made = made.state(), schedule(kind, **settings)
        made.restore(state)
    return seen


def test_cosine_is_half_a_cosine_over_the_steps_after_the_warm_up() -> None:
    plain = [BASE * (1 + math.cos(math.pi * step / TOTAL)) / 2 for step in range(TOTAL)]
    assert rates("cosine") == pytest.approx(plain, rel=1e-9)
    warm = [BASE * (step + 1) / WARMUP for step in range(WARMUP)]
    after = [BASE * (1 + math.cos(math.pi * step / (TOTAL - WARMUP))) / 2 for step in range(TOTAL - WARMUP)]
    assert rates("cosine", warmup_steps=WARMUP) == pytest.approx(warm + after, rel=1e-9)


def test_linear_tail_falls_to_nearly_zero_over_the_last_third() -> None:
    tail = rates("linear-tail", tail=0.3)
    assert tail[:701] == [BASE] * 701
    assert tail[700:] == pytest.approx([BASE * (TOTAL - step) / 300 for step in range(700, TOTAL)])


@pytest.mark.parametrize("kind", ["plateau", "linear-tail", "cosine", "constant", "steps", "run-145"])
def test_every_kind_warms_up_to_where_it_would_have_been(kind: str) -> None:
    cold, warm = (rates(kind, warmup_steps=steps) for steps in (0, WARMUP))
    assert kind != "constant" or cold == [BASE] * TOTAL
    if kind != "cosine":  # whose fall begins after the warm-up
        assert warm == pytest.approx([rate * min(1, (step + 1) / WARMUP) for step, rate in enumerate(cold)])
    assert warm[WARMUP - 1] == pytest.approx(BASE)
    assert all(a < b for a, b in itertools.pairwise(warm[:WARMUP]))


@pytest.mark.parametrize("kind", ["linear-tail", "cosine"])
def test_the_rate_stays_above_zero_to_the_end(kind: str) -> None:
    """It divides: the velocity holds it. Ninety epochs of ImageNet, the longest run there is a recipe for."""
    total = 900_000
    made = schedule(kind, total)
    ends = [made.rate(step) for step in (total - 2, total - 1, total, total + 5)]
    assert ends[0] > ends[1] > 0
    assert ends[2] == ends[3] == ends[1]


def test_run_145_is_the_log_of_the_authors_run() -> None:
    """layer-params-145.cfg: .01; epoch 25: .001; 51: .0001; 67: conv1 .00001; 72: conv1 0; 79: .00001; 91: killed."""
    expected = [
        (1 if e < 25 else 0.1 if e < 51 else 0.01 if e < 79 else 0.001, 1 if e < 67 else 0.1 if e < 72 else 0)
        for e in range(1, 92)
    ]
    assert by_epoch([0.5] * 91, "run-145") == [pytest.approx(pair) for pair in expected]


def test_steps_divide_by_ten_after_the_epochs_they_name() -> None:
    expected = [pytest.approx((rate, 1.0)) for rate in (1, 1, 0.1, 0.1, 0.1, 0.01, 0.01)]
    assert by_epoch([None] * 7, "steps", drop_epochs=(2, 5)) == expected
    assert by_epoch([0.5] * 3, "steps") == [(1.0, 1.0)] * 3


def test_plateau_divides_by_ten_three_times_when_the_error_stalls() -> None:
    """An epoch without a validation says nothing."""
    errors = [0.9, 0.8, None, 0.8, 0.85, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]
    expected = [1.0] * 5 + [0.1] * 3 + [0.01] * 2 + [0.001] * 3
    assert [rate for rate, _ in by_epoch(errors, "plateau", patience_epochs=2)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"warmup_steps": -1}, r"schedule\.warmup_steps=-1: must not be negative"),
        ({"tail": 0.0}, r"schedule\.tail=0\.0: must be above 0"),
        ({"patience_epochs": 0}, "patience must be at least 1"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ScheduleSettings(**settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU is told")
def test_placement_says_what_works_on_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(InputError, match=r"--gpus 2: this machine has 0 GPUs; --gpus 1 .*--gpus 2 --device cpu"):
        choose_placement(None, 2, "auto")
    with pytest.raises(InputError, match=r"--device cuda: this machine has no GPU .*--device cpu"):
        choose_placement("cuda", 1, "auto")
    placement = choose_placement(None, 1, "auto")
    assert (placement.device.type, placement.bf16) == ("cpu", cpu_has_bf16())
    assert "no GPU here" in placement.why
    assert choose_placement("cpu", 1, "fp32").bf16 is False


def test_batches_are_bf16_where_a_gpu_computes_in_it_and_float32_elsewhere() -> None:
    types = {
        (kind, bf16): Placement(device=torch.device(kind), bf16=bf16, why="").batch_type
        for kind in ("cpu", "cuda")
        for bf16 in (False, True)
    }
    assert types.pop(("cuda", True)) == "bfloat16"
    assert set(types.values()) == {"float32"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a usable GPU is told")
def test_placement_says_that_a_gpu_is_there_which_pytorch_cannot_use(
    driver: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a driver that is too old."""
    driver("550")
    monkeypatch.setattr("torch.version.cuda", "13.0")
    cannot = f"1 GPU here, driver 550, but PyTorch {torch.__version__} for CUDA 13.0 needs driver 580 or newer; "
    assert choose_placement(None, 1, "fp32").why.startswith(f"cpu ({cannot}")
    with pytest.raises(InputError, match=f"can use \\({re.escape(cannot)}.*; --device cpu works here"):
        choose_placement("cuda", 1, "auto")
