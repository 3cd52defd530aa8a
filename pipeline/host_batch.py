"""What a decoder backend is fed: a batch's plan joined with its samples' bytes.

This is the seam between the stream and a decoder: whoever can turn a HostBatch into tensors can be a backend.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet.pipeline.plan import Planner
from alexnet.shards.reader import SplitReader


@dataclass(frozen=True, kw_only=True)
class HostBatch:
    """Hold what the graph is fed for one batch, one entry an image.

    `jpegs`: uint8 views. `labels`: int64 (n,). `crop_yx`: int32 (n, 2). `mirror`: int32 (n,). `means`: float32
    (n, 3), the mean minus the colour offset.
    """

    jpegs: list[npt.NDArray[np.uint8]]
    labels: npt.NDArray[np.int64]
    crop_yx: npt.NDArray[np.int32]
    mirror: npt.NDArray[np.int32]
    means: npt.NDArray[np.float32]

    def inputs(self) -> tuple[Any, ...]:
        """Return the graph's inputs in order."""
        return self.jpegs, self.labels, self.crop_yx, self.mirror, self.means


class HostBatches:
    """Make the i-th batch counted from a first step, running on through the epochs.

    Called on the feed's thread; holds the reader and the planner but not the stream, so that a stream nobody uses any
    more can go.
    """

    def __init__(self, reader: SplitReader, planner: Planner, first: int) -> None:
        self._reader, self._planner, self._first = reader, planner, first
        self._mean = np.array(reader.manifest.colour.mean, np.float32)

    def __call__(self, iteration: int) -> HostBatch:
        """Return batch `first + iteration`, counted over all epochs."""
        plan = self._planner.plan(*divmod(self._first + iteration, self._planner.steps))
        return HostBatch(
            jpegs=[self._reader.jpeg(i) for i in plan.sample_ids.tolist()],
            labels=self._reader.labels[plan.sample_ids].astype(np.int64),
            crop_yx=plan.crop_yx,
            mirror=plan.mirror.astype(np.int32),
            means=self._mean - plan.colour_offset,
        )
