"""The fused step against the plain one, its kernels in Triton's interpreter, in fp32."""

import copy
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from alexnet.model.gpu import step as steps
from alexnet.model.gpu.step import LAYER_BY_LAYER, FusedStep, checked_step
from alexnet.model.initialise import InitSettings, initialise
from alexnet.model.networks.architecture import (
    ALL_GATHER,
    DROP,
    FLATTEN,
    RELU,
    TANH,
    Architecture,
    Conv,
    Drop,
    Full,
    Layer,
    NormAcrossMaps,
    NormInMap,
    PadEnd,
    Pool,
    PoolTo,
)
from alexnet.model.networks.build import Network
from alexnet.model.networks.others import ARCHITECTURES
from alexnet.model.networks.settings import NetSettings
from alexnet.model.optim import MomentumSGD, OptimSettings
from alexnet.model.placement import Layout, Placement
from alexnet.model.ranks import Ranks
from alexnet.model.schedule import Schedule, ScheduleSettings
from alexnet.model.trainer import Trainer, TrainSettings
from tests.unit.model.stand_ins import CPU, Batches

PX, CLASSES, IMAGES = 67, 7, 4
POOL, NORM = Pool(3, 2), NormAcrossMaps(size=5, alpha=1e-2, k=1.5)


def fully_connected(*between: Layer) -> tuple[Layer, ...]:
    return (
        *between,
        FLATTEN,
        Full("fc6", 12),
        RELU,
        DROP,
        *between,
        Full("fc7", 10),
        RELU,
        DROP,
        *between,
        Full("fc8"),
    )


def convolutions(first: tuple[Layer, ...], second: tuple[Layer, ...], *between: Layer) -> tuple[Layer, ...]:
    return (
        PadEnd(3), Conv("conv1", 8, window=11, stride=4), *first,
        Conv("conv2", 6, window=5, padding=2, first_bias=1), *second,
        *between,
        Conv("conv3", 8, window=3, padding=1), RELU,
        Conv("conv4", 6, window=3, padding=1), RELU,
        Conv("conv5", 8, window=3, padding=1), RELU, POOL,
    )  # fmt: skip


PAPER = (RELU, NORM, POOL)
NETWORKS: dict[str, tuple[int, tuple[Layer, ...]]] = {
    "two towers": (2, (*convolutions(PAPER, PAPER, ALL_GATHER), *fully_connected(ALL_GATHER))),
    "as its source": (
        2,
        (
            *convolutions((NORM, POOL, RELU), (RELU, NORM, NormInMap(5, 1e-2), POOL), ALL_GATHER),
            *fully_connected(ALL_GATHER),
        ),
    ),
    "towers that never meet": (2, (*convolutions(PAPER, PAPER), *fully_connected())),
    "disjoint windows, no norm": (1, (*convolutions((RELU, Pool(2, 2)), (RELU, Pool(2, 2))), *fully_connected())),
    "tanh, ragged and mean windows": (
        2,
        (*convolutions((TANH, NORM, Pool(3, 2, ceil=True)), (Pool(3, 2, "average"), TANH)), *fully_connected()),
    ),
    "2014": (
        1,
        (
            Conv("conv1", 8, window=11, stride=4, padding=2), RELU, POOL,
            Conv("conv2", 6, window=3, padding=1), RELU, PoolTo(3), FLATTEN, Drop(scaled=True),
            Full("fc6", 12), RELU, Drop(scaled=True), Full("fc8"),
        ),
    ),
}  # fmt: skip


