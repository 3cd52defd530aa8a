"""Join stream, network and trainer into one run: the only place where `pipeline` and `model` meet."""

import dataclasses
import functools
import hashlib
import json
import time
from importlib.metadata import version
from pathlib import Path

import click
import torch

from alexnet import __version__
from alexnet.model.batches import BatchSource
from alexnet.model.checkpoint import CheckpointError, checkpoints, load_checkpoint, save_checkpoint
from alexnet.model.evaluate import evaluate
from alexnet.model.initialise import initialise
from alexnet.model.metrics import Metrics
from alexnet.model.networks.build import build_network, parameter_count
from alexnet.model.optim import MomentumSGD
from alexnet.model.placement import Placement, choose_placement
from alexnet.model.schedule import Schedule
from alexnet.model.trainer import Trainer
from alexnet.model.warm_start import take_weights
from alexnet.pipeline import ImageStream
from alexnet.shards.manifest import Manifest, Split, read_manifest
from alexnet.tools.command import StoppedError
from alexnet.tools.data import find_data
from alexnet.tools.host_memory import keep_freed_memory
from alexnet.tools.run.fitting import check_fit
from alexnet.tools.run.options import TrainOptions
from alexnet.tools.run.run_folder import RunFolder
from alexnet.tools.run.settings import RunSettings, load_recipe, with_overrides, with_setting
from alexnet.tools.run.sinks import JsonLines, Terminal


def run_training(options: TrainOptions) -> None:
    """Run `alexnet-train` from its options to the finished run folder."""
    data, why = find_data(options.data)
    manifest = read_manifest(data)
    settings = resolve(options, manifest)
    placement = choose_placement(options.device, options.gpus, settings.train.precision)
    streams = Streams(data, settings, placement)
    out = options.out or Path("runs") / f"{data.absolute().name}-{options.name}-seed{settings.train.seed}"
    if placement.device.type == "cpu":
        keep_freed_memory()
    trainer = build_trainer(settings, placement, steps_per_epoch=len(streams.train))
    start = start_from(options.init, trainer, settings) if options.init else {}
    identity = {**_identity(settings, manifest, placement), **start}
    folder = RunFolder(out, identity, overwrite=options.overwrite, resume=options.resume)
    click.echo(f"data: {data} ({why}); {streams.describe(manifest)}")
    for line in streams.train.describe():
        click.echo(line)
    click.echo(f"device: {placement.why}")
    count = parameter_count(trainer.net)
    click.echo(f"network: {settings.net.arch}, {count:,} parameters; {trainer.total_steps:,} steps")
    if start:
        click.echo(f"initial values: {start['start']['layers']} from {options.init}, others drawn")
    _continue(folder, trainer, streams.train)
    _train(folder, trainer, streams, settings)


class Streams:
    """Make the run's batch sources: training, validation, and training images as evaluation sees them."""

    def __init__(self, data: Path, settings: RunSettings, placement: Placement) -> None:
        self._data, self._settings, self._placement = data, settings, placement
        self.train = self._stream("train", augment=True)
        self.validation: BatchSource = self._stream("val", augment=False)

    def train_as_evaluated(self) -> BatchSource:
        """Return the training images without augmentation, each once."""
        return self._stream("train", augment=False)

    def describe(self, manifest: Manifest) -> str:
        """Say how much data there is."""
        return (
            f"{len(manifest.classes):,} classes, {self.train.images:,} training and {self.validation.images:,} "
            f"validation images of {manifest.size_px} px"
        )

    def _stream(self, split: Split, *, augment: bool) -> ImageStream:
        return ImageStream(
            self._data / split,
            batch_images=self._settings.train.batch_images,
            seed=self._settings.train.seed,
            rank=0,
            ranks=1,
            augment=augment,
            augmentation=self._settings.augment,
            device=str(self._placement.device),
            channels_last=True,
            settings=self._settings.stream,
        )


