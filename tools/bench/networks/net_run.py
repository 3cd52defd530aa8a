"""One process's part of a row that trains a network: the run as `alexnet-train` would build it, held in hand.

`options` of such a row: `arch`, `precision`, `batch_images`, `gpus`, `parallel`; `recipe`, if not the network's own;
`real`, if batches come from the data set and not from one batch that is there already; `classes`, for those.
"""

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from alexnet.model.metrics import EVERY_STEP_UNTIL
from alexnet.model.networks.architecture import AllGather, class_range, trace
from alexnet.model.networks.settings import architecture_of
from alexnet.model.placement import Placement, choose_placement
from alexnet.model.ranks import Ranks, started
from alexnet.shards.manifest import read_manifest
from alexnet.tools.bench.measuring.stages_seam import NetStageSettings
from alexnet.tools.bench.networks.trainer_steps import Batch, SteppedTrainer, synchronise
from alexnet.tools.host_memory import keep_freed_memory
from alexnet.tools.run.assembly import Streams, build_trainer
from alexnet.tools.run.recipes import recipe_for
from alexnet.tools.run.settings import RunSettings, check_fit, load_recipe
from alexnet.tools.settings import with_settings

_STEPS_PER_EPOCH = 10_000  # as ImageNet's at batch 128; what a schedule makes of it changes no speed
_NEVER = 1 << 40  # steps: a run that ended would validate, on a source without end
_DEVIATIONS = {"pixel": 50.0, "unit-variance": 1.0}  # of made-up images, by the recipe's scale
_HARMLESS_RATE = 1e-6  # nothing is to be learnt here, and a loss that diverges ends a run


