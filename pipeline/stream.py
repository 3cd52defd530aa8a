"""The stream: what a training script imports.

    for images, labels in ImageStream("DIR/train", batch_images=256, seed=0):
        ...

Each iteration is one epoch, and the next one goes on with the next epoch. Constructing a stream reads the manifest and
starts nothing; threads and the decoder come with the first batch and go with `close()`.
"""

import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from alexnet.pipeline.augment import AugmentSettings, BatchPlan, describe_lighting
from alexnet.pipeline.batch import Batch
from alexnet.pipeline.decode import decode_settings, decoder_named, describe_decoding, describe_residence
from alexnet.pipeline.meter import StreamMeter
from alexnet.pipeline.plan import Cursor, Planner, PlanSettings
from alexnet.pipeline.settings import (
    Output,
    StreamSettings,
    choice,
    global_batch_of,
    rank_of,
    refusal,
    settings_of,
    shown,
    split_of,
    whole,
)
from alexnet.pipeline.source import describe_source, open_split
from alexnet.shards.errors import InputError
from alexnet.shards.reader import SplitReader, StoredSample

if TYPE_CHECKING:  # torch and DALI are loaded with the first batch, not with this module
    import torch

    from alexnet.pipeline.dataset import StoredImages
    from alexnet.pipeline.normalize_torch import Normalizer
    from alexnet.pipeline.prefetch import Prefetcher


def _planner(plan: PlanSettings, augmentation: AugmentSettings, reader: SplitReader) -> Planner:
    mean_image = reader.mean_image() if augmentation.mean == "image" else None
    shard_images = [shard.images for shard in reader.shards]
    return Planner(plan, augmentation, reader.manifest.colour, reader.manifest.size_px, shard_images, mean_image)


