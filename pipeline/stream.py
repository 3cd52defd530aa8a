"""The stream: what a training script imports.

    for images, labels in ImageStream("DIR/train", batch_images=256, seed=0):
        ...

Each iteration is one epoch, and the next one goes on with the next epoch. Constructing a stream reads the manifest and
starts nothing; threads and the decoder come with the first batch and go with `close()`.
"""

import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from alexnet.pipeline.arguments import (
    decode_of,
    device_id,
    known_output,
    known_views,
    pixels_of,
    plan_of,
    planner_of,
    settings_of,
    split_of,
    threads_of,
)
from alexnet.pipeline.augment import AugmentSettings, describe_lighting
from alexnet.pipeline.blueprint import Blueprint
from alexnet.pipeline.cursor import Cursor, check_state, identity
from alexnet.pipeline.decoders.choice import Decode
from alexnet.pipeline.decoders.describe import describe_decoding
from alexnet.pipeline.encoded import image_means
from alexnet.pipeline.kinds import flag, refusal, whole
from alexnet.pipeline.meter import StreamMeter
from alexnet.pipeline.plan import BatchPlan, describe_order
from alexnet.pipeline.settings import Output, StreamSettings
from alexnet.shards.errors import InputError
from alexnet.shards.reader import SplitReader

if TYPE_CHECKING:  # torch and DALI are loaded with the first batch, not with this module
    import torch

    from alexnet.pipeline.decoders.finish_pass import FinishPass
    from alexnet.pipeline.feed import Feed


@dataclass(frozen=True, kw_only=True)
class StoredSample:
    """Hold one sample as it lies on disk."""

    key: str
    shard: str
    label: int
    jpeg: bytes


