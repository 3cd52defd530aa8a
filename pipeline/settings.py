"""How a stream runs: everything about it that is neither the batch nor the augmentation."""

from dataclasses import dataclass
from typing import Literal

from alexnet.pipeline.kinds import check_kinds
from alexnet.pipeline.locality import LocalitySettings, Order
from alexnet.shards.errors import InputError

Output = Literal["uint8", "float32", "float16", "bfloat16"]
OnError = Literal["stop", "skip"]


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """Settle where images come from and how they are decoded.

    `order`: `global` shuffles everything with everything, `blocks` inside windows of `window_shards`, for storage that
    wants to be read from front to back. `decode`: `default`, `auto`, `gpu`, `dali`, `host` or `split=SHARE`, see
    `decoders/choice.py`. `threads`: of the decoder, 0 for one a core, under torchrun of the process's share.
    `depth`: finished batches kept waiting. `read_ahead_batches`: how far ahead storage is told what is wanted, 0 for
    not at all. `on_error`: at a sample that cannot be used, `stop`, or `skip` it: its batch is then one image smaller,
    and the stream's meter counts it.
    """

    order: Order = "global"
    window_shards: int = 16
    decode: str = "default"
    threads: int = 0
    depth: int = 2
    read_ahead_batches: int = 8
    on_error: OnError = "stop"

    def __post_init__(self) -> None:
        check_kinds(self)
        _ = self.locality  # checks its two fields
        for name, least in (("threads", 0), ("depth", 1), ("read_ahead_batches", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)}: must be at least {least}")

    @property
    def locality(self) -> LocalitySettings:
        """Return the two fields that say how far a shuffle reaches."""
        return LocalitySettings(order=self.order, window_shards=self.window_shards)
