"""Put a run's parts together: where it computes, and a trainer that is ready to train there."""

from collections.abc import Callable
from pathlib import Path

import torch

from alexnet.model.initialise import initialise
from alexnet.model.networks.build import build_network
from alexnet.model.networks.network import Network
from alexnet.model.networks.settings import drawing_of
from alexnet.model.optim import MomentumSGD
from alexnet.model.placement import Placement, Worker, choose_placement
from alexnet.model.ranks import OneProcess, Ranks
from alexnet.model.schedule import Schedule
from alexnet.model.trainer import Trainer
from alexnet.model.warm_start import take_weights
from alexnet.shards.errors import InputError
from alexnet.tools.run.fitting import check_layout
from alexnet.tools.run.options import TrainOptions
from alexnet.tools.run.settings import RunSettings
from alexnet.tools.use.trained import newest_in


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
        towers=drawing_of(settings.net).towers,
        rank=worker.rank if worker else 0,
        local_rank=worker.local_rank if worker else 0,
        local_ranks=worker.local_ranks if worker else None,
    )
    check_layout(settings, placement.layout)
    return placement


def total_steps(settings: RunSettings, steps_per_epoch: int) -> int:
    """Return the length of a run in steps."""
    return settings.train.steps or settings.train.epochs * steps_per_epoch


def build_trainer(
    settings: RunSettings,
    placement: Placement,
    steps_per_epoch: int,
    ranks: Ranks | None = None,
    prepare: Callable[[Network], object] | None = None,
) -> Trainer:
    """Build network, update rule and schedule where the placement says; in one process unless `ranks` are given.

    `prepare`: given the network with its drawn values, before ranks divide its layers.
    """
    ranks = ranks or OneProcess()
    net = build_network(settings.net, placement.layout.towers, ranks.exchange(settings.net))
    initialise(net, settings.init, settings.train.seed)
    if prepare:
        prepare(net)
    net = net.to(placement.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ranks.divide(net)
    steps = total_steps(settings, steps_per_epoch)
    schedule = Schedule(settings.schedule, settings.optim.lr, steps)
    first_layer = next(iter(net.weighted().values()))
    optim = MomentumSGD(net, settings.optim, [module for module in first_layer if module is not None])
    return Trainer(net, optim, schedule, placement, settings.train, steps, ranks)


def start_from(file: Path, settings: RunSettings, description: dict[str, dict[str, str]], net: Network) -> None:
    """Take initial values from a file, or a run; add to `description` what the run says of them."""
    taken = take_weights(net, newest_in(file)[0], settings.init.up_to)
    description["start"] = {"layers": ", ".join(taken.layers), "sha256": taken.sha256}
