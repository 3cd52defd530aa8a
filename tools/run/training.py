"""Join stream, network and trainer into one run: the only place where `pipeline` and `model` meet."""

import dataclasses
import functools
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import click

from alexnet.model.evaluate import Evaluation, evaluate
from alexnet.model.metrics import Metrics, Sink
from alexnet.model.needs import memory_in_use
from alexnet.model.placement import Placement, choose_kernels_by_trial, make_deterministic, worker_of_environment
from alexnet.model.ranks import Ranks, started
from alexnet.model.trainer import Trainer
from alexnet.shards.errors import InputError
from alexnet.shards.local_root import local_root
from alexnet.shards.manifest import Manifest, read_manifest
from alexnet.shards.url import place_of
from alexnet.tools.console import find_data, tell
from alexnet.tools.host_memory import keep_freed_memory
from alexnet.tools.output_folder import locked
from alexnet.tools.pages.run import report_after
from alexnet.tools.run.assembly import Streams, build_trainer, place, start_from
from alexnet.tools.run.ending import StopSignal, ending_in_words, lost_process_in_words, say_stopping, stop_at_once
from alexnet.tools.run.launch import launch
from alexnet.tools.run.plan import describe_run, dry_run
from alexnet.tools.run.run_folder import RunFolder
from alexnet.tools.run.saving import Saving
from alexnet.tools.run.settings import RunSettings, TrainOptions, fitted, identity, merged
from alexnet.tools.run.sinks import check_tensorboard, open_sinks
from alexnet.tools.use.run_files import keep_data_record

T = TypeVar("T")


@lost_process_in_words()
def run_training(options: TrainOptions) -> None:
    """Run `alexnet-train` from its options to the finished run folder: here, or in as many processes as it takes."""
    if options.tensorboard:
        check_tensorboard()
    settings, (where, why) = merged(options), find_data(options.data)
    data = local_root(where, settings.stream.cache)
    manifest = read_manifest(data)
    settings, worker = fitted(settings, manifest), worker_of_environment()
    placement = place(options, settings, worker)
    if options.dry_run:
        dry_run(data, options.recipe, settings, placement, manifest)
        return
    if placement.layout.ranks > 1 and worker is None:
        launch(functools.partial(run_training, options), placement.layout.ranks)
        return
    _prepare_process(placement, settings)
    local_ranks = worker.local_ranks if worker else 1
    with ExitStack() as held:
        with started(placement, local_ranks) as ranks:
            _check_alike(ranks, data, manifest)
            out = options.folder(data, settings.train.seed)
            check = _in_first(ranks, lambda: held.enter_context(locked(out, "alexnet-train")))
            streams = Streams(data, settings, placement, local_ranks)
            start: dict[str, dict[str, str]] = {}
            prepare = functools.partial(start_from, options.init, settings, start) if options.init else None
            trainer = build_trainer(settings, placement, len(streams.train), ranks, prepare)
            description = {**identity(settings, manifest, placement), **start}
            folder = _in_first(ranks, lambda: _run_folder(out, description, options, data, manifest))
            if folder:
                tell(f"data: {place_of(data)} ({why}); {streams.describe(manifest)}")
                click.echo("\n".join(describe_run(settings, streams, placement)))
                if start:
                    tell(f"initial values: {start['start']['layers']} from {options.init}, others drawn")
            saving = Saving(folder, ranks, keep=settings.train.keep_checkpoints, check=check)
            with ending_in_words(trainer, settings):
                saving.continue_from_newest(trainer, streams.train)
                sinks = open_sinks(folder, settings, trainer, tensorboard=options.tensorboard)
                _train(folder, trainer, streams, saving, sinks)
        if folder:
            report_after(folder.path)


def _prepare_process(placement: Placement, settings: RunSettings) -> None:
    if placement.device.type == "cpu":
        keep_freed_memory()
    choose_kernels_by_trial()
    if settings.train.deterministic:
        make_deterministic()


