"""What a user gives `ImageStream`, checked before anything is opened or started; each refusal is one line."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from alexnet.pipeline.augment import AugmentSettings
from alexnet.pipeline.blueprint import Blueprint
from alexnet.pipeline.decoders.choice import Decode
from alexnet.pipeline.finish import Finish, finish_of
from alexnet.pipeline.host.extension import available
from alexnet.pipeline.kinds import choice, flag, refusal, whole
from alexnet.pipeline.locality import LocalitySettings
from alexnet.pipeline.plan import Planner, PlanSettings
from alexnet.pipeline.settings import Output
from alexnet.pipeline.views import Views, ten_views
from alexnet.shards.errors import InputError
from alexnet.shards.manifest import SPLITS
from alexnet.shards.processes import usable_cores
from alexnet.shards.reader import SplitReader

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def split_of(given: str | bytes | os.PathLike[str]) -> tuple[Path, Literal["train", "val"]]:
    """Take a path apart into data set and split."""
    try:
        path = Path(os.fsdecode(given))
    except TypeError:
        raise refusal("path", given, "a split of a data set, such as DIR/train") from None
    for split in SPLITS:
        if path.name == split:
            return path.parent, split
    raise InputError(f"{path}: give a split of a data set, such as {path / 'train'} or {path / 'val'}")


def settings_of(name: str, given: T | None, kind: type[T]) -> T:
    """Return the settings that were given, or else the defaults."""
    if given is None or isinstance(given, kind):
        return given or kind()
    raise refusal(name, given, f"{kind.__name__}(...)")


def plan_of(
    *,
    batch_images: int,
    seed: int,
    rank: int | None,
    ranks: int | None,
    augment: bool,
    shuffle: bool | None,
    drop_last: bool | None,
    locality: LocalitySettings,
) -> PlanSettings:
    """Settle what a stream yields; what is not given follows from what is, or from torchrun's environment."""
    augment = flag("augment", augment)
    shuffled = augment if shuffle is None else flag("shuffle", shuffle)
    part, parts = _part(rank, ranks)
    return PlanSettings(
        batch_images=whole("batch_images", batch_images),
        seed=whole("seed", seed),
        rank=part,
        ranks=parts,
        shuffle=shuffled,
        augment=augment,
        drop_last=shuffled if drop_last is None else flag("drop_last", drop_last),
        locality=locality,
    )


def _part(rank: int | None, ranks: int | None) -> tuple[int, int]:
    """Return which of how many parts is meant; half of it would give several processes the same part."""
    part = _torchruns("RANK") if rank is None else whole("rank", rank)
    parts = _torchruns("WORLD_SIZE") if ranks is None else whole("ranks", ranks, 1)
    if (part is None and parts not in (None, 1)) or (parts is None and part not in (None, 0)):
        raise InputError(
            f"rank={part}, ranks={parts}: give both, as torchrun does with RANK and WORLD_SIZE in the environment"
        )
    return part or 0, 1 if parts is None else parts


def _torchruns(name: str) -> int | None:
    """Return a number that torchrun puts into the environment of its processes."""
    text = os.environ.get(name)
    if text is not None and not text.isdecimal():
        raise InputError(f"{name}={text!r} in the environment: must be a number, as torchrun sets it; unset it")
    return None if text is None else int(text)


def threads_of(threads: int | None) -> int:
    """Return how many threads decode: by default one a core of this process's share, if torchrun started several."""
    return whole("threads", threads or max(1, usable_cores() // (_torchruns("LOCAL_WORLD_SIZE") or 1)), 1)


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
    return choice("output", output, get_args(Output))


def known_views(views: int, reader: SplitReader, augmentation: AugmentSettings, *, augment: bool) -> Views | None:
    """Return the ten views if they are asked for and make sense."""
    if views not in (1, 10):
        raise InputError(f"views={views!r}: must be 1 or 10, the paper's number")
    if views == 1:
        return None
    if augment:
        raise InputError("views=10: is for evaluation; give augment=False as well")
    return ten_views(reader.manifest.size_px, augmentation.crop_px)


def device_id(device: "str | torch.device") -> int | None:
    """Return the number of a GPU, None for the CPU."""
    kind, _, number = str(device).partition(":")
    if kind == "cpu":
        return None
    if kind == "cuda" and (number.isdecimal() or not number):
        return int(number or 0)
    raise refusal("device", device, "cpu, cuda or cuda:N")
