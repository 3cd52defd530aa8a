"""The fused step against the plain one, its kernels in Triton's interpreter, in fp32."""

import copy
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from alexnet.model.gpu import step as steps
from alexnet.model.gpu.conv_epilogue import conv_epilogue
from alexnet.model.gpu.step import FusedStep, checked_step
from alexnet.model.placement import Layout, Placement
from alexnet.model.ranks import Ranks
from alexnet.model.trainer import Trainer
from tests.unit.model.gpu.small import (
    IMAGES,
    NETWORKS,
    assert_near,
    batches,
    fused,
    named,
    tensors,
    trained,
    trainer,
)
from tests.unit.model.gpu.test_conv_epilogue import reference
from tests.unit.model.stand_ins import CPU, Batches


@pytest.fixture(params=NETWORKS)
def arch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a small network, with a name for a recipe to give."""
    return named(request.param, monkeypatch)


@pytest.fixture(autouse=True)
def by_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what follows convolutions to PyTorch: the interpreter takes two seconds a step."""
    monkeypatch.setattr("alexnet.model.gpu.network.conv_epilogue", reference)


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> str:
    return named("two towers", monkeypatch)


def test_steps_are_those_of_the_plain_network(arch: str) -> None:
    """Rates that change, a first layer that slows down and stops, and a batch of another size."""
    how: dict[str, Any] = {"rates": (0.02, 0.02, 0.01, 0.01), "first_layer": (1.0, 0.5, 0.0, 0.0)}
    options: dict[str, Any] = {"bias_lr_scale": 2.0, "bias_decay": False}
    plain = trained(trainer(arch, **options), 3, 3, 3, 2, **how)
    assert_near(trained(fused(trainer(arch, **options)), 3, 3, 3, 2, **how), plain, 2e-5)


def test_steps_by_the_kernels_are_too(paper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.model.gpu.network.conv_epilogue", conv_epilogue)
    assert_near(trained(fused(trainer(paper)), 3, 2), trained(trainer(paper), 3, 2), 2e-5)


@pytest.mark.parametrize("left_out", ["fused", "blocks"])
def test_what_it_is_measured_against_is_the_same_step(paper: str, left_out: str) -> None:
    assert_near(trained(fused(trainer(paper), **{left_out: False}), 3, 2), trained(trainer(paper), 3, 2), 2e-5)


def test_what_it_measures_is_what_the_plain_step_does(paper: str) -> None:
    ((images, labels),) = batches(3)
    here, plain = (made.train_step(images, labels) for made in (fused(trainer(paper)), trainer(paper)))
    assert here
    assert plain
    assert [value.item() for value in here] == pytest.approx([value.item() for value in plain], rel=1e-5)


def test_a_run_that_is_resumed_is_equal_to_the_bit(paper: str) -> None:
    whole = trained(fused(trainer(paper)), 3, 3, 3)
    first, source = trained(fused(trainer(paper)), 3, 3), Source()
    resumed = trainer(paper)
    resumed.restore(first.checkpoint(source), source)
    third = list(batches(3, 3, 3))[2]
    fused(resumed).train_step(*third)
    there = tensors(whole)
    assert all(torch.equal(tensor, there[name]) for name, tensor in tensors(resumed).items())


class Source(Batches):
    def __init__(self) -> None:
        super().__init__(100, IMAGES, lambda _: next(batches(IMAGES)))


def test_what_was_restored_is_trained_on(paper: str) -> None:
    """The step has copies of the weights: a trainer that is given others must not go on with them."""
    start, source = trainer(paper), Source()
    saved = copy.deepcopy(start.checkpoint(source))
    moved = trained(fused(trainer(paper)), 3, 3)
    moved.restore(saved, source)
    assert moved.fused is None
    assert_near(trained(fused(moved), 3), trained(fused(trainer(paper)), 3), 1e-12)


Plain = Callable[[Tensor, Tensor, Placement], dict[str, Tensor]]


def choose(made: Trainer, plain: Plain | None = None) -> tuple[FusedStep | None, str]:
    """Choose a step as on a GPU, without the capture."""
    ((images, labels),) = batches(3)
    return checked_step(made.net, made.optim, TwoOrMore(), CPU, (images, labels), IMAGES, plain or made._plain)


class TwoOrMore(Ranks):
    layout = Layout(rank=0, ranks=2, group_ranks=2)


def test_a_step_that_agrees_is_taken_and_says_how_near_it_is(paper: str) -> None:
    made = trainer(paper)
    before = {name: tensor.clone() for name, tensor in made.net.named_parameters()}
    step, how = choose(made)
    assert step is not None
    assert re.fullmatch(r"fused kernels; the first batch's gradients are the plain step's to \de-0[678] in fp32", how)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.net.named_parameters())
    assert all(parameter.grad is None for parameter in made.net.parameters())