def _check_alike(ranks: Ranks, data: Path, manifest: Manifest) -> None:
    """Refuse to begin where processes have other data, of another machine or replaced while they started."""
    if ranks.any(ranks.of_first(manifest.digest()) != manifest.digest()):
        raise InputError(f"{place_of(data)}: is not the same data set for all processes; give the same command again")


def _in_first(ranks: Ranks, make: Callable[[], T]) -> T | None:
    """Return what the first process makes, there, and None in the others; what is refused there is refused in all."""
    made, refused = None, None
    if ranks.layout.rank == 0:
        try:
            made = make()
        except InputError as error:
            refused = error
    if refused := ranks.of_first(refused):
        raise refused
    return made


def _run_folder(
    out: Path, description: dict[str, Any], options: TrainOptions, data: Path, manifest: Manifest
) -> RunFolder:
    """Make a folder this run's, with what a user of the network must know of its data."""
    folder = RunFolder(out, description, overwrite=options.overwrite, resume=options.resume)
    try:
        keep_data_record(folder.path, data, manifest, mean_image=description["augment"]["mean"] == "image")
    except InputError:
        folder.give_up()
        raise
    return folder


def _train(folder: RunFolder | None, trainer: Trainer, streams: Streams, saving: Saving, sinks: list[Sink]) -> None:
    """Train to the end, evaluate what is left to, and finish the run. `folder`: None in all processes but the first."""
    streams.decode_alike()
    metrics = Metrics(sinks, memory_in_use(trainer.placement.device), streams.traffic)
    stop = StopSignal(say_stopping, stop_at_once) if trainer.ranks.layout.ranks == 1 else StopSignal()
    started_at, first_step = time.perf_counter(), trainer.step
    with stop.listening():
        try:
            with saving:
                validation = trainer.train(streams.train, streams.validation, metrics, saving.save, stop)
        finally:
            for sink in sinks:
                sink.close()
            streams.close()
        seconds = time.perf_counter() - started_at
        evaluations = {"validation": validation, **_last_evaluations(trainer, streams, stop)}
        if folder:
            _finish(folder, trainer, evaluations, metrics, seconds, trainer.step - first_step)


def _last_evaluations(trainer: Trainer, streams: Streams, stop: StopSignal) -> dict[str, Evaluation]:
    """Evaluate as the settings want it at the end: over more views, over the training images."""
    settings, sources = trainer.settings, {}
    if settings.final_views > settings.views:
        sources["final_validation"] = streams.validation_of(settings.final_views)
    if settings.train_accuracy:
        sources["training"] = streams.train_as_evaluated()
    evaluations = {}
    for name, source in sources.items():
        with source:
            evaluations[name] = evaluate(trainer.net, source, trainer.placement, trainer.ranks, stop)
    return evaluations


def _finish(
    folder: RunFolder,
    trainer: Trainer,
    evaluations: dict[str, Evaluation],
    metrics: Metrics,
    seconds: float,
    steps: int,
) -> None:
    """Say how it went, and mark the run as finished. `steps`: of this process."""
    speed = metrics.training_images / metrics.training_seconds if metrics.training_seconds else 0.0
    pace = f"{speed:,.1f} images/s in training" if speed else "none of them here: what was left was to evaluate"
    earlier = f" after {trainer.step - steps:,} of an earlier call" if steps < trainer.step else ""
    click.echo(f"{steps:,} steps{earlier} in {seconds:.0f} s, {pace}")
    result: dict[str, Any] = {"steps": trainer.step, "images_per_s": speed}
    for name, evaluation in evaluations.items():
        if evaluation.of:
            click.echo(f"{_SAID[name]}: {evaluation}")
        if evaluation.images:
            result[name] = dataclasses.asdict(evaluation)
    folder.finish(result)


_SAID = {
    "validation": "validation",
    "final_validation": "validation at the end",
    "training": "training images, without augmentation and dropout",
}
