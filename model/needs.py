"""What a run needs: memory for each process, and bytes that each sends in a training step.

Memory is not guessed from layer sizes but read off a step on tensors without memory: whatever autograd keeps for the
backward pass, in the types that autocast makes of it, is counted, storage by storage. It costs a second at most.
Bytes are counted from the architecture.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from alexnet.model.networks.architecture import AllGather, Full, weighted_names
from alexnet.model.networks.build import Network
from alexnet.model.networks.figures import class_range, figures, trace
from alexnet.model.networks.settings import NetSettings, architecture_of
from alexnet.model.owt import divided_layers
from alexnet.model.placement import Layout, Placement
from alexnet.shards.resources import available_memory

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_FLOAT_BYTES = 4
_BEYOND_KEPT = 1.5
"""What an image takes at a step's peak, over what is kept of it: gradients of values, and workspaces, come on top. The
2012 network's peak on a CPU, of 40 images against 8: 1.20 times what is kept in bf16 (7.0 MB), 1.45 in fp32 (13.1)."""
_NO_MEMORY = ("DefaultCPUAllocator", "STATUS_ALLOC_FAILED", "CUDA error: out of memory")
"""What PyTorch's errors say that are of no class of their own: on a CPU; in cuBLAS and cuDNN; in the driver."""
_USABLE = 0.9
"""The share of a device's memory that is left after its driver, its libraries and fragmentation took theirs."""


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Hold the bytes that one process needs.

    `parameters`: of those held here; gradients and momentum take as much each. `copies`: kept once a step, whatever the
    batch, such as weights in bf16. `image`: kept for the backward pass, an image.
    """

    parameters: int
    copies: int
    image: int

    def of_step(self, images: int) -> int:
        """Return what is kept at the end of a forward pass over so many images."""
        return 3 * self.parameters + self.copies + images * self.image

    def capacity_for(self, images: int) -> int:
        """Return the bytes of a device on which a step of so many images fits at its peak."""
        return int((3 * self.parameters + self.copies + _BEYOND_KEPT * images * self.image) / _USABLE) + 1

    def images_in(self, capacity_bytes: int) -> int:
        """Return how many images fit at the peak of a step; none if the network alone does not."""
        left = _USABLE * capacity_bytes - 3 * self.parameters - self.copies
        return max(0, int(left / (_BEYOND_KEPT * self.image)))


def memory_need(settings: NetSettings, placement: Placement, crop_px: int) -> MemoryNeed:
    """Return what one process of a layout needs to train a network on crops of a size."""
    two, four = (_kept(settings, placement, crop_px, images) for images in (2, 4))
    image = (four - two) // 2
    parameters = held_parameters(settings, placement.layout) * _FLOAT_BYTES
    return MemoryNeed(parameters=parameters, copies=two - 2 * image, image=image)


def held_parameters(settings: NetSettings, layout: Layout) -> int:
    """Count the parameters that one process of a layout holds."""
    divided = divided_layers(settings, layout.ranks) if layout.owt else []
    rows = figures(settings, towers=layout.towers)
    return sum(row.parameters // (layout.ranks if row.name in divided else 1) for row in rows)


def capacity(device: torch.device) -> int:
    """Return the bytes that this process can have on a device, those that it has included."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return available_memory() + resident_bytes()


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that an allocation failed, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def memory_in_use(device: torch.device) -> Callable[[], int]:
    """Return what says how much memory a run takes: a GPU's at its peak so far, else the process's resident now."""
    return partial(torch.cuda.max_memory_allocated, device) if device.type == "cuda" else resident_bytes


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def _kept(settings: NetSettings, placement: Placement, crop_px: int, images: int) -> int:
    """Return the bytes kept by a forward pass, parameters apart."""
    kept: dict[int, torch.UntypedStorage] = {}  # the storages, too: an address must not be used twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    towers, exchange = placement.layout.towers, _OthersAlike(architecture_of(settings).towers)
    with FakeTensorMode(), torch.enable_grad():
        net = Network(settings, towers, None if towers is None else exchange)
        own = {value.untyped_storage()._cdata for value in (*net.parameters(), *net.buffers())}
        batch = torch.empty(images, 3, crop_px, crop_px).contiguous(memory_format=torch.channels_last)
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=placement.bf16)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
            F.cross_entropy(net.train()(batch).float(), torch.zeros(images, dtype=torch.int64))
    return sum(storage.nbytes() for address, storage in kept.items() if address not in own)


