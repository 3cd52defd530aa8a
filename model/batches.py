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
from alexnet.model.placement import BatchType, Layout


class BatchSource(Protocol):
    """Yield an epoch of (images, labels) each time it is iterated: of one rank where there are several.

    `images`: float32 or bfloat16, (n, 3, px, px), as the network takes them; see `Placement.batch_type`. `labels`:
    int64 (n,). Both on the device that trains.
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

    def finish_pass(self, output: BatchType) -> Callable[[Tensor, Tensor], Tensor]:
        """Return what finishes crops (n, px, px, 3) with their means."""


def gathered_crops(
    source: CropSource, layout: Layout, group: dist.ProcessGroup, output: BatchType
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a group's part of each global batch, finished: the same in every process of the group.

    Raises ValueError if the source does not yield crops.
    """
    epoch = step = -1
    for crops, labels in source:
        if crops.dtype != torch.uint8:
            raise ValueError(f"batches of {crops.dtype}: towers on several ranks gather crops; give output='uint8'")
        if epoch < 0:  # a source that was left in the middle of an epoch has gone on to the next by now
            state = source.state()
            epoch, step = divmod(state["epoch"] * len(source) + state["step"] - 1, len(source))
            finish = source.finish_pass(output)  # of this epoch: it may differ from the one before
        means = source.means_of(source.global_plan(epoch, step))
        members = layout.members(layout.group)
        sizes = [len(layout.part(len(means), rank)) for rank in members]
        gathered = torch.cat(of_all(crops.movedim(-3, -1), sizes, group))
        rows = layout.group_part(len(means))
        images = _finished(finish, gathered, means[rows.start : rows.stop])
        yield images, torch.cat(of_all(labels, sizes, group))
        step += 1


def gathered_labels(source: BatchSource, group: dist.ProcessGroup) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield this rank's images of each global batch, and the labels of all."""
    for images, labels in source:
        yield images, torch.cat(of_all(labels, row_counts(len(labels)), group))


def _finished(finish: Callable[[Tensor, Tensor], Tensor], crops: Tensor, means: Tensor) -> Tensor:
    """Finish crops, (n, px, px, 3), or views of each image, (n, views, px, px, 3)."""
    if crops.dim() == 4:
        return finish(crops, means)
    count, views = crops.shape[:2]
    images = finish(crops.flatten(0, 1), means.repeat_interleave(views, dim=0))
    return images.reshape(count, views, *images.shape[1:])