class ImageStream:
    """Iterate over one split, an epoch at a time, as (images, labels).

    `images`: (n, 3, crop, crop) of type `output`, contiguous or channels-last in memory; with `views=10`
    (n, 10, 3, crop, crop). `labels`: int64 (n,).

    `path`: a split of a data set, such as `DIR/train` or `s3://BUCKET/DIR/train`. `batch_images`: the global batch over
    all ranks; this stream yields the part of `rank` of `world_size` (defaults: torchrun's environment, else 0 of 1).
    `batch_size`, elsewhere the batch of one rank, is refused. `augment`: False yields the centre crop of every image,
    in the order of the ids. `augmentation`: what augmenting means, and the scale of pixels. `shuffle`: default, with
    augmentation. `drop_last`: default, with shuffling. `device`: `cpu`, `cuda`, `cuda:N`, or a `torch.device`.
    `threads`: decoder threads, default one a core, under torchrun of the process's share. `output`: `uint8` yields cut
    and mirrored pixels as they are, for `finish_pass` to normalize elsewhere. `views`: 10 yields the paper's ten views
    of each image, without augmentation.
    `settings`: how it runs. `reserve_bytes`: of the GPU, what else runs there needs; resident images leave it so much.

    Raises InputError for data or settings that cannot work.
    """

    def __init__(
        self,
        path: str | bytes | os.PathLike[str],
        *,
        batch_images: int | None = None,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        augment: bool = True,
        augmentation: AugmentSettings | None = None,
        shuffle: bool | None = None,
        drop_last: bool | None = None,
        device: "str | torch.device" = "cpu",
        threads: int | None = None,
        output: Output = "float32",
        channels_last: bool = False,
        views: Literal[1, 10] = 1,
        settings: StreamSettings | None = None,
        reserve_bytes: int = 0,
        batch_size: None = None,
    ) -> None:
        self.settings = s = settings_of("settings", settings, StreamSettings)
        augmentation = settings_of("augmentation", augmentation, AugmentSettings)
        rank, ranks = rank_of(rank, world_size)
        plan = PlanSettings(
            batch_images=global_batch_of(batch_images, batch_size, ranks),
            seed=seed,
            rank=rank,
            ranks=ranks,
            augment=augment,
            shuffle=shuffle,
            drop_last=drop_last,
            window_shards=s.window_shards if s.order == "blocks" else None,
        )
        self._reader = open_split(*split_of(path), s, plan)
        self._planner = _planner(plan, augmentation, self._reader)
        self._decoding = decode_settings(
            s, self._planner, self._reader, device, threads, output, channels_last, views, reserve_bytes
        )
        self.meter = StreamMeter()
        self._prefetcher: Prefetcher | None = None
        self._cursor = Cursor(len(self))

    def __len__(self) -> int:
        """Count the steps of a whole epoch, wherever in it the stream stands."""
        return self._planner.steps

    @property
    def images(self) -> int:
        """Count the samples of the split."""
        return len(self._reader)

    def __iter__(self) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
        """Yield an epoch's batches: the one that `seek` or `resume` named, from its step on, then each time the next.

        An epoch that was left half-way is not taken up again unless `seek` says so.
        """
        for _ in self._cursor.epoch():
            batch = self._next_batch()
            self._cursor.at += 1
            yield batch.images, batch.labels

    def plan(self, epoch: int, step: int) -> BatchPlan:
        """Return what this rank's batch is made of, without reading an image."""
        return self._planner.plan(whole("epoch", epoch), whole("step", step))

    def global_plan(self, epoch: int, step: int) -> BatchPlan:
        """Return what the batch of all ranks together is made of."""
        return self._planner.global_plan(whole("epoch", epoch), whole("step", step))

    def sample(self, sample_id: int) -> StoredSample:
        """Return a sample's key, shard, label and stored bytes. Ids are 0..N-1 within the split."""
        sample_id = whole("sample_id", sample_id)
        if not 0 <= sample_id < len(self._reader):
            raise InputError(f"sample_id={sample_id}: the split has ids 0 to {len(self._reader) - 1}")
        return self._reader.sample(sample_id)

    def seek(self, epoch: int, step: int) -> None:
        """Go on at a step of an epoch: with the next batch, in an iteration that is going on or in the next one."""
        self._cursor.seek(epoch, step)

    def set_epoch(self, epoch: int) -> None:
        """Have the next iteration be this epoch: from its start or, after `resume` or `seek`, where those left it."""
        self._cursor.set_epoch(epoch)

    def start(self) -> None:
        """Begin decoding where the stream stands, so that the first batch is there when it is asked for."""
        self._running()

    def dataset(self) -> "StoredImages":
        """Return the split's images by sample id, whole and unchanged, with their labels: to look at, not for speed."""
        from alexnet.pipeline.dataset import StoredImages

        r = self._reader  # single images of object storage by themselves, not each with its shard
        return StoredImages(SplitReader(r.root, r.split) if r.files.traffic else copy.copy(r))

    def state(self) -> dict[str, Any]:
        """Return where the stream stands and what it is, for `resume`: a few hundred bytes of JSON.

        After an epoch's last step it stands at the first of the next one.
        """
        epoch, step = divmod(self._cursor.at, self._cursor.steps)
        return {"epoch": epoch, "step": step, **self._identity(self._decoding.decode)}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, decoding every image as it was decoded there.

        Raises InputError if the data or a setting that shapes the stream differ, by name.
        """
        if not isinstance(state, Mapping):
            raise refusal("state", state, "what the state() of a stream returned")
        decode, theirs = self._decoding.decode, state.get("decode")
        host_pixels = self._decoding.encoding != "jpeg" or self.settings.resident == "on"
        if isinstance(theirs, str) and theirs == "auto":  # of an earlier version, before anything was decoded
            state = {**state, "decode": decode}
        elif isinstance(theirs, str) and self.settings.decode == "default" and not host_pixels:
            decode = decoder_named(theirs, self._decoding.device_id)
        for name, mine in self._identity(decode).items():
            if getattr(theirs := state.get(name), "ndim", 0) or theirs != mine:  # an array is equal to nothing
                raise InputError(
                    f"{name}: the state to resume from has {shown(theirs)}, this stream {mine!r}; "
                    "resume with the same data and settings, or start anew"
                )
        place = divmod(self._cursor.number_of(state.get("epoch"), state.get("step")), self._cursor.steps)
        if decode != self._decoding.decode:
            self.close()
            self._decoding = replace(self._decoding, decode=decode)
        self.seek(*place)

    # What torch.distributed.checkpoint (its `Stateful`), Lightning, Accelerate and torchdata call.
    state_dict = state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Do what `resume` does."""
        self.resume(state_dict)

    def finish_pass(self, output: Output = "float32") -> "Normalizer":
        """Return what turns this stream's uint8 crops into normalized tensors, on the stream's device.

        For those who gather the crops of several ranks first: `finish_pass(crops, means)` takes uint8 (n, H, W, 3)
        and float32 (n, 3), the means of `means_of(plan)`. It is that of the epoch where the stream stands.
        """
        from alexnet.pipeline.normalize_torch import Normalizer, device_of

        output, d = choice("output", output, get_args(Output)), self._decoding
        normalization = self._planner.normalization(self._cursor.epoch_number)
        return Normalizer(normalization, output, channels_last=d.channels_last, device=device_of(d.device_id))

    def means_of(self, plan: BatchPlan) -> "torch.Tensor":
        """Return what `finish_pass` subtracts from each image of a plan: float32 (n, 3), lighting included."""
        from alexnet.pipeline.normalize_torch import device_of, moved

        means = self._planner.normalization(0).means(plan.colour_offset)
        return moved(means, device_of(self._decoding.device_id))

    def describe(self) -> list[str]:
        """Say in a few lines what this stream yields and how: for the start of a run."""
        s, shards = self._planner.settings, len(self._reader.shards)
        lines = [
            f"{self.images:,} images in {shards:,} shard{'s' * (shards != 1)}, {len(self):,} steps of {s.batch_images} "
            f"an epoch; rank {s.rank} of {s.ranks}",
            self._planner.describe_order(self._reader.labels, self._cursor.epoch_number),
        ]
        lines += describe_source(self._reader, self._planner, self.settings)
        if s.augment:
            lines.append(describe_lighting(self._planner.augment, self._reader.manifest.colour))
        return [*lines, describe_decoding(self._decoding), *describe_residence(self._decoding)]

    def close(self) -> None:
        """Stop threads and decoder. The stream can be iterated again."""
        # Forgotten first: Ctrl-C may interrupt the wait for its threads.
        prefetcher, self._prefetcher = self._prefetcher, None
        if prefetcher is not None:
            if prefetcher.process != os.getpid():  # a forked child: who held the reader's lock may not have come along
                self._reader = copy.copy(self._reader)
                return
            prefetcher.close()
        self._reader.close()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made from, here or in another process: it goes on from the same place, by itself."""
        if self._prefetcher is not None:
            raise InputError(
                "this stream was started, and its threads cannot be copied or pickled; close() it first, or pass on "
                "its state() and resume there"
            )
        return {**vars(self), "_cursor": copy.copy(self._cursor), "meter": StreamMeter()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _identity(self, decode: str) -> dict[str, Any]:
        """Return what a stream is: those of one identity yield the same batches. Ranks and threads change nothing."""
        return {
            **self._planner.identity(),
            "views": 10 if self._decoding.views_px else 1,
            "split": self._reader.split,
            "manifest": self._reader.manifest.images_digest()[:16],
            "decode": decode,
        }

    def _next_batch(self) -> Batch:
        try:
            return self._running().next_batch(self.meter)
        except BaseException:
            self.close()  # its thread is gone: who iterates again gets a new one, and the error again
            raise

    def _running(self) -> "Prefetcher":
        """Return the prefetcher, restarted if it does not stand where this stream stands.

        It runs on from epoch to epoch, so that the next one's first batches are ready when it begins.
        """
        try:
            from alexnet.pipeline.prefetch import Prefetcher
        except ModuleNotFoundError as error:
            raise InputError(f"{error.name} is not installed: decoding needs torch") from None

        if self._prefetcher is not None and self._prefetcher.process != os.getpid():
            raise RuntimeError(
                f"this stream was started in process {self._prefetcher.process}, and its threads did not come along "
                f"with the fork; make a new stream in process {os.getpid()}, or close() this one before the fork"
            )
        if self._prefetcher is None or self._prefetcher.coming != self._cursor.at:
            self.close()
            self.meter.traffic = self._reader.files.traffic
            self._prefetcher = Prefetcher(self._reader, self._planner, self._decoding, self.settings, self._cursor.at)
        return self._prefetcher
