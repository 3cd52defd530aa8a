"""The same training in every layout: a tower each, replicas, or one weird trick, against one process.

The processes are started once; each of them trains in every way that is asked for and leaves its results in a file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.multiprocessing.spawn import spawn

from alexnet.model.gpu.step import FusedStep, checked_step
from alexnet.model.initialise import InitSettings, initialise
from alexnet.model.networks.architecture import (
    ALL_GATHER,
    DROP,
    FLATTEN,
    RELU,
    Architecture,
    Conv,
    Drop,
    Full,
    NormAcrossMaps,
    Pool,
    PoolTo,
)
from alexnet.model.networks.build import Network
from alexnet.model.networks.others import ARCHITECTURES
from alexnet.model.networks.settings import NetSettings
from alexnet.model.optim import MomentumSGD, OptimSettings
from alexnet.model.owt import divided_layers
from alexnet.model.placement import Layout, Placement, choose_placement
from alexnet.model.ranks import Processes, Ranks, started
from alexnet.model.schedule import Schedule, ScheduleSettings
from alexnet.model.trainer import Trainer, TrainSettings
from alexnet.shards.errors import InputError
from alexnet.tools.host_memory import keep_freed_memory

# All kinds of layers where towers, or ranks, read each other; a step takes milliseconds.
TOWERS = Architecture(
    name="two-towers",
    about="a test",
    towers=2,
    input_px=(16,),
    layers=(
        Conv("conv1", 8, window=5, padding=2), RELU, NormAcrossMaps(), Pool(),
        ALL_GATHER,
        Conv("conv2", 8, window=3, padding=1), RELU,
        ALL_GATHER, FLATTEN,
        Full("fc3", 32), RELU, DROP,
        ALL_GATHER,
        Full("fc4", 32), RELU, DROP,
        ALL_GATHER,
        Full("fc5"),
    ),
)  # fmt: skip
COLUMN = Architecture(
    name="one-column",
    about="a test",
    input_px=(16,),
    torchvision=True,
    layers=(
        Conv("conv1", 8, window=5, padding=2), RELU, Pool(), PoolTo(6), FLATTEN,
        Drop(scaled=True), Full("fc2", 32), RELU,
        Drop(scaled=True), Full("fc3"),
    ),
)  # fmt: skip
CLASSES = {
    TOWERS.name: 7,  # 4 on one tower, 3 on the other
    COLUMN.name: 8,
    "cuda-convnet-cifar": 8,  # its only fully connected layer is its last
    "cuda-convnet-cifar-80s": 7,
}
DIVIDED = (TOWERS.name, COLUMN.name, "cuda-convnet-cifar")
BATCH = 3  # does not divide by 2
STEPS = 5
Record = dict[str, Any]


def placement(layout: Layout, *, bf16: bool = False) -> Placement:
    return Placement(device=torch.device("cpu"), bf16=bf16, why="a test", layout=layout)


@contextmanager
def with_networks() -> Iterator[pytest.MonkeyPatch]:
    """Have the networks above among all others."""
    with pytest.MonkeyPatch.context() as patched:
        for each in (TOWERS, COLUMN):
            patched.setitem(ARCHITECTURES, each.name, each)
        yield patched


@pytest.fixture(autouse=True, scope="module")
def networks() -> Iterator[None]:
    with with_networks():
        yield


def train(arch: str, placed: Placement, ranks: Ranks, *, fused: bool = False) -> Record:
    """Train for a few steps with dropout on; return what happened, of the parameters that are held here."""
    settings, rate = NetSettings(arch=arch, classes=CLASSES[arch]), 0.003
    net = Network(settings, placed.layout.towers, ranks.exchange(settings)).train()
    initialise(net, InitSettings(kind="he"), seed=3)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ranks.divide(net)
    forward, optim = ranks.forward(net), MomentumSGD(net, OptimSettings(lr=rate))
    generator = torch.Generator().manual_seed(1)
    rows, convolved, px = placed.layout.group_part(BATCH), placed.layout.convolved(BATCH), net.architecture.input_px[0]
    losses, gradients = [], {}
    step_of = FusedStep(net, optim, ranks, torch.float32, px) if fused else None
    for step in range(STEPS):
        images = torch.randn(BATCH, 3, px, px, generator=generator).contiguous(memory_format=torch.channels_last)
        labels = torch.randint(7, (BATCH,), generator=generator)
        net.clock.set(3, step, rows.start)
        mine, theirs = slice(convolved.start, convolved.stop), slice(rows.start, rows.stop)
        weight = ranks.weight(len(rows), BATCH)
        if step_of:
            loss, gradients = step_of(images[mine], labels[theirs], rate, weight=weight), step_of.gradients
        else:
            with placed.autocast():
                loss = F.cross_entropy(forward(images[mine]).float(), labels[theirs]) * weight
            loss.backward()
            gradients = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
            optim.step(rate)
        losses.append((ranks.total(loss.detach()) / placed.layout.groups).item())
    norm = ranks.whole_norm(gradients)
    lone = placed.layout.convolved(1)  # the last batch of a validation may leave a rank without an image
    with torch.no_grad():
        scores = [net.eval()(images[part.start : part.stop]) for part in (convolved, lone)]
    return {
        "losses": losses,
        "gradients": gradients,
        "norm": norm,
        "scores": scores,
        "weights": {n: p.detach() for n, p in net.named_parameters()},
    }


def checked(arch: str, placed: Placement, ranks: Ranks) -> str:
    """Compare the fused step with the plain one as a run does before its first step; return what it says."""
    settings, rows = NetSettings(arch=arch, classes=CLASSES[arch]), placed.layout.group_part(BATCH)
    net = Network(settings, placed.layout.towers, ranks.exchange(settings)).train()
    initialise(net, InitSettings(kind="he"), seed=3)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rule, schedule = MomentumSGD(net, OptimSettings()), Schedule(ScheduleSettings(), 0.01, 10)
    trainer = Trainer(net, rule, schedule, placed, TrainSettings(batch_images=BATCH), 10, ranks)
    generator = torch.Generator().manual_seed(1)
    batch = torch.randn(BATCH, 3, 16, 16, generator=generator), torch.randint(7, (BATCH,), generator=generator)
    mine = slice(rows.start, rows.stop)
    return checked_step(net, rule, ranks, placed, (batch[0][mine], batch[1][mine]), BATCH, trainer._plain)[1]


def as_one_of_two(rank: int, folder: Path) -> None:
    """Be one of two processes; their meeting place is a file."""
    with with_networks() as patched:
        patched.setenv("GLOO_SOCKET_IFNAME", "lo")
        patched.setenv("OMP_NUM_THREADS", "1")
        patched.setenv("TRITON_INTERPRET", "1")
        torch.set_num_threads(1)
        keep_freed_memory()
        torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
        pair, replicas = Layout(rank=rank, ranks=2, group_ranks=2), Layout(rank=rank, ranks=2)
        result: Record = {}
        for bf16 in (False, True):
            placed = placement(pair, bf16=bf16)
            result[f"pair bf16={bf16}"] = train(TOWERS.name, placed, Processes(placed))
        result["fused pair"] = train(TOWERS.name, placement(pair), Processes(placement(pair)), fused=True)
        placed = placement(replicas)
        result["data"] = train("cuda-convnet-cifar-80s", placed, Processes(placed))
        result["fused data"] = train(TOWERS.name, placed, Processes(placed), fused=True)
        result["checked"] = [checked(TOWERS.name, p, Processes(p)) for p in (placement(pair), placed)]
        for arch in DIVIDED:
            placed = placement(Layout(rank=rank, ranks=2, group_ranks=2, owt=True))
            together = Processes(placed)
            record = train(arch, placed, together)
            stored = together.as_stored({f"net.{name}": weight for name, weight in record["weights"].items()})
            record["global"] = {name: tuple(tensor.shape) for name, tensor in stored.items()}
            result[f"owt {arch}"] = record
        together = Processes(placement(pair))
        result["any"] = [together.any(flag) for flag in (False, rank == 1)]
        together.asked_every = 10  # as on GPUs
        result["any after"] = [step for step in range(1, 31) if together.any_after(step, rank == 1 and step > 13)]
        result["first"] = together.of_first(f"from {rank}")
        torch.save(result, folder / f"{rank}.pt")
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    folder: Path = tmp_path_factory.mktemp("two")
    spawn(as_one_of_two, (folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("bf16", [False, True])
def test_a_pair_equals_one_process_to_the_bit(two: list[Record], bf16: bool) -> None:
    """Losses, gradients and weights over five steps with dropout, at one thread a tower."""
    expected = train(TOWERS.name, placement(Layout(), bf16=bf16), Ranks())
    pair = [rank[f"pair bf16={bf16}"] for rank in two]
    assert len(set(expected["losses"])) == STEPS
    for kind in ("gradients", "weights"):
        assert pair[0][kind].keys().isdisjoint(pair[1][kind])
        assert {**pair[0][kind], **pair[1][kind]}.keys() == expected[kind].keys()
    for rank in pair:
        assert rank["losses"] == expected["losses"]
        for kind in ("gradients", "weights"):
            differing = [name for name, tensor in rank[kind].items() if not torch.equal(tensor, expected[kind][name])]
            assert not differing, kind


def test_replicas_equal_one_process_with_parts_of_uneven_size(two: list[Record]) -> None:
    """One image here, two there, weighted by their number: sums in another order, so equal to rounding only."""
    expected = train("cuda-convnet-cifar-80s", placement(Layout()), Ranks())
    for rank in two:
        torch.testing.assert_close(rank["data"]["losses"], expected["losses"], rtol=1e-5, atol=0)
        for name, weights in rank["data"]["weights"].items():
            torch.testing.assert_close(weights, expected["weights"][name], rtol=1e-4, atol=1e-6)
            assert torch.equal(weights, two[0]["data"]["weights"][name])


@pytest.mark.parametrize("how", ["fused pair", "fused data"])
def test_the_fused_step_of_two_processes_is_that_of_one(two: list[Record], how: str) -> None:
    """A tower each, and replicas with one and two images; sums come in another order than in the plain network's."""
    expected = train(TOWERS.name, placement(Layout()), Ranks())
    for rank in two:
        torch.testing.assert_close(rank[how]["losses"], expected["losses"], rtol=1e-5, atol=0)
        for kind in ("gradients", "weights"):
            for name, tensor in rank[how][kind].items():
                torch.testing.assert_close(tensor, expected[kind][name], rtol=1e-3, atol=1e-5)


