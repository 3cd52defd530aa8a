"""What a verification comes to: the findings, and how much was looked at."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alexnet.shards.colour import ColourSums
from alexnet.shards.manifest import SPLITS, Split
from alexnet.shards.verify.colour import ColourCheck
from alexnet.shards.verify.findings import Finding
from alexnet.shards.verify.shard import ShardOutcome


@dataclass(frozen=True, kw_only=True)
class Report:
    """Hold what a verification found and how much it looked at.

    `files`, `bytes`: read and hashed. `shards`: tars among them. `images`: in the tars, by split. `class_images`: the
    fewest and the most images that a class has, by split. `decoded`: images whose pixels were looked at. `digests`:
    sha256 of the manifest and of SHA256SUMS, where they are there. `colour`: None if pixels were not compared.
    """

    findings: tuple[Finding, ...]
    files: int
    bytes: int
    shards: int
    images: dict[str, int]
    class_images: dict[str, tuple[int, int]]
    decoded: int
    digests: dict[str, str]
    colour: ColourCheck | None
    seconds: float

    @property
    def passed(self) -> bool:
        """Say whether all is well."""
        return not self.findings


class Totals:
    """Add up what shards hold, one at a time: their colour sums are large, and nothing else of them is kept."""

    def __init__(self, classes: int, size_px: int) -> None:
        self.shards = self.decoded = self.dc_step = 0
        self.images: dict[Split, int] = dict.fromkeys(SPLITS, 0)
        self.class_images: dict[Split, npt.NDArray[np.int64]] = {s: np.zeros(classes, np.int64) for s in SPLITS}
        self.colour = ColourSums(size_px)

    def add(self, outcome: ShardOutcome) -> None:
        """Add one shard."""
        self.shards += 1
        self.decoded += outcome.decoded
        self.images[outcome.split] += outcome.images
        self.class_images[outcome.split] += outcome.class_images
        if outcome.colour is not None:
            self.colour.merge(ColourSums.from_arrays(outcome.colour))
            self.dc_step = max(self.dc_step, outcome.dc_step)
