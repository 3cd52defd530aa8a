"""What it costs to give `alexnet-prep shard` the same command again: on a set that is half done, and on a complete one.

The calls are the command's own, without the start of Python: list the source, claim the folder, find the shards that
are done, start a worker, finish. Few images in many shards, since it is shards that are checked; ImageNet has 257.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alexnet.tools.bench.measuring.figures import spread
from alexnet.tools.convert.build import BuildOptions, Progress, build
from alexnet.tools.convert.folder import index_cache
from alexnet.tools.convert.listing import Source
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.sources import open_source

_SHARDS = 64
_SHARD_IMAGES = 4


class _HalfDoneError(Exception):
    """Stop a conversion as an interruption does."""


@dataclass
class ResumeCosts:
    """Collect seconds, a value a round.

    `headers`: listing all of the source. `index`: the same from the index that an interrupted call kept. `resumed`: a
    call on a half-done set, without the time from its first image to its last. `complete`: a call on a complete set;
    it reads the headers, too. `done_shards`, `shards`: of the half-done set.
    """

    headers: list[float] = field(default_factory=list)
    index: list[float] = field(default_factory=list)
    resumed: list[float] = field(default_factory=list)
    complete: list[float] = field(default_factory=list)
    done_shards: int = 0
    shards: int = 0

    def report(self) -> dict[str, Any]:
        """Return the figures over the rounds."""
        seconds = {"headers_s": self.headers, "index_s": self.index}
        seconds |= {"resumed_s": self.resumed, "complete_s": self.complete}
        spreads = {name: spread(values) for name, values in seconds.items()}
        return {"shards": self.shards, "done_shards": self.done_shards, **spreads}

    def measure(self, root: Path, sample: Callable[[Source, int], Source]) -> None:
        """Measure one round. `sample` takes some images of a source."""
        with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as folder:
            out = Path(folder) / "set"
            out.mkdir()
            _call(root, out, sample, self.headers, _until_half)
            self.done_shards = len(list(out.rglob("*.tar")))
            calls = _Calls()
            started = time.perf_counter()
            _call(root, out, sample, self.index, calls.note)
            self.resumed.append(time.perf_counter() - started - calls.seconds_at_work())
            self.shards = len(list(out.rglob("*.tar")))
            started = time.perf_counter()
            _call(root, out, sample, [], calls.note)
            self.complete.append(time.perf_counter() - started)


def _call(
    root: Path,
    out: Path,
    sample: Callable[[Source, int], Source],
    opening: list[float],
    on_progress: Callable[[Progress], None],
) -> None:
    """Do what a call of the command does."""
    started = time.perf_counter()
    source = open_source(root, index_cache(out))
    opening.append(time.perf_counter() - started)
    few = sample(source, _SHARDS * _SHARD_IMAGES)
    images = len(few.members["train"])
    settings = ConvertSettings(shard_images=max(1, -(-images // _SHARDS)))
    try:
        build(few, out, settings, BuildOptions(max_rejected=images), on_progress)
    except _HalfDoneError:
        return


def _until_half(done: Progress) -> None:
    if done.written + done.rejected >= done.total / 2:
        raise _HalfDoneError


class _Calls:
    """Note when the first image of a call was done and when the last; reports come at the end of every shard."""

    def __init__(self) -> None:
        self._first = self._last = 0.0
        self._done = 0

    def note(self, progress: Progress) -> None:
        done = progress.written + progress.rejected
        if done > self._done:
            self._done, self._last = done, time.perf_counter()
            self._first = self._first or self._last

    def seconds_at_work(self) -> float:
        return self._last - self._first
