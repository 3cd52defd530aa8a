"""Count what a stream delivered and how long its consumer had to wait for it."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class StreamMeter:
    """Hold running totals: `images` and `batches` handed over, `skipped` samples that could not be used.

    `wait_seconds`: how long the consumer was blocked. `last_skipped`: one line a sample, of the newest hundred.
    """

    images: int = 0
    batches: int = 0
    skipped: int = 0
    wait_seconds: float = 0.0
    last_skipped: deque[str] = field(default_factory=lambda: deque(maxlen=100))

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
