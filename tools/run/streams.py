"""The batch sources of a run: which part of each batch this process decodes, and how the parts come together."""

from pathlib import Path
from typing import Literal

from alexnet.model.batches import BatchSource
from alexnet.model.placement import Placement
from alexnet.model.ranks import OneProcess, Processes, Ranks, cores_each
from alexnet.pipeline import ImageStream
from alexnet.shards.manifest import Manifest, Split
from alexnet.tools.run.settings import RunSettings


class Streams:
    """Make the run's batch sources: training, validation, and training images as evaluation sees them.

    Every process decodes its own share of each global batch, whatever it holds of the network. Where several hold it
    together, their streams yield crops as they are, and the crops are gathered before they are finished.
    """

    def __init__(
        self,
        data: Path,
        settings: RunSettings,
        placement: Placement,
        ranks: Ranks | None = None,
        local_ranks: int = 1,
    ) -> None:
        self._data, self._settings, self._placement = data, settings, placement
        self._ranks, self._local_ranks = ranks or OneProcess(), local_ranks
        self._first = self._stream("train", augment=True)
        self.train = self._source(self._first)
        self.validation = self.validation_of(settings.train.views)

    def validation_of(self, views: Literal[1, 10]) -> BatchSource:
        """Return the validation images, so many views of each."""
        return self._source(self._stream("val", augment=False, views=views))

    def train_as_evaluated(self) -> BatchSource:
        """Return the training images without augmentation, each once."""
        return self._source(self._stream("train", augment=False))

    def describe(self, manifest: Manifest) -> str:
        """Say how much data there is."""
        return (
            f"{len(manifest.classes):,} classes, {self.train.images:,} training and {self.validation.images:,} "
            f"validation images of {manifest.size_px} px"
        )

    def lines(self) -> list[str]:
        """Say what the training stream yields and how."""
        return self._first.describe()

    def close(self) -> None:
        """Stop the threads of training and validation."""
        self.train.close()
        self.validation.close()

    def _source(self, stream: ImageStream) -> BatchSource:
        return self._ranks.gathered(stream) if isinstance(self._ranks, Processes) and self._gathers else stream

    @property
    def _gathers(self) -> bool:
        return self._placement.layout.group_ranks > 1

    def _stream(self, split: Split, *, augment: bool, views: Literal[1, 10] = 1) -> ImageStream:
        """Make a stream. With ten views its batches have a tenth of the images, hence as many pixels."""
        layout, stream = self._placement.layout, self._settings.stream
        shared = cores_each(self._local_ranks) if self._local_ranks > 1 else None
        return ImageStream(
            self._data / split,
            batch_images=max(layout.ranks, -(-self._settings.train.batch_images // views)),
            seed=self._settings.train.seed,
            rank=layout.rank,
            ranks=layout.ranks,
            augment=augment,
            augmentation=self._settings.augment,
            device=str(self._placement.device),
            threads=stream.threads or shared,
            output="uint8" if self._gathers and not layout.owt else "float32",
            channels_last=True,
            views=views,
            settings=stream,
        )
