"""What the trainer needs of a source of batches, and batches of which every rank decodes its own share.

`pipeline.ImageStream` is a `BatchSource`. With several ranks, each one's stream yields its part of the global batch as
uint8 crops, a quarter of the bytes of normalized ones. The ranks that hold one network together all-gather theirs,
and each normalizes the whole: same pixels, on any number of ranks.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from alexnet.model.exchange import of_all, row_counts
from alexnet.model.placement import Layout


class BatchSource(Protocol):
    """Yield an epoch of (images, labels) each time it is iterated.

    `images`: float32 (n, 3, px, px), as the network takes them. `labels`: int64 (n,). Both on the device that trains.
    """

    @property
    def images(self) -> int:
        """Count the samples of the whole source."""

    def __len__(self) -> int:
        """Count an epoch's steps."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rest of the current epoch."""

    def seek(self, epoch: int, step: int) -> None:
        """Stand at a step of an epoch."""

    def state(self) -> dict[str, Any]:
        """Return where the source stands: once an epoch's last batch is out, at the start of the next."""

    def resume(self, state: dict[str, Any]) -> None:
        """Stand where `state` was taken."""

    def close(self) -> None:
        """Stop threads; it can be iterated again."""


class CropSource(BatchSource, Protocol):
    """A source that can also yield crops as they are, to be finished later.

    It then yields this rank's crops, uint8 (n, 3, px, px) or with views (n, views, 3, px, px), and labels; `epoch` and
    `step` are in its state.
    """

    def global_plan(self, epoch: int, step: int) -> Any:
        """Return what a global batch is made of."""

    def means_of(self, plan: Any) -> Tensor:
        """Return what is to be subtracted from each image of a plan: (n, 3)."""

    def finish_pass(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Return what finishes crops (n, px, px, 3) with their means."""


class _Gathered:
    """Pass on to the source what gathering does not change: its length, and where it stands on every rank."""

    def __init__(self, source: BatchSource, group: dist.ProcessGroup) -> None:
        self._source, self._group = source, group

    @property
    def images(self) -> int:
        """Count the samples of the whole source."""
        return self._source.images

    def __len__(self) -> int:
        """Count an epoch's steps."""
        return len(self._source)

    def seek(self, epoch: int, step: int) -> None:
        """Stand at a step of an epoch."""
        self._source.seek(epoch, step)

    def state(self) -> dict[str, Any]:
        """Return where the source stands."""
        return self._source.state()

    def resume(self, state: dict[str, Any]) -> None:
        """Stand where `state` was taken, on whatever number of ranks."""
        self._source.resume(state)

    def close(self) -> None:
        """Stop threads."""
        self._source.close()


class GatheredBatches(_Gathered):
    """Yield a group's part of each global batch, finished. The same in every process of the group."""

    def __init__(self, source: CropSource, layout: Layout, group: dist.ProcessGroup) -> None:
        super().__init__(source, group)
        self._crops, self._layout = source, layout

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rest of the current epoch."""
        epoch = step = -1
        for crops, labels in self._crops:
            if epoch < 0:  # a source that was left in the middle of an epoch has gone on to the next by now
                state = self._crops.state()
                epoch, step = divmod(state["epoch"] * len(self) + state["step"] - 1, len(self))
                finish = self._crops.finish_pass()  # of this epoch: it may differ from the one before
            means = self._crops.means_of(self._crops.global_plan(epoch, step))
            members = self._layout.members(self._layout.group)
            sizes = [len(self._layout.part(len(means), rank)) for rank in members]
            gathered = torch.cat(of_all(crops.movedim(-3, -1), sizes, self._group))
            rows = self._layout.group_part(len(means))
            images = _finished(finish, gathered, means[rows.start : rows.stop])
            yield images, torch.cat(of_all(labels, sizes, self._group))
            step += 1


class GatheredLabels(_Gathered):
    """Yield this rank's images of each global batch, and the labels of all."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rest of the current epoch."""
        for images, labels in self._source:
            yield images, torch.cat(of_all(labels, row_counts(len(labels)), self._group))


def _finished(finish: Callable[[Tensor, Tensor], Tensor], crops: Tensor, means: Tensor) -> Tensor:
    """Finish crops, (n, px, px, 3), or views of each image, (n, views, px, px, 3)."""
    if crops.dim() == 4:
        return finish(crops, means)
    count, views = crops.shape[:2]
    images = finish(crops.flatten(0, 1), means.repeat_interleave(views, dim=0))
    return images.reshape(count, views, *images.shape[1:])
