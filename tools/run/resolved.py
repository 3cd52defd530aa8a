"""What the user asked for, resolved: every setting of the run, the folder it goes to, and the description of it all."""

import dataclasses
from importlib.metadata import version
from pathlib import Path

import torch

from alexnet import __version__
from alexnet.model.placement import Placement
from alexnet.shards.manifest import Manifest
from alexnet.tools.run.fitting import check_fit
from alexnet.tools.run.options import TrainOptions
from alexnet.tools.run.settings import RunSettings, load_recipe, with_overrides, with_setting

# Options that are settings under a shorter name.
_KEYS = {
    "arch": "net.arch",
    "epochs": "train.epochs",
    "steps": "train.steps",
    "seed": "train.seed",
    "checkpoint_every": "train.checkpoint_every",
    "keep": "train.keep_checkpoints",
    "final_views": "train.final_views",
    "decode": "stream.decode",
    "lighting": "augment.lighting",
}


def resolve(options: TrainOptions, manifest: Manifest) -> RunSettings:
    """Merge recipe, options and `--set` into the settings of a run."""
    settings = load_recipe(options.recipe)
    for option, key in _KEYS.items():
        if (value := getattr(options, option)) is not None:
            settings = with_setting(settings, key, value)
    if options.deterministic:
        settings = with_setting(settings, "train.deterministic", True)
    settings = with_overrides(settings, options.assignments)
    check_fit(settings, manifest)
    return dataclasses.replace(settings, net=dataclasses.replace(settings.net, classes=len(manifest.classes)))


def folder_of(options: TrainOptions, data: Path, settings: RunSettings) -> Path:
    """Return where the run goes: where it was told to, or a place that is named after it."""
    return options.out or Path("runs") / f"{data.absolute().name}-{options.name}-seed{settings.train.seed}"


def identity(settings: RunSettings, manifest: Manifest, placement: Placement) -> dict[str, object]:
    """Describe a run fully: equal descriptions, equal runs (on machines whose arithmetic is equal)."""
    return {
        **settings.as_json(),
        "data": {"manifest": manifest.digest()},
        "placement": {"device": placement.device.type, "bf16": placement.bf16},
        "versions": {"alexnet": __version__, "torch": torch.__version__, "dali": version("nvidia-dali-cuda130")},
    }
