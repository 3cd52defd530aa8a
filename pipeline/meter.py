"""Count what a stream delivered, how long its consumer had to wait for it, and what memory it took."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alexnet.shards.url import Traffic

if TYPE_CHECKING:
    import torch


@dataclass
class StreamMeter:
    """Hold running totals: `images` and `batches` handed over, `skipped` samples that could not be used.

    `wait_seconds`: how long the consumer's thread was blocked. `device_wait_seconds`: how long a GPU's stream stood
    still for a batch, as far as it has got; 0 on a CPU. `last_skipped`: one line a sample, of the newest hundred.
    `peak_device_bytes`: most memory in use on the GPU, by everyone, as sampled. `pinned_bytes`: host memory that the
    host decoder pinned. `traffic`: of object storage, None where the data lie in a folder.
    """

    images: int = 0
    batches: int = 0
    skipped: int = 0
    wait_seconds: float = 0.0
    peak_device_bytes: int = 0
    pinned_bytes: int = 0
    traffic: Traffic | None = None
    last_skipped: deque[str] = field(default_factory=lambda: deque(maxlen=100))
    _device_wait_seconds: float = 0.0
    _open_waits: "deque[tuple[torch.cuda.Event, torch.cuda.Event]]" = field(default_factory=deque)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.wait_seconds += time.perf_counter() - started

    def delivered(self, images: int, skipped: Sequence[str] = ()) -> None:
        """Count one batch, and say why samples were left out of it."""
        self.images += images
        self.batches += 1
        self.skipped += len(skipped)
        self.last_skipped.extend(skipped)

    def waited_on_device(self, begin: "torch.cuda.Event", end: "torch.cuda.Event") -> None:
        """Take the two events around a GPU's wait for a batch; they are read when the device has passed them."""
        self._open_waits.append((begin, end))
        self._settle()

    def used_memory(self, device_bytes: int, pinned_bytes: int) -> None:
        """Note what is in use now."""
        self.peak_device_bytes = max(self.peak_device_bytes, device_bytes)
        self.pinned_bytes = max(self.pinned_bytes, pinned_bytes)

    @property
    def device_wait_seconds(self) -> float:
        """Return the sum of the waits that the device has passed; asking does not make anyone wait."""
        self._settle()
        return self._device_wait_seconds

    def _settle(self) -> None:
        while self._open_waits and self._open_waits[0][1].query():
            begin, end = self._open_waits.popleft()
            self._device_wait_seconds += begin.elapsed_time(end) / 1000
