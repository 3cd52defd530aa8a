"""Batches of which every rank decodes its own share.

A rank's stream yields its part of the global batch as uint8 crops, a quarter of the bytes of finished ones. The ranks
that hold one network together gather theirs, and each finishes the whole: same pixels, on any number of ranks.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch.distributed as dist
from torch import Tensor

from alexnet.model.exchange import gather_rows
from alexnet.model.placement import Layout


class WindowSource(Protocol):
    """What a source must be able to do beyond a `BatchSource`: yield crops as they are, and finish them later."""

    @property
    def images(self) -> int:
        """Count the samples of the whole source."""

    def __len__(self) -> int:
        """Count an epoch's steps."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this rank's crops, uint8 (n, 3, px, px), and labels."""

    def seek(self, epoch: int, step: int) -> None:
        """Stand at a step of an epoch."""

    def state(self) -> dict[str, Any]:
        """Return where the source stands: `epoch` and `step` among it."""

    def resume(self, state: dict[str, Any]) -> None:
        """Stand where `state` was taken."""

    def close(self) -> None:
        """Stop threads."""

    def global_plan(self, epoch: int, step: int) -> Any:
        """Return what a global batch is made of."""

    def means_of(self, plan: Any) -> Tensor:
        """Return what is to be subtracted from each image of a plan: (n, 3)."""

    def finish_pass(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Return what finishes crops (n, px, px, 3) with their means."""


class GatheredBatches:
    """Yield a group's part of each global batch, finished. The same in every process of the group."""

    def __init__(self, source: WindowSource, layout: Layout, group: dist.ProcessGroup) -> None:
        self._source, self._layout, self._group = source, layout, group
        self._finish: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def images(self) -> int:
        """Count the samples of the whole source."""
        return self._source.images

    def __len__(self) -> int:
        """Count an epoch's steps."""
        return len(self._source)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rest of the current epoch."""
        self._finish = self._finish or self._source.finish_pass()
        epoch = step = -1
        for crops, labels in self._source:
            if epoch < 0:  # a source that was left in the middle of an epoch has gone on to the next by now
                state = self._source.state()
                epoch, step = state["epoch"], state["step"] - 1
            means = self._source.means_of(self._source.global_plan(epoch, step))
            members = self._layout.members(self._layout.group)
            sizes = [len(self._layout.part(len(means), rank)) for rank in members]
            windows = gather_rows(crops.movedim(1, -1), sizes, self._group)
            rows = self._layout.group_part(len(means))
            yield self._finish(windows, means[rows.start : rows.stop]), gather_rows(labels, sizes, self._group)
            step += 1

    def seek(self, epoch: int, step: int) -> None:
        """Stand at a step of an epoch."""
        self._source.seek(epoch, step)

    def state(self) -> dict[str, Any]:
        """Return where the source stands: the same on every rank."""
        return self._source.state()

    def resume(self, state: dict[str, Any]) -> None:
        """Stand where `state` was taken, on whatever number of ranks."""
        self._source.resume(state)

    def close(self) -> None:
        """Stop threads."""
        self._source.close()
