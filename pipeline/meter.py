"""Count what a stream delivered and how long its consumer had to wait for it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class StreamMeter:
    """Hold running totals: `images` and `batches` handed over, seconds the consumer was blocked in `wait_seconds`."""

    images: int = 0
    batches: int = 0
    wait_seconds: float = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.wait_seconds += time.perf_counter() - started

    def delivered(self, images: int) -> None:
        """Count one batch."""
        self.images += images
        self.batches += 1
