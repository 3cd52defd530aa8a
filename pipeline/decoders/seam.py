"""What the feed expects of a decoder: batches go in, in order, and come out, in order.

A decoder may yield finished tensors, or cut and mirrored uint8 windows which the finishing pass then turns into what
was asked for.
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from alexnet.pipeline.encoded import EncodedBatch, Failure
from alexnet.pipeline.finish import Finish
from alexnet.pipeline.settings import Output

DTYPES: dict[Output, torch.dtype] = {
    "uint8": torch.uint8,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True, kw_only=True)
class DecoderSettings:
    """Settle what a decoder yields and with what means.

    `max_images`: rows of the largest batch. `size_px`: side of the stored images. `window_px`: side of what is cut.
    `device_id`: GPU number, None for the CPU. `threads`: of the CPU. `depth`: batches in flight. `output`: what a
    finished tensor holds. `channels_last`: its memory is (n, H, W, 3) instead of (n, 3, H, W). `finish`: what is
    subtracted and multiplied. `windows_only`: yield uint8 windows, for the
    finishing pass to do the rest.
    """

    max_images: int
    size_px: int
    window_px: int
    device_id: int | None
    threads: int
    depth: int
    output: Output
    channels_last: bool
    finish: Finish
    windows_only: bool = False

    @property
    def device(self) -> torch.device:
        """Return where batches end up."""
        return torch.device("cpu") if self.device_id is None else torch.device("cuda", self.device_id)


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Hold what became of a batch: one row an image that could be used.

    `images`: either finished, (n, 3, H, W) of the dtype asked for, or windows, uint8 (n, H, W, 3). `batch`: the rows
    that were decoded; samples that failed are not among them.
    """

    images: torch.Tensor
    finished: bool
    batch: EncodedBatch
    failures: tuple[Failure, ...] = ()


class Decoder(Protocol):
    """Decode batches, each of at least one image, in the order in which they come."""

    @property
    def ahead(self) -> int:
        """How many batches it wants before the first result is taken, and keeps from then on."""

    @property
    def pinned_bytes(self) -> int:
        """How much host memory it pinned itself; DALI's own pools are not known."""

    def submit(self, batch: EncodedBatch) -> None:
        """Take a batch and, if possible, begin with it."""

    def result(self) -> Decoded:
        """Wait for the oldest batch that was submitted and not yet returned."""

    def close(self) -> None:
        """Give threads and memory back."""
