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
from alexnet.model.checkpoint import Checkpoint, CheckpointError, checkpoints, load_checkpoint, save_checkpoint
from alexnet.model.evaluate import Evaluation, evaluate
from alexnet.model.initialise import initialise
from alexnet.model.metrics import Metrics
from alexnet.model.networks.build import build_network, parameter_count
from alexnet.model.networks.figures import figures
from alexnet.model.networks.settings import drawing_of
from alexnet.model.optim import MomentumSGD
from alexnet.model.placement import Placement, Worker, choose_placement, worker_of_environment
from alexnet.model.ranks import OneProcess, Ranks, started
from alexnet.model.schedule import Schedule
from alexnet.model.traffic import describe_layout
from alexnet.model.trainer import StopRequestedError, Trainer
from alexnet.model.warm_start import take_weights
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Manifest, read_manifest
from alexnet.tools.command import StoppedError
from alexnet.tools.data import find_data
from alexnet.tools.host_memory import keep_freed_memory
from alexnet.tools.interruption import INTERRUPTED
from alexnet.tools.run.fitting import check_fit, check_layout
from alexnet.tools.run.launch import launch
from alexnet.tools.run.options import TrainOptions
from alexnet.tools.run.run_folder import RunFolder
from alexnet.tools.run.settings import RunSettings, load_recipe, with_overrides, with_setting
from alexnet.tools.run.sinks import JsonLines, Terminal
from alexnet.tools.run.stopping import StopSignal
from alexnet.tools.run.streams import Streams


def run_training(options: TrainOptions) -> None:
    """Run `alexnet-train` from its options to the finished run folder: here, or in as many processes as it takes."""
    data, why = find_data(options.data)
    manifest = read_manifest(data)
    settings = resolve(options, manifest)
    worker = worker_of_environment()
    placement = _place(options, settings, worker)
    if placement.layout.ranks > 1 and worker is None:
        launch(functools.partial(run_training, options), placement.layout.ranks)
        return
    if placement.device.type == "cpu":
        keep_freed_memory()
    local_ranks = worker.local_ranks if worker else 1
    with started(placement, local_ranks) as ranks:
        streams = Streams(data, settings, placement, ranks, local_ranks)
        trainer = build_trainer(settings, placement, steps_per_epoch=len(streams.train), ranks=ranks)
        start = start_from(options.init, trainer, settings) if options.init else {}
        folder = None
        if ranks.layout.rank == 0:
            identity = {**_identity(settings, manifest, placement), **start}
            out = options.out or Path("runs") / f"{data.absolute().name}-{options.name}-seed{settings.train.seed}"
            folder = RunFolder(out, identity, overwrite=options.overwrite, resume=options.resume)
            click.echo(f"data: {data} ({why}); {streams.describe(manifest)}")
            _describe(settings, streams, trainer)
            if start:
                click.echo(f"initial values: {start['start']['layers']} from {options.init}, others drawn")
        _continue(folder, trainer, streams.train)
        _train(folder, trainer, streams, settings)


def _parameters(settings: RunSettings) -> int:
    """Count the parameters of the whole network, wherever they are."""
    drawing = drawing_of(settings.net)
    px, channels = drawing.input_px[0], settings.net.input_channels
    return sum(row.parameters for row in figures(drawing, px=px, channels=channels, classes=settings.net.classes))


def _place(options: TrainOptions, settings: RunSettings, worker: Worker | None) -> Placement:
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


def _describe(settings: RunSettings, streams: Streams, trainer: Trainer) -> None:
    """Say what is about to run."""
    for line in streams.lines():
        click.echo(line)
    placement, held = trainer.placement, parameter_count(trainer.net)
    layout = describe_layout(
        settings.net,
        placement,
        batch_images=settings.train.batch_images,
        crop_px=settings.augment.crop_px,
        parameters=held,
    )
    click.echo(f"device: {placement.why}")
    click.echo(f"layout: {layout}")
    click.echo(f"network: {settings.net.arch}, {_parameters(settings):,} parameters; {trainer.total_steps:,} steps")


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


