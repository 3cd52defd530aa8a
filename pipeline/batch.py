"""What a decoder is (`Decoder`), what it is told (`DecodeSettings`), and what goes in and comes out (`Batch`).

A decoder knows nothing of order, epochs or ranks. It yields normalized tensors, or cut and mirrored uint8 crops, which
`normalize_torch.py` then turns into what was asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.augment import BatchPlan
from alexnet.pipeline.normalize import Normalization
from alexnet.pipeline.read_ahead import IsHeld
from alexnet.pipeline.settings import Output, Resident
from alexnet.shards.errors import SampleError
from alexnet.shards.manifest import Encoding
from alexnet.shards.reader import SplitReader


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """Settle what a decoder yields and with what means.

    `decode`: its name, by `decoder_named`. `device_id`: GPU number, None for the CPU. `threads`: of the CPU. `depth`:
    batches in flight. `max_images`: rows of the largest batch. `encoding`, `size_px`: of the stored images. `crop_px`:
    side of what is cut from them. `crops_only`: leave crops as they are, uint8. `views_px`: side of the ten views that
    are then cut from each crop, or None. `output`: what a finished tensor holds. `channels_last`: its memory is (n, H,
    W, 3) instead of (n, 3, H, W). `mean_image`: whether one is subtracted, besides each image's own mean. `resident`:
    whether a GPU keeps the planes of the split's `images`; what else runs there needs `reserve_bytes` of it.
    """

    decode: str
    device_id: int | None
    threads: int
    depth: int
    max_images: int
    encoding: Encoding
    size_px: int
    crop_px: int
    crops_only: bool
    views_px: int | None
    output: Output
    channels_last: bool
    mean_image: bool
    resident: Resident
    images: int
    reserve_bytes: int = 0

    @property
    def device(self) -> str:
        """Return where batches end up, as torch names it."""
        return "cpu" if self.device_id is None else f"cuda:{self.device_id}"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Hold one rank's part of a global batch, one row an image that can be used; it may be empty.

    `step_index`: which global batch, counted over all epochs. `plan`: what the images are and what becomes of them.
    `normalization`: that of the epoch. `reader`: where the JPEGs lie.

    From the decoder: `images`: a tensor of uint8 crops, (n, H, W, 3), or if `normalized` of what was asked for,
    (n, 3, H, W). `failures`: the samples that could not be used; they have no row. At last `labels`: int64 (n,), and on
    a GPU `ready`: the event after which the tensors may be read.
    """

    step_index: int
    plan: BatchPlan
    normalization: Normalization
    reader: SplitReader = field(repr=False)
    images: Any = None
    normalized: bool = False
    failures: tuple[SampleError, ...] = ()
    labels: Any = None
    ready: Any = None

    def __len__(self) -> int:
        return len(self.plan.sample_ids)

    @property
    def means(self) -> npt.NDArray[np.float32]:
        """Return what is subtracted from each image besides a mean image: float32 (n, 3)."""
        return self.normalization.means(self.plan.colour_offset)

    def select(self, keep: npt.NDArray[np.bool_]) -> Self:
        """Return the rows that are marked: bool (n,); before they are decoded."""
        return replace(self, plan=self.plan.select(keep))

    def without(self, failures: Sequence[SampleError]) -> Self:
        """Return the rows whose samples have not failed, and say of the others why."""
        if not failures:
            return self
        rest = self.select(~np.isin(self.plan.sample_ids, [error.sample_id for error in failures]))
        return replace(rest, failures=(*self.failures, *failures))

    def without_rows(self, reasons: Mapping[int, str]) -> Self:
        """Return the other rows than those for which there is a reason why they cannot be used."""
        ids = self.plan.sample_ids
        return self.without([self.reader.error(int(ids[row]), reason) for row, reason in reasons.items()])


class Decoder(Protocol):
    """Decode batches, each of at least one image, in the order in which they come."""

    @property
    def ahead(self) -> int:
        """How many batches it wants before the first result is taken, and keeps from then on."""

    @property
    def pinned_bytes(self) -> int:
        """How much host memory it pinned itself; DALI's own pools are not known."""

    @property
    def is_held(self) -> IsHeld | None:
        """What says of samples whether they are kept, so that they need no reading; None where nothing is."""

    def submit(self, batch: Batch) -> Callable[[], Batch]:
        """Take a batch and, if possible, begin with it; return what waits for it, to be called in that order.

        What it gives is those rows that could be decoded, with `images`.
        """

    def close(self) -> None:
        """Give threads and memory back."""
