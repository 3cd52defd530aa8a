"""The stream: what a training script imports.

    for images, labels in ImageStream("DIR/train", batch_images=256, seed=0):
        ...

Each iteration is one epoch, and the next one goes on with the next epoch. Constructing a stream reads the manifest and
starts nothing; threads and the decoder come with the first batch and go with `close()`.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from alexnet.pipeline.augment import AugmentSettings
from alexnet.pipeline.meter import StreamMeter
from alexnet.pipeline.plan import BatchPlan, Planner, PlanSettings
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import SPLITS
from alexnet.shards.reader import SplitReader

if TYPE_CHECKING:  # torch and DALI are loaded with the first batch, not with this module
    import torch

    from alexnet.pipeline.feed import Feed
    from alexnet.pipeline.graph import GraphSettings


@dataclass(frozen=True, kw_only=True)
class StoredSample:
    """Hold one sample as it lies on disk."""

    key: str
    shard: str
    label: int
    jpeg: bytes


class ImageStream:
    """Iterate over one split, an epoch at a time, as (images, labels).

    `images`: float32 (n, 3, crop, crop), contiguous or channels-last in memory. `labels`: int64 (n,).

    `path`: a split of a data set, such as `DIR/train`. `batch_images`: the global batch over all `ranks`; this stream
    yields the part of `rank` (defaults: torchrun's environment, else 0 of 1). `augment`: False yields the centre
    window of every image, in the order of the ids. `augmentation`: what augmenting means, and the scale of pixels.
    `shuffle`: default, with augmentation. `drop_last`: default, with shuffling. `device`: `cpu`, `cuda` or `cuda:N`.
    `threads`: decoder threads, default one a core. `depth`: finished batches kept waiting.
    Raises InputError for data or settings that cannot work.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        batch_images: int,
        seed: int = 0,
        rank: int | None = None,
        ranks: int | None = None,
        augment: bool = True,
        augmentation: AugmentSettings | None = None,
        shuffle: bool | None = None,
        drop_last: bool | None = None,
        device: str = "cpu",
        threads: int | None = None,
        depth: int = 2,
        channels_last: bool = False,
    ) -> None:
        root, split = _split_of(Path(path))
        self._reader = SplitReader(root, split)
        self._augment = augmentation or AugmentSettings()
        shuffled = augment if shuffle is None else shuffle
        settings = PlanSettings(
            batch_images=batch_images,
            seed=seed,
            rank=int(os.environ.get("RANK", "0")) if rank is None else rank,
            ranks=int(os.environ.get("WORLD_SIZE", "1")) if ranks is None else ranks,
            shuffle=shuffled,
            augment=augment,
            drop_last=shuffled if drop_last is None else drop_last,
        )
        manifest = self._reader.manifest
        self._planner = Planner(settings, self._augment, manifest.colour, manifest.size_px, len(self._reader))
        self._device = device
        self._threads = threads or len(os.sched_getaffinity(0))
        self._depth = depth
        self._channels_last = channels_last
        self._epoch, self._step = 0, 0
        self._entered = False  # whether an iteration has begun since the last seek
        self._feed: Feed | None = None
        self._feed_at = (0, 0)  # the step that the feed hands over next
        self.meter = StreamMeter()

    def __len__(self) -> int:
        """Count the steps of an epoch."""
        return self._planner.steps

    @property
    def images(self) -> int:
        """Count the samples of the split."""
        return len(self._reader)

    def __iter__(self) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
        """Yield an epoch's batches: the one that `seek` or `resume` named, from its step on, then each time the next.

        An epoch that was left half-way is not taken up again unless `seek` says so.
        """
        if self._entered and self._step > 0:
            self._epoch, self._step = self._epoch + 1, 0
        self._entered = True
        while self._step < len(self):
            with self.meter.waiting():
                batch = self._next_batch()
            self._advance()
            self.meter.delivered(len(batch[1]))
            yield batch
        self._epoch, self._step = self._epoch + 1, 0

    def plan(self, epoch: int, step: int) -> BatchPlan:
        """Return what this rank's batch is made of, without reading an image."""
        if not 0 <= step < len(self):
            raise InputError(f"step={step}: an epoch has steps 0 to {len(self) - 1}")
        return self._planner.plan(epoch, step)

    def sample(self, sample_id: int) -> StoredSample:
        """Return a sample's key, shard, label and JPEG bytes. Ids are 0..N-1 within the split."""
        if not 0 <= sample_id < len(self._reader):
            raise InputError(f"sample_id={sample_id}: the split has ids 0 to {len(self._reader) - 1}")
        return StoredSample(
            key=self._reader.key(sample_id),
            shard=self._reader.shard(sample_id).file,
            label=int(self._reader.labels[sample_id]),
            jpeg=self._reader.jpeg(sample_id).tobytes(),
        )

    def seek(self, epoch: int, step: int) -> None:
        """Go on at a step of an epoch when iteration next starts."""
        if epoch < 0 or not 0 <= step <= len(self):
            raise InputError(f"epoch={epoch}, step={step}: epochs count from 0, steps from 0 to {len(self)}")
        self._epoch, self._step = epoch, step
        self._entered = False

    def state(self) -> dict[str, Any]:
        """Return where the stream stands and what it is, for `resume`: a few hundred bytes of JSON."""
        return {"epoch": self._epoch, "step": self._step, **self._identity()}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken. Raises InputError if the data or a setting that shapes the stream differ."""
        for name, mine in self._identity().items():
            if state.get(name) != mine:
                raise InputError(
                    f"{name}: the state to resume from has {state.get(name)!r}, this stream {mine!r}; "
                    "resume with the same data and settings, or start anew"
                )
        self.seek(int(state["epoch"]), int(state["step"]))

    def close(self) -> None:
        """Stop threads and decoder. The stream can be iterated again."""
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _identity(self) -> dict[str, Any]:
        s = self._planner.settings
        augment = hashlib.sha256(repr(sorted(asdict(self._augment).items())).encode()).hexdigest()[:16]
        return {
            "seed": s.seed,
            "batch_images": s.batch_images,
            "shuffle": s.shuffle,
            "augment": augment if s.augment else "off",
            "drop_last": s.drop_last,
            "split": self._reader.split,
            "manifest": self._reader.manifest.digest()[:16],
        }

    def _next_batch(self) -> "tuple[torch.Tensor, torch.Tensor]":
        try:
            return self._running_feed().next_batch()
        except BaseException:
            self.close()  # its thread is gone: who iterates again gets a new one, and the error again
            raise

    def _advance(self) -> None:
        self._step += 1
        self._feed_at = (self._epoch, self._step) if self._step < len(self) else (self._epoch + 1, 0)

    def _running_feed(self) -> "Feed":
        """Return the feed, restarted if it does not stand where this stream stands.

        It runs on from epoch to epoch, so that the next one's first batches are ready when it begins.
        """
        try:
            from alexnet.pipeline.feed import Feed
        except ModuleNotFoundError as error:
            raise InputError(
                f"{error.name} is not installed: decoding needs NVIDIA DALI and torch, and DALI is there for Linux only"
            ) from None
        from alexnet.pipeline.host_batch import HostBatches

        here = (self._epoch, self._step)
        if self._feed is None or self._feed_at != here:
            self.close()
            first = self._epoch * len(self) + self._step
            self._feed = Feed(self._graph_settings(), HostBatches(self._reader, self._planner, first))
            self._feed_at = here
        return self._feed

    def _graph_settings(self) -> "GraphSettings":
        from alexnet.pipeline.graph import GraphSettings

        s = self._planner.settings
        std = self._reader.manifest.colour.channel_standard_deviations
        return GraphSettings(
            max_images=-(-s.batch_images // s.ranks),
            crop_px=self._augment.crop_px,
            device_id=_device_id(self._device),
            threads=self._threads,
            depth=self._depth,
            channels_last=self._channels_last,
            std=(1.0, 1.0, 1.0) if self._augment.scale == "pixel" else (std[0], std[1], std[2]),
        )


def _split_of(path: Path) -> tuple[Path, Literal["train", "val"]]:
    for split in SPLITS:
        if path.name == split:
            return path.parent, split
    raise InputError(f"{path}: give a split of a data set, such as {path / 'train'} or {path / 'val'}")


def _device_id(device: str) -> int | None:
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return None
    if kind == "cuda" and (number.isdigit() or not number):
        return int(number or 0)
    raise InputError(f"device={device!r}: must be cpu, cuda or cuda:N")
