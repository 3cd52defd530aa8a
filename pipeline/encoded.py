"""Batches before decoding: a plan joined with its samples' labels and the places of their bytes.

Making one reads no image, so batches can be made far ahead, for a decoder to work on and for storage to be told what
is wanted next.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.finish import Finish
from alexnet.pipeline.plan import Planner
from alexnet.shards.errors import SampleError
from alexnet.shards.index import IndexRows
from alexnet.shards.reader import SplitReader


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Say which sample could not be used, and why; the message names its shard."""

    sample_id: int
    message: str


@dataclass(frozen=True, kw_only=True)
class EncodedBatch:
    """Hold one rank's part of a global batch, one row an image; it may be empty.

    `step_index`: which global batch, counted over all epochs. `sample_ids`, `labels`: int64 (n,). `crop_yx`: int32
    (n, 2). `mirror`: bool (n,). `means`: float32 (n, 3), what is subtracted: the channels' mean minus the colour
    offset, or minus the offset alone where a mean image is subtracted, too. `rows`: where the JPEGs lie.
    """

    step_index: int
    sample_ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    crop_yx: npt.NDArray[np.int32]
    mirror: npt.NDArray[np.bool_]
    means: npt.NDArray[np.float32]
    rows: IndexRows
    reader: SplitReader

    def __len__(self) -> int:
        return len(self.sample_ids)

    def select(self, keep: npt.NDArray[np.bool_]) -> "EncodedBatch":
        """Return the rows that are marked: bool (n,)."""
        return EncodedBatch(
            step_index=self.step_index,
            sample_ids=self.sample_ids[keep],
            labels=self.labels[keep],
            crop_yx=self.crop_yx[keep],
            mirror=self.mirror[keep],
            means=self.means[keep],
            rows=self.rows[keep],
            reader=self.reader,
        )

    def one(self, row: int) -> "EncodedBatch":
        """Return one row."""
        return self.select(np.arange(len(self)) == row)

    def without(self, failures: Collection[Failure]) -> "EncodedBatch":
        """Return the rows whose samples have not failed."""
        if not failures:
            return self
        return self.select(~np.isin(self.sample_ids, [failure.sample_id for failure in failures]))

    def read(self) -> tuple[list[npt.NDArray[np.uint8]], list[Failure]]:
        """Read the JPEGs: those that could be read, and which could not."""
        jpegs, failures = [], []
        for sample_id in self.sample_ids.tolist():
            try:
                jpegs.append(self.reader.jpeg(sample_id))
            except SampleError as error:
                failures.append(Failure(sample_id=sample_id, message=str(error)))
        return jpegs, failures

    def failure(self, sample_id: int, reason: str) -> Failure:
        """Name a sample of this batch that cannot be used, and why."""
        return Failure(sample_id=sample_id, message=str(self.reader.error(sample_id, reason)))


def image_means(finish: Finish, colour_offset: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return what is subtracted from each image, the common mean image apart: float32 (n, 3), RGB."""
    mean = finish.mean if finish.mean.ndim == 1 else np.zeros(3, np.float32)
    means: npt.NDArray[np.float32] = mean - colour_offset
    return means


def concatenated(batches: Sequence[EncodedBatch]) -> EncodedBatch:
    """Join batches into one, for a decoder that is quicker with many images at a time."""
    if len(batches) == 1:
        return batches[0]
    return EncodedBatch(
        step_index=batches[0].step_index,
        sample_ids=np.concatenate([b.sample_ids for b in batches]),
        labels=np.concatenate([b.labels for b in batches]),
        crop_yx=np.concatenate([b.crop_yx for b in batches]),
        mirror=np.concatenate([b.mirror for b in batches]),
        means=np.concatenate([b.means for b in batches]),
        rows=np.concatenate([b.rows for b in batches]),
        reader=batches[0].reader,
    )


class EncodedBatches:
    """Make batches in order from a first one on, running on through the epochs.

    `whole`: windows begin at the corner, for a decoder that is to yield whole images.
    Used on the feed's thread; holds the reader and the planner but not the stream, so that a stream nobody uses any
    more can go.
    """

    def __init__(
        self, reader: SplitReader, planner: Planner, finish: Finish, first: int, *, whole: bool = False
    ) -> None:
        self._reader, self._planner, self._finish = reader, planner, finish
        self._next, self._whole = first, whole

    def __iter__(self) -> Iterator[EncodedBatch]:
        return self

    def __next__(self) -> EncodedBatch:
        """Return the next batch; there is always one."""
        batch = self.batch(self._next)
        self._next += 1
        return batch

    def batch(self, step_index: int) -> EncodedBatch:
        """Return a batch by its number, counted over all epochs."""
        plan = self._planner.plan(*divmod(step_index, self._planner.steps))
        return EncodedBatch(
            step_index=step_index,
            sample_ids=plan.sample_ids,
            labels=self._reader.labels[plan.sample_ids].astype(np.int64),
            crop_yx=np.zeros_like(plan.crop_yx) if self._whole else plan.crop_yx,
            mirror=plan.mirror,
            means=image_means(self._finish, plan.colour_offset),
            rows=self._reader.rows(plan.sample_ids),
            reader=self._reader,
        )
