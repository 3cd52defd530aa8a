"""How much memory a run takes: what a process holds now, and what a training step will need.

The need is not guessed from layer sizes but read off a step on tensors without memory: whatever autograd keeps for the
backward pass, in the types that autocast makes of it, is counted, storage by storage. It costs a second at most.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from alexnet.model.full_layers import divided_layers
from alexnet.model.networks.build import build_network, parameter_count
from alexnet.model.networks.settings import NetSettings, drawing_of
from alexnet.model.placement import Layout, Placement

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
    with torch.device("meta"):
        net = build_network(settings, layout.towers)
    divided = divided_layers(settings, layout.ranks) if layout.owt else []
    elsewhere = sum(
        parameter.numel() * (layout.ranks - 1) // layout.ranks
        for name in divided
        for module in net.weighted()[name]
        if module is not None
        for parameter in module.parameters()
    )
    return parameter_count(net) - elsewhere


def capacity(device: torch.device) -> int:
    """Return the bytes that this process can have on a device, those that it has included."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024 + resident_bytes()


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

    towers = placement.layout.towers
    with FakeTensorMode(), torch.enable_grad():
        net = build_network(settings, towers, None if towers is None else _OthersAlike(drawing_of(settings).towers))
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

    def hidden(self, parts: Sequence[Tensor]) -> list[Tensor]:
        return [torch.cat([*parts, *[torch.empty_like(parts[0])] * (self._towers - 1)], dim=1)]

    def rows(self, parts: list[Tensor]) -> list[Tensor]:
        return parts

    def logits(self, parts: Sequence[Tensor]) -> Tensor:
        return self.hidden(parts)[0]
