"""How a stream runs (`StreamSettings`), and the checks of what users give: each refusal is one line."""

import operator
import os
import reprlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_type_hints

import numpy as np

from alexnet.shards.errors import InputError, one_line
from alexnet.shards.manifest import SPLITS, Split
from alexnet.shards.resources import usable_cores
from alexnet.shards.torchrun import told
from alexnet.shards.url import as_url

if TYPE_CHECKING:
    import torch

Output = Literal["uint8", "float32", "float16", "bfloat16"]
OnError = Literal["stop", "skip"]
Order = Literal["global", "blocks"]
Resident = Literal["auto", "on", "off"]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """Settle where images come from and how they are decoded.

    `order`: `global` shuffles everything with everything, `blocks` inside windows of `window_shards`, for storage that
    wants to be read from front to back. `decode`: `default`, `gpu`, `dali`, `host` or `split=SHARE`, see `decode.py`.
    `threads`: of the decoder, 0 for one a core, under torchrun of the process's share.
    `depth`: finished batches kept waiting. `read_ahead_batches`: how far ahead storage is told what is wanted, 0 for
    not at all. `on_error`: at a sample that cannot be used, `stop`, or `skip` it: its batch is then one image smaller,
    and the stream's meter counts it. `resident`: whether a GPU keeps images as planes, see `resident.py`: `auto` where
    all fit and the decoder can yield them, `on` also a part. `cache`, `cache_gb`: of a data set in object storage, the
    folder (default: `~/.cache/alexnet/remote`) that keeps whole shards, and how many GB it may take.
    """

    order: Order = "global"
    window_shards: int = 16
    decode: str = "default"
    threads: int = field(default=0, metadata={"may_differ": True})
    depth: int = field(default=2, metadata={"may_differ": True})
    read_ahead_batches: int = field(default=8, metadata={"may_differ": True})
    on_error: OnError = "stop"
    resident: Resident = field(default="auto", metadata={"may_differ": True})
    cache: str = field(default="", metadata={"may_differ": True})
    cache_gb: float = field(default=20.0, metadata={"may_differ": True})

    def __post_init__(self) -> None:
        check_kinds(self)
        for name, least in (("window_shards", 1), ("threads", 0), ("depth", 1), ("read_ahead_batches", 0)):
            whole(name, getattr(self, name), least)
        if not 0 < self.cache_gb < 1e9:
            raise InputError(f"cache_gb={self.cache_gb}: must be a number of GB above 0")


def whole(name: str, value: Any, least: int | None = None) -> int:
    """Return a whole number as Python's own: NumPy's overflow in a hash and do not go into JSON."""
    is_whole = isinstance(value, float) and value.is_integer()
    try:
        number = int(operator.index(int(value) if is_whole else value))  # of True, `index` alone makes True
    except TypeError:
        raise refusal(name, value, "a whole number") from None
    if least is not None and number < least:
        raise InputError(f"{name}={number}: must be at least {least}")
    return number


def flag(name: str, value: Any) -> bool:
    """Return True or False; a text is neither, as any text would be true: `"False"` as well."""
    if isinstance(value, int | np.generic) and value in (0, 1):
        return bool(value)
    raise refusal(name, value, "True or False")


def choice(name: str, value: Any, allowed: Sequence[T]) -> T:
    """Return the one of the allowed values that was given."""
    if value in allowed:
        return allowed[allowed.index(value)]
    raise refusal(name, value, f"one of {', '.join(map(str, allowed))}")


def settings_of(name: str, given: T | None, kind: type[T]) -> T:
    """Return the settings that were given, or else the defaults."""
    if given is None or isinstance(given, kind):
        return given or kind()
    raise refusal(name, given, f"{kind.__name__}(...)")


def check_kinds(settings: object) -> None:
    """Check that the fields of a dataclass hold what they are declared to: numbers, flags, text or a choice."""
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if allowed := get_args(kind):
            choice(name, value, allowed)
        elif kind is int:
            whole(name, value)
        elif kind is bool:
            flag(name, value)
        elif not isinstance(value, Real if kind is float else kind):
            raise refusal(name, value, "a number" if kind is float else "text")


def refusal(name: str, value: object, wanted: str) -> InputError:
    """Return the error that names what was given and what is wanted, to be raised."""
    return InputError(f"{name}={shown(value)}: must be {wanted}")


def shown(value: object) -> str:
    """Return anything as a short text of one line."""
    return one_line(reprlib.repr(value))


def split_of(given: str | bytes | os.PathLike[str]) -> tuple[str, Split]:
    """Return data set, a path or a URL, and split of one such as DIR/train. Raises InputError for another."""
    try:
        text = os.fsdecode(given)
    except TypeError:
        raise refusal("path", given, "a split of a data set, such as DIR/train") from None
    path = as_url(text) or str(Path(text))
    whole, _, name = path.rpartition("/")
    for split in SPLITS:
        if name == split:
            return whole or ("/" if path.startswith("/") else "."), split
    raise InputError(f"{path}: give a split of a data set, such as {path}/train or {path}/val")


def rank_of(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return rank and world size, by default torchrun's; one without the other would give ranks the same part."""
    part = told("RANK") if rank is None else whole("rank", rank)
    parts = told("WORLD_SIZE") if world_size is None else whole("world_size", world_size, 1)
    if (part is None and parts not in (None, 1)) or (parts is None and part not in (None, 0)):
        raise InputError(
            f"rank={part}, world_size={parts}: give both, as torchrun does with RANK and WORLD_SIZE in the environment"
        )
    return part or 0, 1 if parts is None else parts


def global_batch_of(batch_images: int | None, batch_size: object, world_size: int) -> int:
    """Return the images of a batch of all ranks together; `batch_size` means those of one rank elsewhere: refused."""
    if batch_size is not None:
        raise InputError(
            f"batch_size={shown(batch_size)}: give batch_images, the images in a batch of all ranks together: "
            f"{world_size} times those of one, as the world size is {world_size}"
        )
    if batch_images is None:
        raise InputError("batch_images: must be given, the images in a batch of all ranks together")
    return whole("batch_images", batch_images, 1)


def threads_of(threads: int | None) -> int:
    """Return how many threads decode: by default one a core of this process's share, if torchrun started several."""
    return whole("threads", threads or max(1, usable_cores() // (told("LOCAL_WORLD_SIZE") or 1)), 1)


def device_id_of(device: "str | torch.device") -> int | None:
    """Return the number of a GPU, None for the CPU. `cuda` is the one that `torch.cuda.set_device` chose, else 0."""
    kind, _, number = str(device).partition(":")
    if kind == "cpu":
        return None
    if kind == "cuda" and not number:
        torch = sys.modules.get("torch")  # who has not loaded it has chosen none
        return torch.cuda.current_device() if torch and torch.cuda.is_initialized() else 0
    if kind == "cuda" and number.isdecimal():
        return int(number)
    raise refusal("device", device, "cpu, cuda or cuda:N")