@pytest.mark.parametrize("wrong", ["towers.1.conv2.bias", "towers.0.fc7.weight", "loss"])
def test_one_wrong_gradient_leaves_the_plain_step_and_is_named(paper: str, wrong: str) -> None:
    made = trainer(paper)

    def plain(images: Tensor, labels: Tensor, placement: Placement) -> dict[str, Tensor]:
        found = made._plain(images, labels, placement)
        return {**found, wrong: found[wrong] * 1.02}

    step, why = choose(made, plain)
    assert step is None
    assert why == f"StepDisagreesError: {wrong} is off by 2.0%, of 0.1% allowed, torch.float32"
    trained(made, 3, 3)


def test_a_kernel_that_does_not_compile_leaves_the_plain_step(paper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> Tensor:
        raise RuntimeError("PassManager::run failed\n  on every line")

    made, never = trainer(paper), trainer(paper)
    monkeypatch.setattr("alexnet.model.gpu.network.conv_epilogue", fails)
    step, why = choose(made)
    assert (step, why) == (None, "RuntimeError: PassManager::run failed on every line")
    assert_near(trained(made, 3, 3), trained(never, 3, 3), 1e-12)


def test_what_another_process_sees_leaves_the_plain_step_here_too(paper: str) -> None:
    made = trainer(paper)
    elsewhere = TwoOrMore()
    elsewhere.any = lambda flag: True  # type: ignore[method-assign]
    ((images, labels),) = batches(3)
    found = checked_step(made.net, made.optim, elsewhere, CPU, (images, labels), IMAGES, made._plain)
    assert found == (None, "another process says why")


def test_a_graph_replays_the_step(paper: str, cuda_graphs_on_a_cpu: None) -> None:
    """Rehearsed on a CPU. The first batch lacks an image, and so does a later one: their rows count for nothing."""
    sizes = (2, 3, 3, 2)
    made, launched = trainer(paper), fused(trainer(paper))
    batch = next(batches(*sizes))
    made.net.clock.set(0, 0, 0)
    made.fused, made.steps_taken = checked_step(made.net, made.optim, Ranks(), CPU, batch, IMAGES, made._plain)
    assert made.steps_taken.startswith("fused kernels, one CUDA graph a step; the first batch's gradients are")
    how: dict[str, Any] = {"rates": (0.02, 0.01, 0.01, 0.02)}
    assert_near(trained(made, *sizes, **how), trained(launched, *sizes, **how), 1e-5)


def test_a_run_in_tf32_is_held_to_tf32(paper: str, cuda_graphs_on_a_cpu: None) -> None:
    """The graph computes as the run does: its gradients may be as far from exact fp32 as the plain step's are."""
    made, name = trainer(paper), "towers.0.conv1.weight"

    def plain(images: Tensor, labels: Tensor, placement: Placement) -> dict[str, Tensor]:
        found = made._plain(images, labels, placement)
        return {**found, name: found[name] * 1.02} if torch.backends.cudnn.allow_tf32 else found

    step, why = checked_step(made.net, made.optim, Ranks(), CPU, next(batches(3)), IMAGES, plain)
    assert step, why


def test_distances_of_nothing() -> None:
    zero, one = torch.zeros(3), torch.ones(3)
    assert [steps._distance(*pair) for pair in ((zero, zero), (one, one), (zero, one))] == [0.0, 0.0, 1.0]
    assert steps._distance(one, zero) == math.inf
    assert not steps._distance(zero * math.nan, one) <= 1.0


@pytest.fixture
def cuda_graphs_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have graphs that do what they recorded once more: what CUDA's would make of freed memory does not show."""

    class Graph:
        record: Callable[[], Tensor]
        step: FusedStep

        def replay(self) -> None:
            self.step._loss.copy_(self.record())

    class NoStream:
        def wait_stream(self, _: object) -> None: ...

    @contextmanager
    def recording(graph: Graph, *, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local", "the stream's threads allocate memory all the time"
        yield

    original = FusedStep.capture

    def capture(step: FusedStep, *what: Any) -> None:
        Graph.step = step
        Graph.record = lambda _: step._run(step._prepared, step._labels, 1.0)  # type: ignore[assignment, misc]
        original(step, *what)

    monkeypatch.setattr(FusedStep, "capture", capture)
    monkeypatch.setattr(steps, "_WARM_UP", 1)
    for name, stand_in in {"CUDAGraph": Graph, "graph": recording, "stream": nullcontext, "Stream": NoStream}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.cuda, "current_stream", NoStream)