def resolve(options: TrainOptions, manifest: Manifest) -> RunSettings:
    """Merge recipe, options and `--set` into the settings of a run."""
    settings = load_recipe(options.recipe)
    if options.arch is not None:
        settings = with_setting(settings, "net.arch", options.arch)
    for name in ("epochs", "steps", "seed", "checkpoint_every"):
        if (value := getattr(options, name)) is not None:
            settings = with_setting(settings, f"train.{name}", value)
    for key, value in (("stream.decode", options.decode), ("augment.lighting", options.lighting)):
        if value is not None:
            settings = with_setting(settings, key, value)
    settings = with_overrides(settings, options.assignments)
    check_fit(settings, manifest)
    return dataclasses.replace(settings, net=dataclasses.replace(settings.net, classes=len(manifest.classes)))


def build_trainer(settings: RunSettings, placement: Placement, steps_per_epoch: int) -> Trainer:
    """Build network, update rule and schedule where the placement says."""
    net = build_network(settings.net)
    initialise(net, settings.init, settings.train.seed)
    net = net.to(placement.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    total_steps = settings.train.steps or settings.train.epochs * steps_per_epoch
    schedule = Schedule(settings.schedule, settings.optim.lr, total_steps)
    first_layer = next(iter(net.weighted().values()))
    optim = MomentumSGD(net, settings.optim, [module for module in first_layer if module is not None])
    return Trainer(net, optim, schedule, placement, settings.train, total_steps)


def start_from(file: Path, trainer: Trainer, settings: RunSettings) -> dict[str, dict[str, str]]:
    """Take initial values from a file; return what the run's description says of it."""
    taken = take_weights(trainer.net, file, settings.init.up_to)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"start": {"layers": ", ".join(taken), "sha256": digest}}


def _continue(folder: RunFolder, trainer: Trainer, source: BatchSource) -> None:
    """Go on from the newest checkpoint, if there is one."""
    saved = checkpoints(folder.checkpoints)
    if not saved:
        folder.cut_metrics(0)
        click.echo(f"run folder: {folder.path}")
        return
    trainer.restore(load_checkpoint(saved[-1]), source)
    folder.cut_metrics(trainer.step)
    click.echo(f"run folder: {folder.path}, continued from step {trainer.step:,}")


def _train(folder: RunFolder, trainer: Trainer, streams: Streams, settings: RunSettings) -> None:
    log, terminal = JsonLines(folder.metrics), Terminal(trainer.total_steps, trainer.step)
    metrics = Metrics([log, terminal])
    started = time.perf_counter()
    try:
        validation = trainer.train(
            streams.train,
            streams.validation,
            metrics,
            functools.partial(save_checkpoint, folder.checkpoints, keep=settings.train.keep_checkpoints),
        )
    except KeyboardInterrupt:
        terminal.close()
        click.echo(f"interrupted after step {trainer.step:,}; the same command continues from the last checkpoint")
        raise SystemExit(130) from None
    except CheckpointError as error:
        raise StoppedError(f"{error}; make room and give the same command again") from None
    finally:
        terminal.close()
        log.close()
        streams.train.close()
        streams.validation.close()
    speed = metrics.training_images / metrics.training_seconds if metrics.training_seconds else 0.0
    result = {"steps": trainer.step, "images_per_s": speed, "validation": dataclasses.asdict(validation)}
    click.echo(f"{trainer.step:,} steps in {time.perf_counter() - started:.0f} s, {speed:,.1f} images/s in training")
    if settings.train.train_accuracy:
        on_train = evaluate(trainer.net, streams.train_as_evaluated(), trainer.placement)
        result["training"] = dataclasses.asdict(on_train)
        click.echo(f"training images, without augmentation and dropout: {on_train}")
    click.echo(f"validation: {validation}")
    folder.finish(json.loads(json.dumps(result)))


def _identity(settings: RunSettings, manifest: Manifest, placement: Placement) -> dict[str, object]:
    """Describe a run fully: equal descriptions, equal runs (on machines whose arithmetic is equal)."""
    return {
        **settings.as_json(),
        "data": {"manifest": manifest.digest()},
        "placement": {"device": placement.device.type, "bf16": placement.bf16},
        "versions": {"alexnet": __version__, "torch": torch.__version__, "dali": version("nvidia-dali-cuda130")},
    }
