"""Put a run's parts together: where it computes, its batches, and a trainer that is ready to train there."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from alexnet.model.initialise import initialise
from alexnet.model.needs import memory_need
from alexnet.model.networks.build import Network
from alexnet.model.networks.settings import architecture_of
from alexnet.model.optim import MomentumSGD
from alexnet.model.placement import Placement, Worker, choose_placement
from alexnet.model.ranks import Ranks, cores_each
from alexnet.model.schedule import Schedule
from alexnet.model.trainer import Trainer
from alexnet.model.warm_start import take_weights
from alexnet.pipeline import ImageStream
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Manifest, Split
from alexnet.tools.run.settings import RunSettings, TrainOptions, check_layout
from alexnet.tools.use.trained import newest_in

_TRAFFIC = {"fetched_bytes": "bytes", "retries": "retries", "cache_hits": "hits", "cache_misses": "misses"}
"""What a run's records call the figures of its streams' traffic."""


def place(options: TrainOptions, settings: RunSettings, worker: Worker | None) -> Placement:
    """Choose the placement of this process; of the first one, if it has none yet and others are to be started."""
    if worker and options.gpus not in (None, worker.ranks):
        raise InputError(
            f"--gpus {options.gpus}: torchrun started {worker.ranks} processes; leave --gpus out, or give that number"
        )
    placement = choose_placement(
        options.device,
        worker.ranks if worker else 1 if options.gpus is None else options.gpus,
        settings.train.precision,
        parallel=options.parallel,
        towers=architecture_of(settings.net).towers,
        rank=worker.rank if worker else 0,
        local_rank=worker.local_rank if worker else 0,
        local_ranks=worker.local_ranks if worker else None,
    )
    check_layout(settings, placement.layout)
    return placement


def build_trainer(
    settings: RunSettings,
    placement: Placement,
    steps_per_epoch: int,
    ranks: Ranks | None = None,
    prepare: Callable[[Network], object] | None = None,
) -> Trainer:
    """Build network, update rule and schedule where the placement says; in one process unless `ranks` are given.

    `prepare`: given the network with its initial values, before ranks divide its layers.
    """
    ranks = ranks or Ranks()
    net = Network(settings.net, placement.layout.towers, ranks.exchange(settings.net))
    initialise(net, settings.init, settings.train.seed)
    if prepare:
        prepare(net)
    net = net.to(placement.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ranks.divide(net)
    return trainer_of(net, settings, placement, steps_per_epoch, ranks)


def trainer_of(
    net: Network, settings: RunSettings, placement: Placement, steps_per_epoch: int, ranks: Ranks | None = None
) -> Trainer:
    """Add update rule and schedule to a network that is where the placement says, and divided among ranks."""
    steps = settings.total_steps(steps_per_epoch)
    schedule = Schedule(settings.schedule, settings.optim.lr, steps)
    first_layer = next(iter(net.weighted().values()))
    optim = MomentumSGD(net, settings.optim, [module for module in first_layer if module is not None])
    return Trainer(net, optim, schedule, placement, settings.train, steps, ranks)


def start_from(file: Path, settings: RunSettings, description: dict[str, dict[str, str]], net: Network) -> None:
    """Take initial values from a file, or a run; add to `description` what the run says of them."""
    taken = take_weights(net, newest_in(file)[0], settings.init.up_to)
    description["start"] = {"layers": ", ".join(taken.layers), "sha256": taken.sha256}


class Streams:
    """Make the run's batch sources: training, validation, and training images as evaluation sees them.

    Every process decodes its own share of each global batch, whatever it holds of the network. Where several hold it
    together, their streams yield crops as they are, which `Ranks.batches` gathers before they are normalized.
    """

    def __init__(self, data: Path, settings: RunSettings, placement: Placement, local_ranks: int = 1) -> None:
        self._data, self._settings, self._placement, self._local_ranks = data, settings, placement, local_ranks
        self._reserve_bytes = _training_bytes(settings, placement)
        self._traffic: dict[str, int] = {}
        self.train = self._stream("train", augment=True)
        self.validation = self.validation_of(settings.train.views)

    def decode_alike(self) -> None:
        """Have the others decoded as training is, once a state that it was resumed from has settled that."""
        self.validation = self.validation_of(self._settings.train.views)

    def validation_of(self, views: Literal[1, 10]) -> ImageStream:
        """Return the validation images, so many views of each."""
        return self._stream("val", augment=False, views=views)

    def train_as_evaluated(self) -> ImageStream:
        """Return the training images without augmentation, each once."""
        return self._stream("train", augment=False)

    def describe(self, manifest: Manifest) -> str:
        """Say how much data there is."""
        return (
            f"{len(manifest.classes):,} classes, {self.train.images:,} training and {self.validation.images:,} "
            f"validation images of {manifest.size_px} px"
        )

    def lines(self) -> list[str]:
        """Say what the training stream yields and how."""
        return self.train.describe()

    def traffic(self) -> dict[str, int]:
        """Return what this process fetched since it was asked before; nothing where the data lie in a folder."""
        all_told = [traffic for stream in (self.train, self.validation) if (traffic := stream.meter.traffic)]
        now = {name: sum(getattr(one, field) for one in all_told) for name, field in _TRAFFIC.items() if all_told}
        before, self._traffic = self._traffic, now
        return {name: count - before.get(name, 0) for name, count in now.items()}

    def close(self) -> None:
        """Stop the threads of training and validation."""
        self.train.close()
        self.validation.close()

    def _stream(self, split: Split, *, augment: bool, views: Literal[1, 10] = 1) -> ImageStream:
        """Make a stream. With ten views its batches have a tenth of the images, hence as many pixels."""
        layout, stream = self._placement.layout, self._settings.stream
        if not augment:
            stream = dataclasses.replace(stream, decode=self.train.state()["decode"])
        shared = cores_each(self._local_ranks) if self._local_ranks > 1 else None
        return ImageStream(
            self._data / split,
            batch_images=max(layout.ranks, -(-self._settings.train.batch_images // views)),
            seed=self._settings.train.seed,
            rank=layout.rank,
            world_size=layout.ranks,
            augment=augment,
            augmentation=self._settings.augment,
            device=str(self._placement.device),
            threads=stream.threads or shared,
            output="uint8" if layout.group_ranks > 1 and not layout.owt else self._placement.batch_type,
            channels_last=True,
            views=views,
            settings=stream,
            reserve_bytes=self._reserve_bytes,
        )


def _training_bytes(settings: RunSettings, placement: Placement) -> int:
    """Return what training needs of a GPU that may keep images, too; 0 where none does."""
    if placement.device.type != "cuda" or settings.stream.resident == "off":
        return 0
    images = len(placement.layout.convolved(settings.train.batch_images))
    return memory_need(settings.net, placement, settings.augment.crop_px).capacity_for(images)
