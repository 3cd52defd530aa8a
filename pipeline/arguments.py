"""What a user gives `ImageStream`, checked before anything is opened or started; each refusal is one line."""

import os
from pathlib import Path
from typing import Literal, get_args

from alexnet.pipeline.augment import AugmentSettings
from alexnet.pipeline.blueprint import Blueprint
from alexnet.pipeline.decoders.choice import Decode
from alexnet.pipeline.finish import Finish, finish_of
from alexnet.pipeline.host.extension import available
from alexnet.pipeline.plan import Planner, PlanSettings
from alexnet.pipeline.settings import Output
from alexnet.pipeline.views import Views, ten_views
from alexnet.shards.cores import usable_cores
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import SPLITS
from alexnet.shards.reader import SplitReader


def split_of(path: Path) -> tuple[Path, Literal["train", "val"]]:
    """Take a path apart into data set and split."""
    for split in SPLITS:
        if path.name == split:
            return path.parent, split
    raise InputError(f"{path}: give a split of a data set, such as {path / 'train'} or {path / 'val'}")


def torchruns(name: str, default: int) -> int:
    """Return a number that torchrun puts into the environment of its processes."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise InputError(f"{name}={text!r} in the environment: must be a number, as torchrun sets it; unset it")
    return int(text)


def own_rank(ranks: int | None) -> int:
    """Return this process's number among torchrun's. `ranks`: None if that is torchrun's, too, which then says both."""
    for name, other, alone in (("RANK", "WORLD_SIZE", 0), ("WORLD_SIZE", "RANK", 1)):
        if ranks is None and other not in os.environ and (number := torchruns(name, alone)) > alone:
            raise InputError(f"{name}={number} in the environment, but no {other}: set both, as torchrun does, or none")
    return torchruns("RANK", 0)


def own_cores() -> int:
    """Count the cores that are this process's share, where torchrun has started several on this machine."""
    return max(1, usable_cores() // max(1, torchruns("LOCAL_WORLD_SIZE", 1)))


def planner_of(reader: SplitReader, augment: AugmentSettings, settings: PlanSettings) -> Planner:
    """Make the planner of a split."""
    manifest = reader.manifest
    return Planner(
        settings, augment, manifest.colour, manifest.size_px, len(reader), [shard.images for shard in reader.shards]
    )


def pixels_of(reader: SplitReader, augment: AugmentSettings, *, training: bool, epoch: int = 0) -> Finish:
    """Return what becomes of a split's pixels in an epoch."""
    mean_image = reader.mean_image() if augment.mean == "image" else None
    return finish_of(augment, reader.manifest.colour, mean_image, training=training, epoch=epoch)


def decode_of(text: str, blueprint: Blueprint) -> Decode:
    """Read the decoder's name; on a CPU settle `auto`. Raises InputError for one that is not there."""
    on_gpu = blueprint.device_id is not None
    decode = Decode.parse(text, on_gpu=on_gpu)
    reason = available()
    if reason is not None and decode.dali_share is not None and decode.dali_share < 1:
        raise InputError(f"decode={text!r}: {reason}; or use decode='dali'")
    return decode if on_gpu else decode.on_cpu(host_is_there=reason is None)


def known_output(output: Output) -> Output:
    """Check the type of the pixels."""
    if output in get_args(Output):
        return output
    raise InputError(f"output={output!r}: must be one of {', '.join(get_args(Output))}")


def known_views(views: int, reader: SplitReader, augmentation: AugmentSettings, *, augment: bool) -> Views | None:
    """Return the ten views if they are asked for and make sense."""
    if views not in (1, 10):
        raise InputError(f"views={views}: must be 1 or 10, the paper's number")
    if views == 1:
        return None
    if augment:
        raise InputError("views=10: is for evaluation; give augment=False as well")
    return ten_views(reader.manifest.size_px, augmentation.crop_px)


def device_id(device: str) -> int | None:
    """Return the number of a GPU, None for the CPU."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return None
    if kind == "cuda" and (number.isdigit() or not number):
        return int(number or 0)
    raise InputError(f"device={device!r}: must be cpu, cuda or cuda:N")