def test_two_processes_find_the_fused_step_right(two: list[Record]) -> None:
    for words in (words for rank in two for words in rank["checked"]):
        assert words.startswith("fused kernels; the first batch's gradients are the plain step's to "), words


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("arch", DIVIDED)
def test_one_weird_trick_equals_one_process(two: list[Record], arch: str) -> None:
    """One image convolved here, two there, half of the units each; dropout on. Sums come in another order.

    Of the two towers the last layer, 4 and 3 classes, is left whole: its gradients must not count twice.
    """
    expected = train(arch, placement(Layout()), Ranks())
    ranks = [rank[f"owt {arch}"] for rank in two]
    for number, rank in enumerate(ranks):
        torch.testing.assert_close(rank["losses"], expected["losses"], rtol=1e-5, atol=0)
        torch.testing.assert_close(rank["norm"], expected["norm"], rtol=1e-3, atol=0)  # of 10^7 squares, in float32
        for scores, wanted, first in zip(rank["scores"], expected["scores"], ranks[0]["scores"], strict=True):
            assert (scores - wanted).abs().max() < 1e-5 * wanted.abs().max()
            assert torch.equal(scores, first)
        assert rank["global"] == {f"net.{name}": tuple(weight.shape) for name, weight in expected["weights"].items()}
        for kind in ("gradients", "weights"):
            for name, whole in expected[kind].items():
                units = len(rank[kind][name])
                mine = whole if units == len(whole) else whole[number * units : (number + 1) * units]
                # Roundings, 6e-8 each, of sums whose parts may cancel: measured against the layer's largest value.
                furthest = (rank[kind][name] - mine).abs().max() / whole.abs().max()
                assert furthest < 1e-5, (kind, name)