class ImageStream:
    """Iterate over one split, an epoch at a time, as (images, labels).

    `images`: (n, 3, crop, crop) of type `output`, contiguous or channels-last in memory; with `views=10`
    (n, 10, 3, crop, crop). `labels`: int64 (n,).

    `path`: a split of a data set, such as `DIR/train`. `batch_images`: the global batch over all `ranks`; this stream
    yields the part of `rank` (defaults: torchrun's environment, else 0 of 1). `augment`: False yields the centre
    window of every image, in the order of the ids. `augmentation`: what augmenting means, and the scale of pixels.
    `shuffle`: default, with augmentation. `drop_last`: default, with shuffling. `device`: `cpu`, `cuda`, `cuda:N`.
    `threads`: decoder threads, default one a core, under torchrun of the process's share. `output`: `uint8` yields cut
    and mirrored pixels as they are, for `finish_pass` to finish elsewhere. `views`: 10 yields the paper's ten views of
    each image, without augmentation. `settings`: how it runs. Raises InputError for data or settings that cannot work.
    """

    def __init__(
        self,
        path: str | bytes | os.PathLike[str],
        *,
        batch_images: int,
        seed: int = 0,
        rank: int | None = None,
        ranks: int | None = None,
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
    ) -> None:
        self.settings = settings_of("settings", settings, StreamSettings)
        self._augment = settings_of("augmentation", augmentation, AugmentSettings)
        self._reader = SplitReader(*split_of(path))
        plan = plan_of(
            batch_images=batch_images,
            seed=seed,
            rank=rank,
            ranks=ranks,
            augment=augment,
            shuffle=shuffle,
            drop_last=drop_last,
            locality=self.settings.locality,
        )
        self._planner = planner_of(self._reader, self._augment, plan)
        self._blueprint = Blueprint(
            reader=self._reader,
            planner=self._planner,
            finish=pixels_of(self._reader, self._augment, training=plan.augment),
            settings=self.settings,
            crop_px=self._augment.crop_px,
            views=known_views(views, self._reader, self._augment, augment=plan.augment),
            device_id=device_id(device),
            threads=threads_of(threads or self.settings.threads),
            output=known_output(output),
            channels_last=flag("channels_last", channels_last),
        )
        self._unlit = self._after_lighting()
        self._decode = decode_of(self.settings.decode, self._blueprint)
        self._views = views
        self._cursor = Cursor(self._planner.steps)
        self._feed: Feed | None = None
        self._feed_of = self._blueprint
        self._feed_at = 0  # the batch that the feed hands over next, counted over all epochs
        self.meter = StreamMeter()

    def _after_lighting(self) -> Blueprint:
        """Return how batches are made where lighting has ended: the division that makes up for it ends, too."""
        if not (self._planner.settings.augment and self._augment.lighting_division):
            return self._blueprint
        finish = pixels_of(self._reader, self._augment, training=True, epoch=self._augment.lighting_epochs)
        return replace(self._blueprint, finish=finish)

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
        for _ in self._cursor.epoch():
            batch = self._next_batch()
            self._cursor.advance()
            yield batch

    def plan(self, epoch: int, step: int) -> BatchPlan:
        """Return what this rank's batch is made of, without reading an image."""
        return self._planner.plan(whole("epoch", epoch), whole("step", step))

    def global_plan(self, epoch: int, step: int) -> BatchPlan:
        """Return what the batch of all ranks together is made of."""
        return self._planner.global_plan(whole("epoch", epoch), whole("step", step))

    def sample(self, sample_id: int) -> StoredSample:
        """Return a sample's key, shard, label and JPEG bytes. Ids are 0..N-1 within the split."""
        sample_id = whole("sample_id", sample_id)
        if not 0 <= sample_id < len(self._reader):
            raise InputError(f"sample_id={sample_id}: the split has ids 0 to {len(self._reader) - 1}")
        return StoredSample(
            key=self._reader.key(sample_id),
            shard=self._reader.shard(sample_id).file,
            label=int(self._reader.labels[sample_id]),
            jpeg=self._reader.jpeg(sample_id).tobytes(),
        )

    def seek(self, epoch: int, step: int) -> None:
        """Go on at a step of an epoch: with the next batch, in an iteration that is going on or in the next one."""
        self._cursor.seek(epoch, step)

    def state(self) -> dict[str, Any]:
        """Return where the stream stands and what it is, for `resume`: a few hundred bytes of JSON.

        After an epoch's last step it stands at the first of the next one.
        """
        epoch, step = self._cursor.place
        return {"epoch": epoch, "step": step, **self._identity(self._decode)}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken, decoding every image as it was decoded there.

        Raises InputError if the data or a setting that shapes the stream differ, by name.
        """
        if not isinstance(state, Mapping):
            raise refusal("state", state, "what the state() of a stream returned")
        decode = self._decode
        if self.settings.decode in ("default", "auto"):  # left open: what the state's stream settled on holds
            decode = decode_of(str(state.get("decode", "auto")), self._blueprint)
        check_state(state, self._identity(decode))
        place = self._cursor.place_of(state.get("epoch"), state.get("step"))
        if decode != self._decode:
            self.close()
            self._decode = decode
        self.seek(*place)

    def finish_pass(self, output: Output = "float32") -> "FinishPass":
        """Return what turns this stream's uint8 windows into finished tensors, on the stream's device.

        For those who gather the crops of several ranks first: `finish_pass(windows, means)` takes uint8 (n, H, W, 3)
        and float32 (n, 3), the means of `means_of(plan)`. It is that of the epoch where the stream stands.
        """
        from alexnet.pipeline.decoders.finish_pass import FinishPass

        finish, device = self._blueprint_here.finish, self._blueprint.decoder_settings().device
        return FinishPass(finish, known_output(output), channels_last=self._blueprint.channels_last, device=device)

    def means_of(self, plan: BatchPlan) -> "torch.Tensor":
        """Return what `finish_pass` subtracts from each image of a plan: float32 (n, 3), lighting included."""
        import torch

        means = torch.from_numpy(image_means(self._blueprint.finish, plan.colour_offset))
        device = self._blueprint.decoder_settings().device
        # From memory that is not pinned, the copy would have the CPU wait for the GPU.
        return (means.pin_memory() if device.type == "cuda" else means).to(device, non_blocking=True)

    def describe(self) -> list[str]:
        """Say in a few lines what this stream yields and how: for the start of a run."""
        s, shards = self._planner.settings, len(self._reader.shards)
        lines = [
            f"{self.images:,} images in {shards:,} shard{'s' * (shards != 1)}, {len(self):,} steps of {s.batch_images} "
            f"an epoch; rank {s.rank} of {s.ranks}",
            describe_order(self._planner, self._reader.labels, self._cursor.epoch_number),
        ]
        if s.augment:
            lines.append(describe_lighting(self._augment, self._reader.manifest.colour))
        return [*lines, describe_decoding(self._decode, self._blueprint.device_id, self._blueprint.threads)]

    def close(self) -> None:
        """Stop threads and decoder. The stream can be iterated again."""
        feed, self._feed = self._feed, None  # forgotten first: Ctrl-C may interrupt the wait for its threads
        if feed is not None:
            if feed.process != os.getpid():
                return  # a forked child, where a thread that did not come along may have held the reader's lock
            feed.close()
        self._reader.close()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made from, here or in another process: it goes on from the same place, by itself."""
        if self._feed is not None:
            raise InputError(
                "this stream was started, and its threads cannot be copied or pickled; close() it first, or pass on "
                "its state() and resume there"
            )
        return {**vars(self), "_cursor": copy.copy(self._cursor), "meter": StreamMeter()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _identity(self, decode: Decode) -> dict[str, Any]:
        return identity(self._planner.settings, self._augment, self._reader, self._views, decode)

    def _next_batch(self) -> "tuple[torch.Tensor, torch.Tensor]":
        try:
            delivery = self._running_feed().next_batch(self.meter)
            self._feed_at += 1
        except BaseException:
            self.close()  # its thread is gone: who iterates again gets a new one, and the error again
            raise
        return delivery.images, delivery.labels

    def _running_feed(self) -> "Feed":
        """Return the feed, restarted if it does not stand where this stream stands.

        It runs on from epoch to epoch, so that the next one's first batches are ready when it begins.
        """
        try:
            from alexnet.pipeline.running import refuse_in_a_worker, resolve, start_feed
        except ModuleNotFoundError as error:
            raise InputError(f"{error.name} is not installed: decoding needs torch") from None

        refuse_in_a_worker()
        if self._feed is not None and self._feed.process != os.getpid():
            raise RuntimeError(
                f"this stream was started in process {self._feed.process}, and its threads did not come along with the "
                f"fork; make a new stream in process {os.getpid()}, or close() this one before the fork"
            )
        here, blueprint = self._cursor.index, self._blueprint_here
        if self._feed is None or self._feed_at != here or self._feed_of is not blueprint:
            self.close()
            self._decode = resolve(self._decode, blueprint)
            self._feed, self._feed_of = start_feed(self._decode, blueprint, here), blueprint
            self._feed_at = here
        return self._feed

    @property
    def _blueprint_here(self) -> Blueprint:
        """Return what a feed is made from in the epoch where the stream stands."""
        return self._blueprint if self._augment.lit(self._cursor.epoch_number) else self._unlit
