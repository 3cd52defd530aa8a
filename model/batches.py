"""What the trainer needs of a source of batches. The stream fits it without knowing."""

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor


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
