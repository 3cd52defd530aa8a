"""`Batch`, which plan, decoder and normalizing fill in turn, and the batches of a stream in order.

Making one reads no image: its JPEGs are read when a decoder takes it.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from alexnet.pipeline.plan import Planner
from alexnet.shards.errors import SampleError
from alexnet.shards.index import IndexRows
from alexnet.shards.reader import SplitReader

_NONE_YET = torch.empty(0)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Hold one rank's part of a global batch, one row an image that can be used; it may be empty.

    From the plan: `step_index`: which global batch, counted over all epochs. `sample_ids`: int64 (n,). `labels`: int64
    (n,). `crop_yx`: int32 (n, 2). `mirror`: bool (n,). `means`: float32 (n, 3), what is subtracted: the channels' mean
    minus the colour offset, or minus the offset alone where a mean image is subtracted, too. `scale`: float32 (3,),
    what is multiplied with. `rows`: where the JPEGs lie.

    From the decoder: `images`: crops, uint8 (n, H, W, 3), or if `normalized` what was asked for, (n, 3, H, W).
    `failures`: the samples that could not be used; they have no row. `ready`: on a GPU, the event after which the
    tensors may be read.
    """

    step_index: int
    sample_ids: npt.NDArray[np.int64]
    labels: torch.Tensor
    crop_yx: npt.NDArray[np.int32]
    mirror: npt.NDArray[np.bool_]
    means: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    rows: IndexRows
    reader: SplitReader = field(repr=False)
    images: torch.Tensor = _NONE_YET
    normalized: bool = False
    failures: tuple[SampleError, ...] = ()
    ready: "torch.cuda.Event | None" = None

    def __len__(self) -> int:
        return len(self.sample_ids)

    def select(self, keep: npt.NDArray[np.bool_]) -> "Batch":
        """Return the rows that are marked: bool (n,); before they are decoded."""
        return replace(
            self,
            sample_ids=self.sample_ids[keep],
            labels=self.labels[torch.from_numpy(keep)],
            crop_yx=self.crop_yx[keep],
            mirror=self.mirror[keep],
            means=self.means[keep],
            rows=self.rows[keep],
        )

    def without(self, failures: Sequence[SampleError]) -> "Batch":
        """Return the rows whose samples have not failed, and say of the others why."""
        if not failures:
            return self
        rest = self.select(~np.isin(self.sample_ids, [error.sample_id for error in failures]))
        return replace(rest, failures=(*self.failures, *failures))

    def read(self) -> tuple["Batch", list[npt.NDArray[np.uint8]]]:
        """Read the JPEGs: return the rows that could be read, and their bytes."""
        jpegs, failures = [], []
        for sample_id in self.sample_ids.tolist():
            try:
                jpegs.append(self.reader.jpeg(sample_id))
            except SampleError as error:
                failures.append(error.with_traceback(None))  # which would keep the arrays of this frame
        return self.without(failures), jpegs

    def errors(self, reasons: Sequence[str]) -> list[SampleError]:
        """Name the samples for which there is a reason why they cannot be used; `reasons`: one a row, or empty."""
        found = zip(self.sample_ids.tolist(), reasons, strict=True)
        return [self.reader.error(sample_id, reason) for sample_id, reason in found if reason]


def batches(reader: SplitReader, planner: Planner, first: int, *, whole: bool) -> Iterator[Batch]:
    """Make batches in order from a first one on, counted over all epochs; there is always a next one.

    `whole`: crops begin at the corner, for a decoder that is to yield whole images.
    Used on the prefetcher's thread; holds the reader and the planner but not the stream, so that a stream nobody uses
    any more can go.
    """
    normalization = planner.normalization(first // planner.steps)
    for step_index in itertools.count(first):
        epoch, step = divmod(step_index, planner.steps)
        if step == 0:
            normalization = planner.normalization(epoch)
        plan = planner.plan(epoch, step)
        yield Batch(
            step_index=step_index,
            sample_ids=plan.sample_ids,
            labels=torch.from_numpy(reader.labels[plan.sample_ids].astype(np.int64)),
            crop_yx=np.zeros_like(plan.crop_yx) if whole else plan.crop_yx,
            mirror=plan.mirror,
            means=normalization.means(plan.colour_offset),
            scale=normalization.scale,
            rows=reader.rows(plan.sample_ids),
            reader=reader,
        )
