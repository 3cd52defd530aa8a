"""A captured step does what the step does: rehearsed with a graph that runs on the CPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexnet.model.capture import CapturedStep
from alexnet.model.networks.build import Network
from alexnet.model.networks.settings import NetSettings
from alexnet.model.optim import MomentumSGD, OptimSettings
from alexnet.model.placement import choose_placement
from alexnet.model.schedule import Schedule, ScheduleSettings
from alexnet.model.trainer import Trainer, TrainSettings
from alexnet.shards.errors import InputError


class NoStream:
    def wait_stream(self, _: object) -> None:
        """There is one."""


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module], CapturedStep]:
    """Return `captured(net)`, whose graph replays as CUDA's does: on the memory that it was recorded on."""
    recorded: dict[str, CapturedStep] = {}

    class Graph:
        def replay(self) -> None:
            captured = recorded["step"]
            static = [p.grad for p in captured._parameters]
            captured._drop_gradients()
            captured._loss.copy_(captured._step(captured._images, captured._labels))
            for parameter, gradient in zip(captured._parameters, static, strict=True):
                assert gradient is not None
                assert parameter.grad is not None
                parameter.grad = gradient.copy_(parameter.grad)

    @contextmanager
    def nothing(_: Any) -> Iterator[None]:
        yield

    @contextmanager
    def recording(_: Any, *, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local", "the stream's threads allocate memory all the time"
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "stream", nothing)
    monkeypatch.setattr(torch.cuda, "Stream", NoStream)
    monkeypatch.setattr(torch.cuda, "current_stream", NoStream)

    def captured(net: nn.Module) -> CapturedStep:
        recorded["step"] = CapturedStep(step_of(net), net.parameters())
        return recorded["step"]

    return captured


def step_of(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    def step(images: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(net(images), labels)
        loss.backward()
        return loss.detach()

    return step


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def trained(net: nn.Module, step: Callable[[Tensor, Tensor], Tensor]) -> list[float]:
    """Train six steps, the third of them and the last with fewer images; return the losses."""
    generator, losses = torch.Generator().manual_seed(1), []
    optim = MomentumSGD(net, OptimSettings(lr=0.1))
    for images in (8, 8, 3, 8, 8, 2):
        data = torch.randn(images, 6, generator=generator), torch.randint(3, (images,), generator=generator)
        losses.append(step(*data))
        optim.step(0.1)
        assert all(parameter.grad is None for parameter in net.parameters())
    return [loss.item() for loss in losses]  # read at the end: a replay must not change what was returned before


def test_losses_and_weights_are_those_of_the_step(rehearsed: Callable[[nn.Module], CapturedStep]) -> None:
    plain, captured = network(), network()
    assert trained(captured, rehearsed(captured)) == trained(plain, step_of(plain))
    for a, b in zip(plain.parameters(), captured.parameters(), strict=True):
        assert torch.equal(a, b)


def test_without_a_gpu_it_is_refused() -> None:
    net = Network(NetSettings(arch="lenet-5", classes=10))
    placement = choose_placement("cpu", 1, "fp32")
    schedule = Schedule(ScheduleSettings(), 0.1, 10)
    with pytest.raises(InputError, match="capture=true: is for one process on a GPU"):
        Trainer(net, MomentumSGD(net, OptimSettings()), schedule, placement, TrainSettings(capture=True), 10)