def test_one_weird_trick_divides_what_can_be_divided() -> None:
    thousand = NetSettings()
    assert divided_layers(thousand, 2) == divided_layers(thousand, 4) == ["fc6", "fc7", "fc8"]
    assert divided_layers(thousand, 8) == ["fc6", "fc7"], "a tower has 500 classes"
    assert divided_layers(NetSettings(classes=7), 2) == ["fc6", "fc7"]
    assert divided_layers(NetSettings(arch="alexnet-owt"), 8) == ["fc6", "fc7", "fc8"]
    for settings, ranks in (
        (thousand, 3),
        (NetSettings(arch="lenet-5", classes=10), 5),
        (NetSettings(arch="cuda-convnet-cifar", classes=7), 2),
    ):
        with pytest.raises(InputError, match=f"{ranks} processes cannot divide the"):
            divided_layers(settings, ranks)
    layout = choose_placement("cpu", 3, "auto", parallel="owt", rank=1).layout
    assert (layout.groups, layout.towers, layout.owt) == (1, None, True)
    assert [list(part) for part in (layout.group_part(7), layout.convolved(7))] == [list(range(7)), [2, 3]]
    assert not choose_placement("cpu", 1, "auto", parallel="owt").layout.owt


def test_processes_agree(two: list[Record]) -> None:
    for rank in two:
        assert (rank["any"], rank["any after"], rank["first"]) == ([False, True], [20, 30], "from 0")


def test_one_process_starts_nothing() -> None:
    with started(placement(Layout()), 1) as ranks:
        assert isinstance(ranks, Ranks)
    assert not torch.distributed.is_initialized()
