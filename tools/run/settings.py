"""What a run is asked to do: the options of `alexnet-train`, its settings, and whether they go together.

Everything a user can get wrong fails here, before any work, in one line that names the key, the value and what is
allowed: a single key in `alexnet.tools.settings`, what does not go together once all keys are known.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import torch

from alexnet import __version__
from alexnet.model.initialise import InitSettings
from alexnet.model.networks.architecture import Architecture, weighted_names
from alexnet.model.networks.settings import NetSettings, architecture_of
from alexnet.model.optim import OptimSettings
from alexnet.model.owt import divided_layers
from alexnet.model.placement import Layout, Parallel, Placement
from alexnet.model.schedule import ScheduleSettings
from alexnet.model.trainer import TrainSettings
from alexnet.pipeline.augment import AugmentSettings
from alexnet.pipeline.nvidia_packages import installed_version
from alexnet.pipeline.settings import StreamSettings
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import Manifest
from alexnet.shards.url import place_of
from alexnet.tools.settings import assigned, recipe_levels, with_settings

_STREAM_CHANNELS = 3
_SEEDS = 2**32  # what dropout's hash takes of a seed
_DATA_OF_SIZE = {28: "MNIST", 32: "CIFAR-10"}


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Hold the command line of `alexnet-train` as given; None where an option was left out.

    `recipe_settings`: what `recipe` says, read once, as its file may be edited while processes start. `settings`: by
    key, of options that are settings under a shorter name. `assignments`: of `--set`.
    """

    data: Path | None
    recipe: str
    recipe_settings: "RunSettings"
    settings: Mapping[str, Any]
    assignments: tuple[str, ...]
    device: str | None
    gpus: int | None
    parallel: Parallel
    init: Path | None
    out: Path | None
    overwrite: bool
    resume: bool
    tensorboard: bool
    dry_run: bool

    def folder(self, data: Path, seed: int) -> Path:
        """Return where the run goes: where it was told to, or a place named after data, recipe, network and seed."""
        recipe = Path(self.recipe).stem
        arch = self.settings.get("net.arch", recipe)
        name = recipe if arch == recipe else f"{recipe}-{arch}"
        return self.out or Path("runs") / f"{Path(place_of(data.absolute())).name}-{name}-seed{seed}"


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Hold every component's settings; the field names are the first half of a `--set` key."""

    net: NetSettings = field(default_factory=NetSettings)
    init: InitSettings = field(default_factory=InitSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    stream: StreamSettings = field(default_factory=StreamSettings)

    def as_json(self) -> dict[str, Any]:
        """Return every setting as plain values, equal to what is read back from a file."""
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return plain

    def with_classes(self, classes: int) -> "RunSettings":
        """Return the settings with the network's outputs, which follow from the data."""
        return dataclasses.replace(self, net=dataclasses.replace(self.net, classes=classes))

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the length of the run in steps."""
        return self.train.steps or self.train.epochs * steps_per_epoch


def may_differ() -> set[str]:
    """Return the keys of settings that may change when a run goes on; their fields are marked so."""
    sections = get_type_hints(RunSettings).items()
    return {f"{section}.{f.name}" for section, kind in sections for f in fields(kind) if "may_differ" in f.metadata}


def load_recipe(recipe: str) -> RunSettings:
    """Read a recipe, shipped or a file; what neither it nor its base names keeps its default. Raises InputError."""
    settings = RunSettings()
    for name, changes in recipe_levels(recipe):
        try:
            settings = _changed(settings, changes)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    return settings


def with_overrides(settings: RunSettings, assignments: Iterable[str]) -> RunSettings:
    """Apply `key=value` assignments in order. Raises InputError for a malformed, unknown or forbidden one."""
    return _changed(settings, [assigned(assignment) for assignment in assignments])


def _changed(settings: RunSettings, changes: list[tuple[str, Any]]) -> RunSettings:
    if any(key == "net.classes" for key, _ in changes):
        raise InputError("net.classes: follows from the data set's manifest and cannot be set")
    return with_settings(settings, changes)


def merged(options: TrainOptions) -> RunSettings:
    """Merge recipe, options and `--set`. Raises InputError for a malformed, unknown or forbidden one."""
    return with_overrides(with_settings(options.recipe_settings, options.settings.items()), options.assignments)


def fitted(settings: RunSettings, manifest: Manifest) -> RunSettings:
    """Return the settings of a run on a data set. Raises InputError if they do not go together."""
    check_fit(settings, manifest)
    return settings.with_classes(len(manifest.classes))


def identity(settings: RunSettings, manifest: Manifest, placement: Placement) -> dict[str, object]:
    """Describe a run fully: equal descriptions, equal runs (on machines whose arithmetic is equal)."""
    return {
        **settings.as_json(),
        "data": {"manifest": manifest.images_digest()},
        "placement": {"device": placement.device.type, "bf16": placement.bf16},
        "versions": {"alexnet": __version__, "torch": torch.__version__, "dali": installed_version("DALI")},
    }


def check_fit(settings: RunSettings, manifest: Manifest) -> None:
    """Raise InputError if settings contradict each other, the network or the data."""
    architecture = architecture_of(settings.net)
    channels, seed, schedule = settings.net.input_channels, settings.train.seed, settings.schedule
    if channels not in (1, _STREAM_CHANNELS):
        raise InputError(f"net.channels={channels}: must be 3, or 1 for the mean of the colours; the stream yields RGB")
    settings.init.check(architecture.name, weighted_names(architecture))
    _check_data(settings, architecture, manifest)
    if not 0 <= seed < _SEEDS:
        raise InputError(f"train.seed={seed}: must be at least 0 and below {_SEEDS}")
    if schedule.drop_epochs and schedule.kind != "steps":
        raise InputError(
            f"schedule.drop_epochs={','.join(map(str, schedule.drop_epochs))}: says nothing to schedule.kind="
            f"{schedule.kind}; set that to steps, or leave drop_epochs out"
        )


def check_layout(settings: RunSettings, layout: Layout) -> None:
    """Raise InputError if the settings do not suit so many processes."""
    if settings.train.batch_images < layout.ranks:
        raise InputError(
            f"train.batch_images={settings.train.batch_images}: must be at least {layout.ranks}, one for each process"
        )
    if layout.owt:
        divided_layers(settings.net, layout.ranks)
    if layout.ranks > 1 and settings.stream.on_error == "skip":
        raise InputError(
            "stream.on_error=skip: works with --gpus 1 only, as several processes must agree on what is in a batch; "
            "--set stream.on_error=stop"
        )


def _check_data(settings: RunSettings, architecture: Architecture, manifest: Manifest) -> None:
    """Look at the size of the stored images first: where it is wrong, the crop's is, too, and is not the reason."""
    if not manifest.counts["train"].written:
        raise InputError("the data set has no training images; give one that has them")
    if architecture.shards_px and manifest.size_px not in architecture.shards_px:
        px = architecture.shards_px[0]
        source = f"{_DATA_OF_SIZE[px]} or other images" if px in _DATA_OF_SIZE else "any images"
        raise InputError(
            f"net.arch={architecture.name}: takes images stored at {architecture.sizes()}, these shards hold "
            f"{manifest.size_px} px; `alexnet-prep shard SOURCE --size {px}` makes them, SOURCE being {source}"
        )
    try:
        architecture.check_px(settings.augment.crop_px)
    except InputError:
        raise InputError(
            f"augment.crop_px={settings.augment.crop_px}: {architecture.name} takes {architecture.sizes()}; "
            f"--set augment.crop_px={architecture.input_px[0]}"
        ) from None
    if settings.schedule.kind == "plateau" and not manifest.counts["val"].written:
        raise InputError(
            "schedule.kind=plateau: the data set has no validation images to tell when to lower the rate; "
            "--set schedule.kind=linear-tail does without"
        )
