"""The stages of a data set of planes on a CPU: the stream, from memory and from disk, and the memory traffic it needs.

Planes have more bytes than JPEGs: those that are measured from memory are read once before, where there is room.
"""

from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.pipeline import ImageStream
from alexnet.pipeline.settings import Order, Output, Resident
from alexnet.shards.resources import available_memory
from alexnet.tools.bench import loader_stages
from alexnet.tools.bench.bench_data import LoaderTask
from alexnet.tools.bench.stage import CannotRunError, Stage, Work

_MOST_OF_MEMORY = 0.5  # of what is available; planes that take more are measured as they lie, cached or not
_BLOCK_BYTES = 4 << 20
_BUFFERS = 3  # that the stream writes in turn: one is used, one written, one made ready
_WINDOWS = 4  # of shards, in an epoch from disk
_FILES = 256  # shards that are held open


def stream(*, output: Output, device: str = "cpu", resident: Resident = "off", **task: Any) -> Stage:
    """Iterate the stream over planes in the system's cache; where a GPU keeps them, once an epoch has brought them."""
    given = LoaderTask(**task)
    _bring_in(given.files)
    stage = loader_stages.stream(output=output, device=device, resident=resident, **task)

    def later() -> Work:
        going = stage.work()
        for _ in range(len(given.reader) // given.batch_images):
            next(going)  # untimed, as it comes before the first batch
        yield from going

    return stage if resident == "off" else replace(stage, work=later)


def cold_stream(*, output: Output, order: Order, **task: Any) -> Stage:
    """Begin an epoch in each round, of shards that the system was told to forget; where it ends, the round ends.

    In order `blocks` a window's shards are read while the one before is used, so the first, which has none, is untimed.
    """
    given, going = LoaderTask(**task), list[ImageStream]()
    shards = given.reader.shards
    window_shards, first = len(shards) // _WINDOWS, 0
    if order == "blocks":
        if not window_shards:
            raise CannotRunError(f"the data set has {len(shards)} shards, and {_WINDOWS} windows of them are wanted")
        first = sum(shard.images for shard in shards[:window_shards]) // given.batch_images + 1

    def work() -> Work:
        loader_stages.forget(given.files)
        going.append(loader_stages.open_stream(output=output, order=order, window_shards=window_shards or 1, **task))
        return (len(labels) for _, labels in going[0])

    words = f"from disk, order {order}" + (f", {window_shards} shards a window" if order == "blocks" else "")
    return Stage(
        work=work,
        settings=f"{words}; the host of a virtual machine may still have cached it",
        starts_over=True,
        ready_batches=first,
        after_round=lambda: going.pop().close(),
    )


def traffic(*, output: Output, **task: Any) -> Stage:
    """Read and write what the stream of planes does, by the same call in C, told to leave the arithmetic out."""
    from alexnet.pipeline.host import available
    from alexnet.pipeline.host.pool import DTYPES, JpegPool, StoredPlanes

    if reason := available():
        raise CannotRunError(reason)
    given = LoaderTask(**task)
    _bring_in(given.files)
    reader, n, px, places = given.reader, given.batch_images, given.crop_px, given.size_px - given.crop_px + 1
    files = [reader.files.span(shard, 0, 0)[0] for shard in range(len(reader.shards[:_FILES]))]
    descriptors = np.array([file.descriptor for file in files], np.int32)
    pool, rng, dtype = JpegPool(given.threads), np.random.default_rng(0), np.dtype(DTYPES[output])
    batches = cycle([np.zeros((n, 3, px, px), dtype) for _ in range(_BUFFERS)])
    still, mean, scale = np.zeros(n, np.bool_), np.zeros((n, 3), np.float32), np.ones(3, np.float32)

    def work() -> Work:
        while True:
            ids = rng.permutation(sum(shard.images for shard in reader.shards[: len(files)]))
            for first in range(0, len(ids) - n + 1, n):
                rows = reader.rows(ids[first : first + n])
                stored = StoredPlanes(descriptors[rows["shard"]], rows["offset"].copy(), rows["place"].copy())
                pool.decode(
                    stored,
                    crop_yx=rng.integers(0, places, (n, 2), np.int32),
                    mirror=still,
                    size=(given.size_px, given.size_px),
                    out=next(batches),
                    planar=True,
                    mean=mean,
                    scale=scale,
                    copy_only=True,
                )
                yield n

    return Stage(work=work, settings=f"{given.threads} threads, {_BUFFERS} buffers in turn, no arithmetic")


def _bring_in(files: list[Path]) -> None:
    """Read files through once, so that the system has them in its cache."""
    if sum(path.stat().st_size for path in files) > _MOST_OF_MEMORY * available_memory():
        return
    scratch = memoryview(bytearray(_BLOCK_BYTES))
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(scratch):
                pass