@pytest.fixture(params=NETWORKS)
def arch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a small network, with a name for a recipe to give."""
    return named(request.param, monkeypatch)


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> str:
    return named("two towers", monkeypatch)


def named(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    towers, layers = NETWORKS[name]
    made = Architecture(name=name, about="a test", input_px=(PX,), layers=layers, towers=towers)
    monkeypatch.setitem(ARCHITECTURES, name, made)
    return name


def trainer(arch: str, channels: int = 0, **optim: Any) -> Trainer:
    net = Network(NetSettings(arch=arch, classes=CLASSES, channels=channels))
    initialise(net, InitSettings(kind="he"), seed=1)
    net = net.to(CPU.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    first = [module for module in next(iter(net.weighted().values())) if module is not None]
    rule = MomentumSGD(net, OptimSettings(lr=0.02, **optim), first)
    schedule = Schedule(ScheduleSettings(kind="constant"), 0.02, 100)
    made = Trainer(net, rule, schedule, CPU, TrainSettings(batch_images=IMAGES), 100)
    made.net.train()
    return made


def fused(made: Trainer, **options: bool) -> Trainer:
    """Let a trainer on a CPU take its steps as one on a GPU would, but for the graph."""
    made._fused, made.step_taken_as = FusedStep(made.net, made.optim, Ranks(), torch.float32, PX, **options), "fused"
    return made


def batches(*sizes: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    for size in sizes:
        yield torch.randn(size, 3, PX, PX, generator=generator), torch.randint(CLASSES, (size,), generator=generator)


def trained(made: Trainer, *sizes: int, rates: tuple[float, ...] = (), first_layer: tuple[float, ...] = ()) -> Trainer:
    """Take a step for each batch, at the given rates."""
    for number, (images, labels) in enumerate(batches(*sizes)):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(made.schedule, "rate", functools.partial(_nth, rates or [0.02] * 9, number))
            patched.setattr(made.schedule, "first_layer", functools.partial(_nth, first_layer or [1.0] * 9, number))
            made.train_step(images, labels)
    return made


def _nth(values: Sequence[float], number: int, *_: object) -> float:
    return values[number]


def tensors(made: Trainer) -> dict[str, Tensor]:
    velocity = {f"velocity of {name}": buffer for name, buffer in made.optim.momentum_buffers().items()}
    return {**dict(made.net.named_parameters()), **velocity}


def assert_near(one: Trainer, other: Trainer, within: float) -> None:
    there = tensors(other)
    for name, tensor in tensors(one).items():
        assert steps._distance(tensor.detach(), there[name].detach()) < within, name


def test_steps_are_those_of_the_plain_network(arch: str) -> None:
    """Rates that change, a first layer that slows down and stops, and a batch of another size."""
    how: dict[str, Any] = {"rates": (0.02, 0.02, 0.01, 0.01), "first_layer": (1.0, 0.5, 0.0, 0.0)}
    options: dict[str, Any] = {"bias_lr_scale": 2.0, "bias_decay": False}
    plain = trained(trainer(arch, **options), 4, 4, 4, 3, **how)
    assert_near(trained(fused(trainer(arch, **options)), 4, 4, 4, 3, **how), plain, 2e-5)


@pytest.mark.parametrize("left_out", ["fused", "blocks"])
def test_what_it_is_measured_against_is_the_same_step(paper: str, left_out: str) -> None:
    assert_near(trained(fused(trainer(paper), **{left_out: False}), 4, 3), trained(trainer(paper), 4, 3), 2e-5)


def test_what_it_measures_is_what_the_plain_step_does(paper: str) -> None:
    ((images, labels),) = batches(4)
    here, plain = (made.train_step(images, labels) for made in (fused(trainer(paper)), trainer(paper)))
    assert here
    assert plain
    assert [value.item() for value in here] == pytest.approx([value.item() for value in plain], rel=1e-5)


def test_a_run_that_is_resumed_is_equal_to_the_bit(paper: str) -> None:
    whole = trained(fused(trainer(paper)), 4, 4, 4)
    first, source = trained(fused(trainer(paper)), 4, 4), Source()
    resumed = trainer(paper)
    resumed.restore(first.checkpoint(source), source)
    third = list(batches(4, 4, 4))[2]
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
    moved = trained(fused(trainer(paper)), 4, 4)
    moved.restore(saved, source)
    assert moved._fused is None
    assert_near(trained(fused(moved), 4), trained(fused(trainer(paper)), 4), 1e-12)


Plain = Callable[[Tensor, Tensor, Placement], dict[str, Tensor]]


def choose(made: Trainer, plain: Plain | None = None) -> tuple[FusedStep | None, str]:
    """Choose a step as on a GPU, without the capture."""
    ((images, labels),) = batches(4)
    return checked_step(made.net, made.optim, TwoOrMore(), CPU, (images, labels), plain or made._plain)


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
    reason = f"StepDisagreesError: {wrong} is off by 2.0%, of 0.1% allowed, in torch.float32"
    assert why == f"{LAYER_BY_LAYER}, as the fused step failed ({reason})"
    trained(made, 4, 4)


def test_a_kernel_that_does_not_compile_leaves_the_plain_step(paper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> Tensor:
        raise RuntimeError("PassManager::run failed\n  on every line")

    made, never = trainer(paper), trainer(paper)
    monkeypatch.setattr("alexnet.model.gpu.network.conv_epilogue", fails)
    step, why = choose(made)
    assert (step, why) == (
        None,
        f"{LAYER_BY_LAYER}, as the fused step failed (RuntimeError: PassManager::run failed on every line)",
    )
    assert_near(trained(made, 4, 4), trained(never, 4, 4), 1e-12)


def test_a_graph_replays_the_step(paper: str, cuda_graphs_on_a_cpu: None) -> None:
    """Rehearsed by a graph that runs again what it recorded, on the memory it recorded it on."""
    made, plain = trainer(paper), fused(trainer(paper))
    ((images, labels),) = batches(4)
    made.net.clock.set(0, 0, 0)
    made._fused, made.step_taken_as = checked_step(made.net, made.optim, Ranks(), CPU, (images, labels), made._plain)
    assert made.step_taken_as.startswith("fused kernels, one CUDA graph a step; the first batch's gradients are")
    how: dict[str, Any] = {"rates": (0.02, 0.01, 0.01, 0.02, 0.02)}
    assert_near(trained(made, 4, 4, 4, 3, 4, **how), trained(plain, 4, 4, 4, 3, 4, **how), 1e-12)


@pytest.fixture
def cuda_graphs_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
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

    def capture(step: FusedStep, images: Tensor, labels: Tensor) -> None:
        Graph.step = step
        Graph.record = lambda _: step._run(step._prepared, step._labels, 1.0)  # type: ignore[assignment, misc]
        original(step, images, labels)

    monkeypatch.setattr(FusedStep, "capture", capture)
    for name, stand_in in {"CUDAGraph": Graph, "graph": recording, "stream": nullcontext, "Stream": NoStream}.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.cuda, "current_stream", NoStream)
