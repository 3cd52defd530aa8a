"""Collectives of a run's processes: `Ranks` for one process, where each does nothing, `Processes` for several.

Whoever trains, evaluates or saves calls these and need not know how many processes there are.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.nn.parallel import DistributedDataParallel

from alexnet.model.batches import BatchSource, CropSource, gathered_crops, gathered_labels
from alexnet.model.exchange import AcrossBatch, AcrossRanks, Exchange, SameDevice
from alexnet.model.networks.build import Network
from alexnet.model.networks.figures import class_range
from alexnet.model.networks.settings import NetSettings, architecture_of
from alexnet.model.optim import norm_of
from alexnet.model.owt import divide, whole_full_parameters
from alexnet.model.placement import Layout, Placement
from alexnet.shards.resources import usable_cores

Forward = Callable[[Tensor], Tensor]


class Ranks:
    """Join the processes of a run; of one process as it stands here, of several as `Processes` has it.

    Each method is called by all of them, in the same order.
    """

    layout = Layout()

    def exchange(self, settings: NetSettings) -> Exchange:
        """Return how this process's towers reach the others of its group."""
        return SameDevice()

    def divide(self, net: Network) -> None:
        """Leave of a network that was built whole, in place, what this process holds; before an optimizer takes it."""

    def forward(self, net: Network) -> Forward:
        """Return the forward pass to train with: after its backward, gradients are the mean over groups."""
        return net

    def batches(self, source: BatchSource) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rest of an epoch of a source that each process has its share of: what this one computes."""
        return iter(source)

    def weight(self, images: int, of: int) -> float:
        """Return what the mean loss of a group's images, out of `of` in all, weighs in that mean."""
        return 1.0

    def total(self, sums: Tensor) -> Tensor:
        """All-reduce: add up each group's sums."""
        return sums

    def add_up(self, gradient: Tensor) -> None:
        """All-reduce: add up what the groups have, in place."""

    def whole_norm(self, tensors: dict[str, Tensor]) -> Tensor:
        """Return the norm of the whole network's tensors, of which these, by parameter name, are held here."""
        return norm_of(tensors.values())

    def any(self, flag: bool) -> bool:
        """All-reduce: say whether any process's flag is up."""
        return flag

    def any_after(self, step: int, flag: bool) -> bool:
        """Say the same after a training step; of several processes on GPUs after each tenth, else no."""
        return flag

    def of_first(self, value: Any) -> Any:
        """Broadcast: return the value that the first process has."""
        return value

    def as_stored(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a checkpoint's tensors with what is a part of a whole tensor marked as such."""
        return tensors

    def group_for_a_thread(self) -> dist.ProcessGroup | None:
        """Return a group of all, on the CPU, that nothing else uses; None if there is one process."""
        return None

    def wait(self) -> None:
        """Barrier: wait for all ranks."""


class Processes(Ranks):
    """A run of several processes, joined by PyTorch's process groups.

    Networks cross devices over NCCL; flags, names and checkpoints are small or rare and go over gloo, from the CPU.
    """

    def __init__(self, placement: Placement) -> None:
        self.layout = layout = placement.layout
        self._device, self._batch_type = placement.device, placement.batch_type
        self.asked_every = 10 if placement.device.type == "cuda" else 1
        groups = [dist.new_group(list(layout.members(g))) for g in range(layout.groups)]
        peers = [dist.new_group(list(range(i, layout.ranks, layout.group_ranks))) for i in range(layout.group_ranks)]
        self._group = groups[layout.group]
        self._peers = peers[layout.rank % layout.group_ranks]
        self._divided: set[str] = set()

    def exchange(self, settings: NetSettings) -> Exchange:
        """One tower is here, or all; or all, with a part of the images."""
        if self.layout.group_ranks == 1:
            return SameDevice()
        if self.layout.owt:
            return AcrossBatch(self._group)
        towers = architecture_of(settings).towers
        return AcrossRanks(self._group, [len(class_range(settings.classes, towers, t)) for t in range(towers)])

    def divide(self, net: Network) -> None:
        """Cut fully connected layers, where they are divided; towers were built apart."""
        if self.layout.owt:
            self._divided = divide(net, self._group)
            self._mesh = DeviceMesh.from_group(self._group, "cpu")  # of copies, in checkpoints

    def forward(self, net: Network) -> Forward:
        """With one group the network's own; else PyTorch's data-parallel wrapper, which averages what is in replicas.

        Where each rank has a part of the images, what is not divided is a replica, and its gradients are added up.
        """
        if self.layout.owt:
            return self._adding_up(net)
        if self.layout.groups == 1:
            return net
        return self._replica(net, self._peers)

    def _adding_up(self, net: Network) -> Forward:
        for parameter in whole_full_parameters(net, self._divided):
            parameter.register_hook(lambda gradient: gradient / self.layout.ranks)  # of which every rank has all
        replica = self._replica(net, self._group)
        replica.register_comm_hook(self._group, _sum)
        return replica

    def _replica(self, net: Network, group: dist.ProcessGroup) -> DistributedDataParallel:
        """Wrap a network; no buffer is sent, as each rank has its own, such as the clock of its dropout."""
        apart = [*self._divided, *(name for name, _ in net.named_buffers())]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(net, apart)
        return DistributedDataParallel(net, process_group=group, gradient_as_bucket_view=True, init_sync=False)

    def batches(self, source: BatchSource) -> Iterator[tuple[Tensor, Tensor]]:
        """Gather what a group computes together, of which every member decodes its own share."""
        if self.layout.owt:
            return gathered_labels(source, self._group)
        if self.layout.group_ranks > 1:
            return gathered_crops(cast(CropSource, source), self.layout, self._group, self._batch_type)
        return iter(source)

    def weight(self, images: int, of: int) -> float:
        """Uneven parts count by their images."""
        return 1.0 if self.layout.groups == 1 else images * self.layout.groups / of

    def total(self, sums: Tensor) -> Tensor:
        """Add up over one rank of each group: within a group all have the same."""
        if self.layout.groups > 1:
            sums = sums.clone()
            dist.all_reduce(sums, group=self._peers)
        return sums

    def add_up(self, gradient: Tensor) -> None:
        """Over one rank of each group: those hold the same part of the network."""
        if self.layout.groups > 1:
            dist.all_reduce(gradient, group=self._peers)

    def whole_norm(self, tensors: dict[str, Tensor]) -> Tensor:
        """Add up the squares over what a group shares out; groups have equal tensors."""
        if self.layout.group_ranks == 1:
            return norm_of(tensors.values())
        shared = {name: tensor for name, tensor in tensors.items() if not self.layout.owt or name in self._divided}
        squares = norm_of(shared.values()).square()
        dist.all_reduce(squares, group=self._group)
        # In the order of the parameters: that of a set varies from process to process, and with it the last bits.
        alike = [tensor for name, tensor in tensors.items() if name not in shared]
        return (squares + norm_of(alike).square()).sqrt()

    def any(self, flag: bool) -> bool:
        """Reduce the flags on the CPU: no device waits."""
        raised = torch.tensor(int(flag))
        dist.all_reduce(raised, op=dist.ReduceOp.MAX)
        return bool(raised)

    def any_after(self, step: int, flag: bool) -> bool:
        """Ask seldom where steps are short: the CPU waits for all processes, and meanwhile launches nothing."""
        return step % self.asked_every == 0 and self.any(flag)

    def of_first(self, value: Any) -> Any:
        """Send it to all."""
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def as_stored(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Name what is a part; else towers have names of their own, and replicas equal values."""
        if not self._divided:
            return tensors
        parts = {name: name.partition(".")[2] in self._divided for name in tensors}
        return {
            name: DTensor.from_local(tensor, self._mesh, [Shard(0)], run_check=False) if parts[name] else tensor
            for name, tensor in tensors.items()
        }

    def group_for_a_thread(self) -> dist.ProcessGroup | None:
        """Make one: what two threads send over the same group may arrive at the wrong one."""
        group: dist.ProcessGroup = dist.new_group(backend="gloo")
        return group

    def wait(self) -> None:
        """Barrier: wait for all ranks."""
        self.any(False)


def _sum(group: dist.ProcessGroup, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """Add up a bucket of gradients, which the wrapper would have averaged."""
    work = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    added: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return added


@contextmanager
def started(placement: Placement, local_ranks: int) -> Iterator[Ranks]:
    """Join the run's other processes, if there are any, as torchrun's environment says; leave them at the end.

    On a CPU the machine's cores are shared out, unless OMP_NUM_THREADS says otherwise.
    """
    if placement.layout.ranks == 1:
        yield Ranks()
        return
    if placement.device.type == "cuda":
        torch.cuda.set_device(placement.device)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores_each(local_ranks))
    dist.init_process_group("cpu:gloo,cuda:nccl" if placement.device.type == "cuda" else "gloo")
    try:
        yield Processes(placement)
    except SystemExit:  # asked to stop, as all were; after an error they may be gone, and leaving would wait for them
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def is_lost_process(error: BaseException) -> bool:
    """Say whether an error is that another process of the run is gone: gloo has no class of errors for it."""
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def cores_each(local_ranks: int) -> int:
    """Return how many cores each of a machine's processes has to itself."""
    return max(1, usable_cores() // local_ranks)
