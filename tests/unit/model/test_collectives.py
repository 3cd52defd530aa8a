"""What the processes of a step send each other, without processes: each rank's step runs in a group of its own.

Then the ranks' collectives are held against each other as a network would: it hangs, or mixes up memory, where two
ranks of a group call another collective, or where what one sends is not what the other takes.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.distributed_c10d import _resolve_process_group  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from alexnet.model import exchange, ranks
from alexnet.model.gpu.step import FusedStep
from alexnet.model.networks.build import Network
from alexnet.model.networks.settings import NetSettings
from alexnet.model.optim import MomentumSGD, OptimSettings
from alexnet.model.placement import Layout, Placement
from alexnet.model.ranks import Processes
from tests.unit.model.test_layouts import TOWERS, with_networks

CLASSES, PX = 8, 16
LAYOUTS = {
    "towers": {"ranks": 2, "group_ranks": 2},
    "replicas": {"ranks": 3},
    "2x2": {"ranks": 4, "group_ranks": 2},
    "owt": {"ranks": 2, "group_ranks": 2, "owt": True},
}


class Collective(NamedTuple):
    """A call, as its group sees it. `sent`, `taken`: rows by place in the group; empty where all have the same."""

    name: str
    group: str
    members: tuple[int, ...]
    dtype: torch.dtype
    shape: tuple[int, ...]
    sent: tuple[int, ...] = ()
    taken: tuple[int, ...] = ()


class Log(TorchDispatchMode):
    """Note the collectives of what runs inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Collective] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operator._schema.name
        if name.endswith("all_to_all_single"):
            value, taken, sent, group = args[:4]
            self.note(name, _resolve_process_group(group), value, tuple(value.shape[1:]), tuple(sent), tuple(taken))
        elif name.startswith("c10d::"):
            value = args[0][0] if isinstance(args[0], list) else args[0]
            (group,) = (arg for arg in args if isinstance(arg, torch.ScriptObject) and is_group(arg))
            self.note(name, dist.ProcessGroup.unbox(group), value, tuple(value.shape))
        return operator(*args, **(kwargs or {}))

    def note(self, name: str, group: dist.ProcessGroup, value: Tensor, *rest: Any) -> None:
        members = tuple(dist.get_process_group_ranks(group))
        self.calls.append(Collective(name, group.group_name, members, value.dtype, *rest))


def is_group(argument: torch.ScriptObject) -> bool:
    return "ProcessGroup" in str(argument._type())


@pytest.fixture(autouse=True)
def networks() -> Iterator[None]:
    with with_networks():
        yield


def give_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add up DDP's buckets of gradients by a hook: a fake group's own call gives no result, which DDP waits for."""

    def added(group: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
        dist.all_reduce(bucket.buffer(), group=group)
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    def replica(self: Processes, net: Network, group: Any) -> DistributedDataParallel:
        wrapped = wrap(self, net, group)
        if not self.layout.owt:
            wrapped.register_comm_hook(group, added)
        return wrapped

    wrap = Processes._replica
    monkeypatch.setattr(Processes, "_replica", replica)
    monkeypatch.setattr(ranks, "_sum", added)


def calls_of(layout: Layout, images: int, *, fused: bool = False) -> list[Collective]:
    """Take one rank's step on a batch of all ranks together; return its collectives in order."""
    counts = [len(layout.part(images, rank)) for rank in range(layout.ranks)]
    told, log, settings = exchange.row_counts, Log(), NetSettings(arch=TOWERS.name, classes=CLASSES)
    placement = Placement(device=torch.device("cpu"), bf16=False, why="a test", layout=layout)
    memory: AbstractContextManager[Any] = FakeTensorMode(allow_non_fake_inputs=True) if fused else nullcontext()
    dist.init_process_group("fake", store=FakeStore(), rank=layout.rank, world_size=layout.ranks)
    try:
        with pytest.MonkeyPatch.context() as patched, memory:
            patched.setattr(exchange, "row_counts", lambda rows: (told(rows), counts)[1])  # fake: all have as many
            give_results(patched)
            joined = Processes(placement)
            net = Network(settings, layout.towers, joined.exchange(settings))
            joined.divide(net)
            with log:
                step(net.train(), joined, images, fused=fused)
    finally:
        dist.destroy_process_group()
    return log.calls


def step(net: Network, joined: Processes, images: int, *, fused: bool) -> None:
    layout = joined.layout
    batch = torch.zeros(len(layout.convolved(images)), 3, PX, PX).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(len(layout.group_part(images)), dtype=torch.int64)
    if fused:
        optim = MomentumSGD(net, OptimSettings())
        take = FusedStep(net, optim, joined, torch.float32, PX)
        loss, gradients = take(batch, labels, 0.01), take.gradients
    else:
        forward = joined.forward(net)  # whose hooks go with it
        loss = F.cross_entropy(forward(batch), labels)
        loss.backward()
        gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    joined.total(loss.detach())
    joined.whole_norm(gradients)


def meet(queues: dict[int, list[Collective]]) -> str:
    """Carry out all ranks' collectives; return where ranks wait for each other, or what does not fit, if anything."""
    left = {rank: list(calls) for rank, calls in queues.items()}
    while any(left.values()):
        for first in [calls[0] for calls in left.values() if calls]:
            heads = [left[member][:1] for member in first.members]
            if all(head and head[0].group == first.group for head in heads):
                break
        else:
            return f"all wait: {[calls[:1] for calls in left.values()]}"
        met = [head[0] for head in heads]
        if len({(call.name, call.dtype, call.shape) for call in met}) > 1:
            return f"not the same: {met}"
        for i, sender in enumerate(met):
            if any(sender.sent and sender.sent[j] != taker.taken[i] for j, taker in enumerate(met)):
                return f"sent is not taken: {met}"
        for member in first.members:
            left[member].pop(0)
    return ""


def all_ranks(name: str, images: int, **how: bool) -> dict[int, list[Collective]]:
    layouts = [Layout(rank=rank, **LAYOUTS[name]) for rank in range(LAYOUTS[name]["ranks"])]  # type: ignore[arg-type]
    return {layout.rank: calls_of(layout, images, **how) for layout in layouts}


@pytest.mark.parametrize("images", [8, 7])
@pytest.mark.parametrize("name", LAYOUTS)
def test_what_a_rank_sends_the_others_take(name: str, images: int) -> None:
    queues = all_ranks(name, images)
    assert all(len(calls) >= 2 for calls in queues.values())
    # Buckets of gradients are large.
    assert any(call.shape > (99,) for call in queues[0] if call.name == "c10d::allreduce_") == (name != "towers")
    assert meet(queues) == ""


@pytest.mark.parametrize("name", ["towers", "replicas", "2x2"])
def test_so_it_is_in_the_fused_step(name: str) -> None:
    assert meet(all_ranks(name, 7, fused=True)) == ""


def test_a_rank_in_another_order_and_rows_that_nobody_takes_are_found() -> None:
    queues = all_ranks("towers", 8)
    first, second, third, *rest = queues[1]
    assert first.shape != third.shape
    assert meet(queues | {1: [third, second, first, *rest]}).startswith("not the same")
    assert meet(queues | {1: [first._replace(sent=(9, 0)), second, third, *rest]}).startswith("sent is not taken")
    assert meet(queues | {1: [first, second, third, *rest[:-1]]}).startswith("all wait")
    assert meet(queues | {1: [first._replace(dtype=torch.bfloat16), second, third, *rest]}).startswith("not the same")