def build_trainer(
    settings: RunSettings, placement: Placement, steps_per_epoch: int, ranks: Ranks | None = None
) -> Trainer:
    """Build network, update rule and schedule where the placement says; in one process unless `ranks` are given."""
    ranks = ranks or OneProcess()
    net = build_network(settings.net, placement.layout.towers, ranks.exchange(settings.net))
    initialise(net, settings.init, settings.train.seed)
    net = net.to(placement.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    total_steps = settings.train.steps or settings.train.epochs * steps_per_epoch
    schedule = Schedule(settings.schedule, settings.optim.lr, total_steps)
    first_layer = next(iter(net.weighted().values()))
    optim = MomentumSGD(net, settings.optim, [module for module in first_layer if module is not None])
    return Trainer(net, optim, schedule, placement, settings.train, total_steps, ranks)


def start_from(file: Path, trainer: Trainer, settings: RunSettings) -> dict[str, dict[str, str]]:
    """Take initial values from a file; return what the run's description says of it."""
    taken = take_weights(trainer.net, file, settings.init.up_to)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"start": {"layers": ", ".join(taken), "sha256": digest}}


def _continue(folder: RunFolder | None, trainer: Trainer, source: BatchSource) -> None:
    """Go on from the newest checkpoint that the first process sees, if there is one."""
    saved = checkpoints(folder.checkpoints) if folder else []
    newest = trainer.ranks.of_first(saved[-1] if saved else None)
    if newest:
        trainer.restore(load_checkpoint(newest), source)
    if folder:
        folder.cut_metrics(trainer.step)
        click.echo(f"run folder: {folder.path}" + (f", continued from step {trainer.step:,}" if newest else ""))


def _train(folder: RunFolder | None, trainer: Trainer, streams: Streams, settings: RunSettings) -> None:
    """Train to the end. `folder`: None in all processes but the first, which alone writes and speaks."""
    sinks: list[JsonLines | Terminal] = []
    if folder:
        sinks = [JsonLines(folder.metrics), Terminal(trainer.total_steps, trainer.step)]
    metrics = Metrics(list(sinks))
    stop = StopSignal(alone=trainer.ranks.layout.ranks == 1)
    started_at = time.perf_counter()
    try:
        with stop.listening():
            save = functools.partial(_save, folder, trainer.ranks, settings.train.keep_checkpoints)
            validation = trainer.train(streams.train, streams.validation, metrics, save, stop)
    except (KeyboardInterrupt, StopRequestedError) as error:
        for sink in sinks:
            sink.close()
        if folder:
            saved = "saved" if isinstance(error, StopRequestedError) else "not saved"
            click.echo(f"interrupted after step {trainer.step:,}, {saved}; the same command continues")
        raise SystemExit(INTERRUPTED) from None
    except CheckpointError as error:
        raise StoppedError(f"{error}; make room and give the same command again") from None
    finally:
        for sink in sinks:
            sink.close()
        streams.close()
    _finish(folder, trainer, streams, validation, metrics, time.perf_counter() - started_at)


def _finish(
    folder: RunFolder | None,
    trainer: Trainer,
    streams: Streams,
    validation: Evaluation,
    metrics: Metrics,
    seconds: float,
) -> None:
    """Evaluate what is left to evaluate, say how it went, and mark the run as finished."""
    result: dict[str, object] = {"validation": dataclasses.asdict(validation)}
    on_train = None
    if trainer.settings.train_accuracy:
        on_train = evaluate(trainer.net, streams.train_as_evaluated(), trainer.placement, trainer.ranks)
        result["training"] = dataclasses.asdict(on_train)
    if not folder:
        return
    speed = metrics.training_images / metrics.training_seconds if metrics.training_seconds else 0.0
    click.echo(f"{trainer.step:,} steps in {seconds:.0f} s, {speed:,.1f} images/s in training")
    if on_train:
        click.echo(f"training images, without augmentation and dropout: {on_train}")
    click.echo(f"validation: {validation}")
    folder.finish(json.loads(json.dumps({"steps": trainer.step, "images_per_s": speed, **result})))


def _save(folder: RunFolder | None, ranks: Ranks, keep: int, checkpoint: Checkpoint) -> None:
    """Write the whole network's checkpoint in the first process; all go on together when it is there."""
    tensors = ranks.whole(checkpoint.tensors)
    if folder and tensors is not None:
        save_checkpoint(folder.checkpoints, dataclasses.replace(checkpoint, tensors=tensors), keep=keep)
    ranks.wait()


def _identity(settings: RunSettings, manifest: Manifest, placement: Placement) -> dict[str, object]:
    """Describe a run fully: equal descriptions, equal runs (on machines whose arithmetic is equal)."""
    return {
        **settings.as_json(),
        "data": {"manifest": manifest.digest()},
        "placement": {"device": placement.device.type, "bf16": placement.bf16},
        "versions": {"alexnet": __version__, "torch": torch.__version__, "dali": version("nvidia-dali-cuda130")},
    }