class _OthersAlike:
    """Stand in for the exchange between processes: the other towers give tensors of the same size as this one's."""

    def __init__(self, towers: int) -> None:
        self._towers = towers

    def all_gather(self, parts: Sequence[Tensor]) -> list[Tensor]:
        return [torch.cat([*parts, *[torch.empty_like(parts[0])] * (self._towers - 1)], dim=1)]

    def all_rows(self, parts: list[Tensor]) -> list[Tensor]:
        return parts

    def all_scores(self, parts: Sequence[Tensor]) -> Tensor:
        return self.all_gather(parts)[0]


_LABEL_BYTES = 8
_GRADIENT_BYTES = 4


def traffic(settings: NetSettings, placement: Placement, *, batch_images: int, crop_px: int) -> dict[str, int]:
    """Count the bytes that the first process sends in a step, by what they are.

    `towers` or `units`: values of layers that others read, and their gradients. `images`: crops and labels that others
    decode, too. `gradients`: of replicas, as a ring adds them up.
    """
    layout, value_bytes = placement.layout, 2 if placement.bf16 else 4
    others, part = layout.group_ranks - 1, len(layout.part(batch_images, layout.rank))
    if layout.owt:
        divided = divided_layers(settings, layout.ranks)
        replicated = sum(row.parameters for row in figures(settings) if row.name not in divided)
        return {
            "units": _units(settings, layout, part, batch_images) * value_bytes * others,
            "images": part * _LABEL_BYTES * others,
            "gradients": 2 * others * replicated * _GRADIENT_BYTES // layout.ranks,
        }
    met = sum(prod(place.reads) for place in trace(settings) if isinstance(place.layer, AllGather))
    scores = len(class_range(settings.classes, architecture_of(settings).towers, 0))
    values = (2 * met + scores) * len(layout.group_part(batch_images))  # forwards and backwards; scores forwards only
    parameters = held_parameters(settings, layout)
    return {
        "towers": values * value_bytes * others,
        "images": part * (3 * crop_px**2 + _LABEL_BYTES) * others,
        "gradients": 2 * (layout.groups - 1) * parameters * _GRADIENT_BYTES // layout.groups,
    }


def describe_layout(settings: NetSettings, placement: Placement, *, batch_images: int, crop_px: int) -> str:
    """Say who holds what and what a step sends, in one line."""
    layout = placement.layout
    if layout.ranks == 1:
        towers = architecture_of(settings).towers
        return f"one process holds {'the network' if towers == 1 else f'{towers} towers'}"
    backend = "NCCL" if placement.device.type == "cuda" else "gloo"
    sent = traffic(settings, placement, batch_images=batch_images, crop_px=crop_px)
    parts = ", ".join(f"{name} {count / 1e6:,.1f} MB" for name, count in sent.items() if round(count / 1e6, 1))
    return (
        f"{layout.ranks} processes over {backend}; {_holders(settings, layout)}; "
        f"each sends {sum(sent.values()) / 1e6:,.1f} MB a step{f' ({parts})' if parts else ''}"
    )


def _units(settings: NetSettings, layout: Layout, part: int, batch_images: int) -> int:
    """Count the values that a rank sends to each other one where fully connected layers are divided.

    The maps of its images, there and, as gradients, back; of every divided layer its units for the whole batch, there
    and back; back not of the last one.
    """
    divided, towers = divided_layers(settings, layout.ranks), architecture_of(settings).towers
    full = [place for place in trace(settings) if isinstance(place.layer, Full)]
    units = [towers * place.gives[0] // layout.ranks for place in full if place.name in divided]
    return 2 * part * prod(full[0].reads) + batch_images * (2 * sum(units) - units[-1])


def _holders(settings: NetSettings, layout: Layout) -> str:
    weighted = weighted_names(architecture_of(settings))
    if layout.owt:
        divided = divided_layers(settings, layout.ranks)
        whole = [name for name in weighted if name not in divided]
        return (
            f"each convolves 1/{layout.ranks} of a batch with all of {', '.join(whole)} and has 1/{layout.ranks} of "
            f"the units of {', '.join(divided)} for the whole batch"
        )
    if layout.group_ranks == 1:
        return f"each holds the whole network and computes 1/{layout.groups} of a batch"
    share = f"1/{layout.group_ranks} of {weighted[0]} to {weighted[-1]}"
    meetings = ", ".join(row.name for row in figures(settings) if row.reads == "both")
    holders = []
    for tower in range(layout.group_ranks):
        ranks = [layout.members(group)[tower] for group in range(layout.groups)]
        holders.append(f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))} tower {tower + 1}")
    batch = f", each pair 1/{layout.groups} of a batch" if layout.groups > 1 else ""
    return f"{', '.join(holders)} ({share}, meeting at {meetings}){batch}"
