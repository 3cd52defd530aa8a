"""Update rule, schedule, evaluation, placement and checkpoints, each against its definition."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alexnet.model.checkpoint import Checkpoint, CheckpointError, checkpoints, load_checkpoint, save_checkpoint
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


def checkpoint(step: int) -> Checkpoint:
    tensors = {"net.w": torch.arange(6.0).reshape(2, 3).t(), "momentum.w": torch.full((2,), float(step))}
    return Checkpoint(step=step, tensors=tensors, progress={"epoch": step // 2, "lr": 0.01})


def test_a_checkpoint_comes_back_and_old_ones_go(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        save_checkpoint(tmp_path, checkpoint(step), keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000000004", "step-000000006"]
    loaded = load_checkpoint(checkpoints(tmp_path)[-1])
    assert loaded.step == 6
    assert loaded.progress == {"epoch": 3, "lr": 0.01}
    for name, tensor in checkpoint(6).tensors.items():
        assert torch.equal(loaded.tensors[name], tensor)


def test_a_half_written_checkpoint_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, checkpoint(2), keep=2)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alexnet.model.checkpoint.json.dump", full)
    with pytest.raises(CheckpointError, match=r"No space .* before it are kept"):
        save_checkpoint(tmp_path, checkpoint(4), keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000002"], "what was half written is gone"


@pytest.mark.parametrize("name", ["tensors.safetensors", "progress.json"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    path = save_checkpoint(tmp_path, checkpoint(2), keep=1)
    (path / name).write_bytes((path / name).read_bytes()[:20])
    with pytest.raises(InputError, match="step-000000002: not a whole checkpoint"):
        load_checkpoint(path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU is told")
def test_placement_says_what_works_on_a_machine_without_a_gpu() -> None:
    with pytest.raises(InputError, match=r"--gpus 2: this machine has 0 GPUs; --gpus 1 --device cpu trains"):
        choose_placement(None, 2, "auto")
    with pytest.raises(InputError, match=r"--device cuda: this machine has no GPU .*--device cpu"):
        choose_placement("cuda", 1, "auto")
    placement = choose_placement(None, 1, "auto")
    assert (placement.device.type, placement.bf16) == ("cpu", cpu_has_bf16())
    assert "no GPU here" in placement.why
    assert choose_placement("cpu", 1, "fp32").bf16 is False
