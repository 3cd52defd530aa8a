"""How towers see each other. A few places in a network need all towers' values; this is what they call.

Two ways, one contract: towers that live in one process, and towers that live one in a process each. What goes over the
wire has the type that the next layer computes in, and the memory format that it reads.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
import torch.nn.functional as F
from torch import Tensor

# Renamed in PyTorch 2.13; the old name warns there.
_with_backward = getattr(collectives, "all_gather_single_autograd", None) or collectives.all_gather_tensor_autograd
_forward_only = getattr(collectives, "all_gather_single", None) or collectives.all_gather_tensor


class Exchange(Protocol):
    """Join values along dimension 1, in tower order."""

    def hidden(self, parts: list[Tensor]) -> list[Tensor]:
        """Return, for each local tower, the values of all towers."""

    def rows(self, parts: list[Tensor]) -> list[Tensor]:
        """Return, for each local tower, the maps of all images that the fully connected layers are to see."""

    def logits(self, parts: list[Tensor]) -> Tensor:
        """Return the class scores of all towers: (n, classes)."""


class SameDevice:
    """Join towers that live in one process on one device: every tower reads the same concatenation."""

    def hidden(self, parts: list[Tensor]) -> list[Tensor]:
        """Concatenate once and share."""
        return [torch.cat([as_computed(part) for part in parts], dim=1)] * len(parts)

    def rows(self, parts: list[Tensor]) -> list[Tensor]:
        """All are here."""
        return parts

    def logits(self, parts: list[Tensor]) -> Tensor:
        """Concatenate the towers' classes."""
        return torch.cat(parts, dim=1)


class AcrossRanks:
    """Join towers that live one in a process each, in the order of the ranks of `group`.

    `classes`: how many classes each tower scores.
    """

    def __init__(self, group: dist.ProcessGroup, classes: Sequence[int]) -> None:
        self._group, self._classes = group, tuple(classes)
        self._rank, self._ranks = dist.get_rank(group), dist.get_world_size(group)

    def hidden(self, parts: list[Tensor]) -> list[Tensor]:
        """Gather; backwards, each tower receives the sum of what all towers make of its values."""
        (own,) = parts
        own = as_computed(own)
        # Ranks are gathered along the first dimension of the memory as it lies, so that nothing is moved about in it.
        channels_last = own.dim() == 4 and own.is_contiguous(memory_format=torch.channels_last)
        gathered = _with_backward((own.movedim(1, -1) if channels_last else own).contiguous(), 0, self._group)
        towers = gathered.chunk(self._ranks)
        return [torch.cat([tower.movedim(-1, 1) if channels_last else tower for tower in towers], dim=1)]

    def rows(self, parts: list[Tensor]) -> list[Tensor]:
        """Every tower has seen every image."""
        return parts

    def logits(self, parts: list[Tensor]) -> Tensor:
        """Gather; backwards, each tower takes the gradient of its own classes.

        Every rank computes the same loss from the same scores. Summing its gradient over ranks, as `hidden` does, would
        make it as many times too large as there are ranks.
        """
        (own,) = parts
        padded = F.pad(own.detach(), (0, max(self._classes) - own.shape[1]))
        towers = _forward_only(padded.contiguous(), 0, self._group).chunk(self._ranks)
        whole = [tower[:, :classes] for tower, classes in zip(towers, self._classes, strict=True)]
        whole[self._rank] = own
        return torch.cat(whole, dim=1)


class AcrossBatch(SameDevice):
    """Join the parts of a batch, of which each rank of `group` has convolved its own, with all towers."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group

    def rows(self, parts: list[Tensor]) -> list[Tensor]:
        """Gather; backwards, each part receives the sum of what all ranks make of its values.

        Towers that have met read one and the same tensor, which travels once.
        """
        sizes = row_counts(len(parts[0]))
        whole = {id(part): part for part in parts}
        for key, part in whole.items():
            lying = as_computed(part).movedim(1, -1)  # as channels-last memory lies, so that nothing is moved about
            whole[key] = gather_rows(lying, sizes, self._group, backward=True).movedim(-1, 1)
        return [whole[id(part)] for part in parts]


def as_computed(values: Tensor) -> Tensor:
    """Return values in the type that autocast would give them in the next layer, so that half the bytes travel."""
    kind = values.device.type
    computes = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # not on `meta`
    return values.to(torch.get_autocast_dtype(kind)) if computes else values


def row_counts(rows: int) -> list[int]:
    """Return how many rows each process has. The counts go from CPU to CPU: no device waits."""
    counts = torch.empty(dist.get_world_size(), dtype=torch.int64)
    dist.all_gather_into_tensor(counts, torch.tensor([rows]))
    return [int(count) for count in counts]


def gather_rows(rows: Tensor, sizes: Sequence[int], group: dist.ProcessGroup, *, backward: bool = False) -> Tensor:
    """Gather every rank's rows, one rank's after the other's. `sizes`: rows of each rank; they may differ.

    `backward`: pass gradients back, each rank receiving the sum over all ranks.
    """
    short = max(sizes) - len(rows)
    padded = torch.cat([rows, rows.new_zeros(short, *rows.shape[1:])]) if short else rows.contiguous()
    ranks = (_with_backward if backward else _forward_only)(padded, 0, group).chunk(len(sizes))
    return torch.cat([part[:size] for part, size in zip(ranks, sizes, strict=True)])