class NetRun:
    """Hold a trainer that takes steps when told to, in this process's place among its ranks."""

    def __init__(self, options: dict[str, Any], settings: NetStageSettings) -> None:
        if settings.device == "cpu":
            keep_freed_memory()
        self.settings = run_settings(options, settings)
        self.placement = placement_of(options, settings, self.settings)
        self._stack = contextlib.ExitStack()  # never closed: the process ends with its last command
        self.ranks = self._stack.enter_context(started(self.placement, self.placement.layout.ranks))
        trainer = build_trainer(self.settings, self.placement, _STEPS_PER_EPOCH, self.ranks)
        trainer.step = EVERY_STEP_UNTIL  # past the steps that are all logged, which costs a look at every gradient
        trainer.total_steps = _NEVER
        batches = _made_up(self.settings, self.placement)
        if options.get("real"):
            assert settings.data is not None
            streams = Streams(settings.data, self.settings, self.placement, self.ranks, self.placement.layout.ranks)
            batches = _endless(streams)
        threads = max(1, settings.threads // self.placement.layout.ranks)
        self.trainer = SteppedTrainer(trainer, batches, threads)
        self._exchange = exchanges(self.settings, self.placement, self.ranks)

    def steps(self, times: int) -> None:
        """Take so many training steps."""
        self.trainer.run(times)

    def communicate(self, times: int) -> float | None:
        """Do what a step sends and receives, and nothing else; return the seconds of one time, None for nothing."""
        if self._exchange is None:
            return None
        self.ranks.wait()
        begin = time.perf_counter()
        for _ in range(times):
            self._exchange()
        synchronise(self.placement.device)
        return (time.perf_counter() - begin) / times


def run_settings(options: dict[str, Any], settings: NetStageSettings) -> RunSettings:
    """Return the settings of a run as `alexnet-train --arch` would settle them."""
    arch = options["arch"]
    run = load_recipe(options.get("recipe") or recipe_for(arch))
    run = with_settings(
        run,
        (
            ("net.arch", arch),
            ("train.batch_images", options["batch_images"]),
            ("train.precision", options["precision"]),
            ("train.checkpoint_every", 0),
            ("train.capture", bool(options.get("capture"))),
            ("optim.lr", _HARMLESS_RATE),
        ),
    )
    if settings.data is None:
        return run.with_classes(options["classes"])
    manifest = read_manifest(settings.data)
    check_fit(run, manifest)
    return run.with_classes(len(manifest.classes))


def placement_of(options: dict[str, Any], settings: NetStageSettings, run: RunSettings) -> Placement:
    """Choose the placement of this process, whose rank the environment says."""
    gpus, rank = int(options["gpus"]), int(os.environ.get("RANK", 0))
    return choose_placement(
        settings.device,
        gpus,
        run.train.precision,
        parallel=options["parallel"],
        towers=architecture_of(run.net).towers,
        rank=rank if gpus > 1 else 0,
        local_rank=rank if gpus > 1 else 0,
        local_ranks=gpus if gpus > 1 else None,
    )


def _made_up(run: RunSettings, placement: Placement) -> Iterator[Batch]:
    """Yield one batch for ever: this process's part, in the memory order and type that the stream yields."""
    layout, device = placement.layout, placement.device
    rows, convolved = (len(part(run.train.batch_images)) for part in (layout.group_part, layout.convolved))
    px = run.augment.crop_px
    generator = torch.Generator().manual_seed(layout.group)
    images = torch.randn(convolved, 3, px, px, generator=generator) * _DEVIATIONS[run.augment.scale]
    labels = torch.randint(run.net.classes, (rows,), generator=generator).to(device)
    return itertools.repeat((images.to(device, memory_format=torch.channels_last), labels))


def _endless(streams: Streams) -> Iterator[Batch]:
    """Yield batches of the training stream, epoch after epoch, without the validation between."""
    while True:
        yield from streams.train


def exchanges(run: RunSettings, placement: Placement, ranks: Ranks) -> Callable[[], None] | None:
    """Return what a step communicates, on values that are there already; None for one process, and for `owt`.

    Between towers: what they gather at every meeting, its gradient, and the scores. Between replicas: the sum of the
    gradients (with one copy of them). In a step, some of that runs beside computing; here none does.
    """
    layout = placement.layout
    if layout.ranks == 1 or layout.owt:
        return None
    work: list[Callable[[], None]] = []
    if layout.group_ranks > 1:
        work.append(_between_towers(run, placement, ranks))
    if layout.groups > 1:
        tower = layout.towers[0] if layout.towers else None
        gradients = torch.zeros(_parameters_held(run, tower), device=placement.device)
        work.append(lambda: _summed(ranks, gradients))

    def all_of_it() -> None:
        for one in work:
            one()

    return all_of_it


def _between_towers(run: RunSettings, placement: Placement, ranks: Ranks) -> Callable[[], None]:
    drawing, exchange = architecture_of(run.net), ranks.exchange(run.net)
    rows, kind = len(placement.layout.group_part(run.train.batch_images)), placement.device.type
    dtype = torch.bfloat16 if placement.bf16 else torch.float32
    placed = trace(drawing, px=run.augment.crop_px, channels=run.net.input_channels, classes=run.net.classes, tower=0)
    values: list[Tensor] = []
    for place in placed:
        if isinstance(place.layer, AllGather):
            value = torch.zeros(rows, *place.reads, dtype=dtype, device=kind)
            values.append(value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value)
    scored = len(class_range(run.net.classes, drawing.towers, (placement.layout.towers or (0,))[0]))
    scores = torch.zeros(rows, scored, dtype=dtype, device=kind)

    def gather() -> None:
        for value in values:
            (gathered,) = exchange.all_gather([value.detach().requires_grad_()])
            gathered.backward(torch.zeros_like(gathered))
        exchange.all_scores([scores])

    return gather


def _summed(ranks: Ranks, gradients: Tensor) -> None:
    ranks.total(gradients)


def _parameters_held(run: RunSettings, tower: int | None) -> int:
    """Count the parameters of one tower, or of the network."""
    from alexnet.model.networks.network import build_network, parameter_count

    with torch.device("meta"):
        return parameter_count(build_network(run.net, None if tower is None else (tower,)))
