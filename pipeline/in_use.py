"""Keep memory that a GPU still reads from being used again: DALI's, and the host's that is pinned."""

from collections import deque

import torch


class InUse:
    """Hold on to what a stream reads until it has, without waiting for it."""

    def __init__(self) -> None:
        self._kept: deque[tuple[torch.cuda.Event, tuple[object, ...]]] = deque()

    def keep(self, *objects: object) -> torch.cuda.Event:
        """Keep objects until the current stream has done what is queued there by now; return the event of that."""
        while self._kept and self._kept[0][0].query():
            self._kept.popleft()
        done = torch.cuda.Event()
        done.record()
        self._kept.append((done, objects))
        return done

    def close(self) -> None:
        """Wait until nothing is in use any more."""
        for done, _ in self._kept:
            done.synchronize()
        self._kept.clear()
