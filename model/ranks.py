"""What the processes of a run do together, outside of the network: the layout, carried out.

Whoever trains, evaluates or saves asks here and need not know how many processes there are.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from alexnet.model.batches import BatchSource
from alexnet.model.exchange import AcrossRanks, Exchange, SameDevice
from alexnet.model.gathered import GatheredBatches, WindowSource
from alexnet.model.networks.network import Network
from alexnet.model.networks.settings import NetSettings, drawing_of
from alexnet.model.networks.trace import class_range
from alexnet.model.placement import Layout, Placement

Forward = Callable[[Tensor], Tensor]


class Ranks(Protocol):
    """Join the processes of a run. Each method is called by all of them, in the same order."""

    layout: Layout

    def exchange(self, settings: NetSettings) -> Exchange:
        """Return how this process's towers reach the others of its group."""

    def forward(self, net: Network) -> Forward:
        """Return the forward pass to train with: after its backward, gradients are the mean over groups."""

    def weight(self, images: int, of: int) -> float:
        """Return what the mean loss of a group's images, out of `of` in all, weighs in that mean."""

    def total(self, sums: Tensor) -> Tensor:
        """Add up each group's sums."""

    def any(self, flag: bool) -> bool:
        """Say whether any process's flag is up."""

    def of_first(self, value: Any) -> Any:
        """Return the value that the first process has."""

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """Return the tensors of all towers in the first process, None in the others."""

    def wait(self) -> None:
        """Wait until all are here."""


class OneProcess:
    """A run of one process."""

    layout = Layout()

    def exchange(self, settings: NetSettings) -> Exchange:
        """Every tower is here."""
        return SameDevice()

    def forward(self, net: Network) -> Forward:
        """Return the network's own."""
        return net

    def weight(self, images: int, of: int) -> float:
        """Return 1: it is the mean."""
        return 1.0

    def total(self, sums: Tensor) -> Tensor:
        """There is one group."""
        return sums

    def any(self, flag: bool) -> bool:
        """There is one flag."""
        return flag

    def of_first(self, value: Any) -> Any:
        """Return the value: no other process has one."""
        return value

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """Everything is here."""
        return tensors

    def wait(self) -> None:
        """Nobody to wait for."""


class Processes:
    """A run of several processes. PyTorch's process groups do the work.

    Networks cross devices over NCCL; flags, names and checkpoints are small or rare and go over gloo, from the CPU.
    """

    def __init__(self, placement: Placement) -> None:
        self.layout = layout = placement.layout
        self._device = placement.device
        groups = [dist.new_group(list(layout.members(g))) for g in range(layout.groups)]
        peers = [dist.new_group(list(range(i, layout.ranks, layout.group_ranks))) for i in range(layout.group_ranks)]
        self._group = groups[layout.group]
        self._peers = peers[layout.rank % layout.group_ranks]

    def exchange(self, settings: NetSettings) -> Exchange:
        """One tower is here, or all."""
        if self.layout.group_ranks == 1:
            return SameDevice()
        towers = drawing_of(settings).towers
        return AcrossRanks(self._group, [len(class_range(settings.classes, towers, t)) for t in range(towers)])

    def forward(self, net: Network) -> Forward:
        """With one group the network's own; with more, PyTorch's data-parallel wrapper, which averages."""
        if self.layout.groups == 1:
            return net
        return DistributedDataParallel(
            net, process_group=self._peers, broadcast_buffers=False, gradient_as_bucket_view=True, init_sync=False
        )

    def weight(self, images: int, of: int) -> float:
        """Uneven parts count by their images."""
        return 1.0 if self.layout.groups == 1 else images * self.layout.groups / of

    def total(self, sums: Tensor) -> Tensor:
        """Add up over one rank of each group: within a group all have the same."""
        if self.layout.groups > 1:
            sums = sums.clone()
            dist.all_reduce(sums, group=self._peers)
        return sums

    def any(self, flag: bool) -> bool:
        """Reduce the flags on the CPU: no device waits."""
        raised = torch.tensor(int(flag))
        dist.all_reduce(raised, op=dist.ReduceOp.MAX)
        return bool(raised)

    def of_first(self, value: Any) -> Any:
        """Send it to all."""
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """Send the first group's tensors, one after the other, to the first process."""
        if self.layout.rank not in self.layout.members(0):
            return None
        if self.layout.rank > 0:
            kinds = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
            dist.send_object_list([kinds], dst=0, device=torch.device("cpu"))
            for tensor in tensors.values():
                dist.send(tensor.detach().cpu().contiguous(), dst=0)
            return None
        everything = dict(tensors)
        for rank in self.layout.members(0)[1:]:
            box: list[Any] = [None]
            dist.recv_object_list(box, src=rank, device=torch.device("cpu"))
            for name, (shape, dtype) in box[0].items():
                received = torch.empty(shape, dtype=dtype)
                dist.recv(received, src=rank)
                everything.setdefault(name, received)
        return everything

    def wait(self) -> None:
        """Agree on nothing, together."""
        self.any(False)

    def gathered(self, source: WindowSource) -> BatchSource:
        """Return a source that yields a group's part of each batch, of which every member decodes its own share."""
        return GatheredBatches(source, self.layout, self._group)


@contextmanager
def started(placement: Placement, local_ranks: int) -> Iterator[OneProcess | Processes]:
    """Join the run's other processes, if there are any, as torchrun's environment says; leave them at the end.

    On a CPU the machine's cores are shared out, unless OMP_NUM_THREADS says otherwise.
    """
    if placement.layout.ranks == 1:
        yield OneProcess()
        return
    if placement.device.type == "cuda":
        torch.cuda.set_device(placement.device)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores_each(local_ranks))
    dist.init_process_group("cpu:gloo,cuda:nccl" if placement.device.type == "cuda" else "gloo")
    yield Processes(placement)
    dist.destroy_process_group()  # not after an error: the others may be gone, and leaving would wait for them


def cores_each(local_ranks: int) -> int:
    """Return how many cores each of a machine's processes has to itself."""
    return max(1, len(os.sched_getaffinity(0)) // local_ranks)
