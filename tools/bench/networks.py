"""Networks in training, and the stream that feeds them, as stages that can be run and counted.

What is trained is what `alexnet-train --arch` would build, taken through `Trainer.train_step`: on one batch that is on
the device already, or on a data set. Steps are counted some at a time, so that waiting for a GPU costs nothing that
shows. Where a network runs in several processes, a row's own is rank 0; it starts the others, and they follow it.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from alexnet.model.metrics import EVERY_STEP_UNTIL
from alexnet.model.networks.settings import architecture_named
from alexnet.model.placement import Parallel, Placement, Precision, choose_kernels_by_trial, choose_placement
from alexnet.model.ranks import started
from alexnet.shards.manifest import read_manifest
from alexnet.shards.processes import leave_with_parent
from alexnet.tools.bench.gpu_steps import LAYERS, WAYS, Step, step_of
from alexnet.tools.bench.rooflines import synchronise
from alexnet.tools.bench.stage import CannotRunError, Stage, Work
from alexnet.tools.bench.step_parts import Parts, communication_ms, kernels_of
from alexnet.tools.host_memory import keep_freed_memory
from alexnet.tools.run.assembly import Streams, build_trainer
from alexnet.tools.run.launch import take_place
from alexnet.tools.run.settings import RunSettings, check_fit, load_recipe
from alexnet.tools.settings import recipe_for, with_settings

WAITS = "waits for data %"
_CHUNK_SECONDS = 0.05
_SMALL_PX, _SMALL_CLASSES, _CLASSES = 64, 10, 1000
_STEPS_PER_EPOCH = 10_000  # as ImageNet's at batch 128; what a schedule makes of it changes no speed
DEVIATIONS = {"pixel": 50.0, "unit-variance": 1.0}  # of synthetic images, by the recipe's scale
_HARMLESS_RATE = 1e-6  # nothing is to be learnt from one batch, and numbers that are not finite may be slower


@dataclass(frozen=True, kw_only=True)
class Task:
    """Say what is trained. `threads`: of all processes together. `recipe`: None for the network's.

    `data`: the set that says how many classes there are; empty for none. `synthetic`: one batch of random images, made
    once, instead of that set's. `way`: of `gpu_steps.WAYS`, which one process on a GPU has; empty: as `alexnet-train`.
    """

    arch: str
    precision: Precision
    batch_images: int
    gpus: int = 1
    parallel: Parallel = "towers"
    device: str = "cpu"
    threads: int = 1
    recipe: str | None = None
    data: str = ""
    synthetic: bool = True
    way: str = ""

    @property
    def name(self) -> str:
        """Return a short name, such as `alexnet-2012-bf16-b64-towers2`."""
        layout = f"-{self.parallel}{self.gpus}" if self.gpus > 1 else ""
        return f"{self.arch}-{self.precision}-b{self.batch_images}{layout}{f'-{self.way}' * bool(self.way)}"

    @property
    def title(self) -> str:
        """Return the same in words."""
        layout = f", {self.gpus} processes ({self.parallel})" if self.gpus > 1 else ""
        way = f", {WAYS[self.way]}" if self.way else ""
        return f"{self.arch}, {self.precision}, batch {self.batch_images}{layout}{way}"

    @property
    def px(self) -> int:
        """Return the side of the images that the network takes."""
        return architecture_named(self.arch).input_px[0]

    @property
    def classes(self) -> int:
        """Return how many classes there are without data: as many as the set has that the network was made for."""
        return _SMALL_CLASSES if self.px < _SMALL_PX else _CLASSES

    def settings(self) -> RunSettings:
        """Return the settings of the run. Raises InputError if network and data do not go together."""
        changes: dict[str, Any] = {
            "net.arch": self.arch,
            "train.batch_images": self.batch_images,
            "train.precision": self.precision,
            "train.capture": self.way not in LAYERS,
            "optim.lr": _HARMLESS_RATE,
        }
        run, classes = with_settings(load_recipe(self.recipe or recipe_for(self.arch)), changes.items()), self.classes
        if self.data:
            manifest = read_manifest(Path(self.data))
            check_fit(run, manifest)
            classes = len(manifest.classes)
        return run.with_classes(classes)

    def placement(self, rank: int = 0) -> Placement:
        """Return where a process computes. Raises InputError if this machine or the network has no such layout."""
        place: dict[str, Any] = {"rank": rank, "local_rank": rank, "local_ranks": self.gpus} if rank else {}
        towers = architecture_named(self.arch).towers
        return choose_placement(self.device, self.gpus, self.precision, parallel=self.parallel, towers=towers, **place)


class Training:
    """A trainer that takes steps when told to, in this process's place among its ranks."""

    def __init__(self, task: Task, rank: int = 0) -> None:
        if task.device == "cpu":
            keep_freed_memory()
        choose_kernels_by_trial()
        settings, self.placement = task.settings(), task.placement(rank)
        self._joined = ExitStack()  # never closed: the process ends with its last command
        self.ranks = self._joined.enter_context(started(self.placement, task.gpus))
        self._threads = max(1, task.threads // task.gpus)
        self.trainer = build_trainer(settings, self.placement, _STEPS_PER_EPOCH, self.ranks)
        self.trainer.step = EVERY_STEP_UNTIL  # past the steps that are all logged, which costs a look at every gradient
        self._step: Step = self.trainer.train_step
        self._batches: Iterator[tuple[Tensor, Tensor]]
        if task.synthetic:
            batch = _synthetic_batch(settings, self.placement)
            self._batches = itertools.repeat(batch)
            if task.way:
                self._step = step_of(self.trainer, task.way, batch, _HARMLESS_RATE)
        else:
            streams = Streams(Path(task.data), settings, self.placement, task.gpus)
            epochs = map(self.ranks.batches, itertools.repeat(streams.train))
            self._batches = itertools.chain.from_iterable(epochs)
        self._taken, self._seconds, self._waited_seconds = 0, 0.0, 0.0

    def steps(self, times: int) -> None:
        """Take as many steps as the first process is told to, and wait until the device is done with them."""
        torch.set_num_threads(self._threads)  # OpenMP keeps a number for each thread that calls it
        begin = time.perf_counter()
        for _ in range(self.ranks.of_first(times)):
            asked = time.perf_counter()
            images, labels = next(self._batches)
            self._waited_seconds += time.perf_counter() - asked
            self._step(images, labels)
            self._taken += 1
        synchronise(self.placement.device)
        self._seconds += time.perf_counter() - begin

    def taken_as(self) -> str:
        """Take a step; return how, in words. Raises CannotRunError where it is not the one that was to be measured."""
        self.steps(1)
        if self.trainer.wants_fused and not self.trainer.fused:
            raise CannotRunError(self.trainer.steps_taken)
        return self.trainer.steps_taken

    def take(self) -> dict[str, float]:
        """Return what a step took and how much of it was waiting for a batch, since it was last asked."""
        step_ms, waits = 1e3 * self._seconds / self._taken, 100 * self._waited_seconds / self._seconds
        self._taken, self._seconds, self._waited_seconds = 0, 0.0, 0.0
        return {"step ms": step_ms, WAITS: waits}


def network(**options: Any) -> Stage:
    """Train a network. Figures: milliseconds of a step, its parts and communication; how much waits for data."""
    task = Task(**options)
    others = _start_others(task)
    run = Training(task)
    taken_as = run.taken_as()
    in_layers = task.device == "cpu" or task.way in LAYERS
    parts = Parts(run.trainer.net, run.placement.device) if in_layers else None

    def figures() -> dict[str, float]:
        told = run.take() | (parts.take() if parts else {})
        if task.synthetic:
            del told[WAITS]
        if others:
            told["communication ms"] = communication_ms(run.steps)
            run.take()
            if parts:
                parts.take()
        return told

    what = "one batch that is there already" if task.synthetic else "batches of the stream"
    processes = f"{task.gpus} process{'es' * (task.gpus > 1)}, {task.parallel}"
    words = "; ".join(filter(None, (run.placement.why, taken_as, processes, what)))
    return Stage(work=in_chunks(run.steps, task.batch_images), settings=words, least_batches=1, figures=figures)


def kernels(**options: Any) -> Stage:
    """Train a network; tell which kernels a GPU runs in a step, and how long, by PyTorch's profiler."""
    task = Task(**options)
    run = Training(task)
    run.taken_as()
    figures, words = kernels_of(run.steps)
    work = in_chunks(run.steps, task.batch_images)
    return Stage(work=work, settings=words, least_batches=1, figures=lambda: figures)


def loader(**options: Any) -> Stage:
    """Iterate the training stream of one process as the trainer would get it, letting go of each batch."""
    task = Task(**options)
    settings = task.settings()
    streams = Streams(Path(task.data), settings, task.placement())

    def work() -> Work:
        while True:
            for _, labels in streams.train:
                synchronise(task.device)
                yield len(labels)

    return Stage(work=work, settings=streams.lines()[-1], ready_batches=settings.stream.depth + 1)


def _synthetic_batch(settings: RunSettings, placement: Placement) -> tuple[Tensor, Tensor]:
    """Return this process's part of a batch, in the memory order and type that the stream yields."""
    layout, px = placement.layout, settings.augment.crop_px
    rows, convolved = (len(part(settings.train.batch_images)) for part in (layout.group_part, layout.convolved))
    generator = torch.Generator().manual_seed(layout.group)
    images = torch.randn(convolved, 3, px, px, generator=generator) * DEVIATIONS[settings.augment.scale]
    labels = torch.randint(settings.net.classes, (rows,), generator=generator)
    kind = getattr(torch, placement.batch_type)
    return images.to(placement.device, kind, memory_format=torch.channels_last), labels.to(placement.device)


def in_chunks(steps: Callable[[int], None], batch_images: int) -> Callable[[], Work]:
    """Count the images of as many steps at a time as last for a twentieth of a second."""

    def work() -> Iterator[float]:
        steps(1)
        begin = time.perf_counter()
        steps(1)
        chunk = max(1, int(_CHUNK_SECONDS / max(time.perf_counter() - begin, 1e-6)))
        while True:
            steps(chunk)
            yield chunk * batch_images

    return work


def _start_others(task: Task) -> TCPStore | None:
    """Start the processes of ranks 1 and on; return what they and this one meet by. They end when this one does."""
    if task.gpus == 1:
        return None
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # port 0: one that is free
    for rank in range(1, task.gpus):
        get_context("spawn").Process(target=_follow, args=(task, rank, store.port), daemon=True).start()
    take_place(0, task.gpus, store.port)
    return store


def _follow(task: Task, rank: int, port: int) -> None:
    """Take the steps that the first process takes, until it is gone."""
    leave_with_parent()
    take_place(rank, task.gpus, port)
    run = Training(task, rank)
    while True:
        run.steps(0)
