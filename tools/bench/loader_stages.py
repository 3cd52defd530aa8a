"""The stages of the data path on a CPU, each as something that can be run and counted: limits, parts, and the stream.

Each is made in a process of its own, and loads only what it measures with: reading and libjpeg-turbo need no torch.
"""

import contextlib
import os
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from itertools import accumulate, chain, count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexnet.pipeline import AugmentSettings, ImageStream, StreamSettings
from alexnet.pipeline.read import SampleReader
from alexnet.pipeline.settings import Order, Output, Resident
from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.bench_data import LoaderTask, cached_share
from alexnet.tools.bench.gpu_stages import watched
from alexnet.tools.bench.stage import CannotRunError, Stage, Work

_BLOCK_BYTES = 4 << 20
_MOST_BYTES = 2 << 30  # of shards that are read: more would push the other rows' data out of the system's cache
_MOST_COLD_BYTES = 512 << 20  # they are read twice a round, and a slow disk must have answered in time
_COPY_BYTES = 256 << 20
_STILL_CACHED = 0.05
_STEPS_AHEAD = 2  # of the trainer beside a stream
_HELD_BYTES = 256 << 20  # of JPEGs that decoders without a reader are given, from memory


def storage(*, cold: bool, **task: Any) -> Stage:
    """Read shards from front to back with one thread; before each cold round, have the system forget them.

    After a cold round they are read in again, for the other rows: so the next one must not go on where it ended.
    """
    reader = LoaderTask(**task).reader
    sums = accumulate((shard.bytes for shard in reader.shards), initial=0)
    most = _MOST_COLD_BYTES if cold else _MOST_BYTES
    files = [reader.root / shard.file for shard, before in zip(reader.shards, sums, strict=False) if before < most]
    image_bytes = reader.stored_bytes() / len(reader)

    def once() -> Work:
        scratch = memoryview(bytearray(_BLOCK_BYTES))
        for path in files:
            with path.open("rb", buffering=0) as file:
                while size := file.readinto(scratch):
                    yield size / image_bytes

    def from_disk() -> Work:
        forget(files)
        return once()

    def read_in() -> None:
        sum(once())

    whole = sum(path.stat().st_size for path in files) / 1e6
    words = f"1 thread, blocks of 4 MiB, {len(files)} of {len(reader.shards)} shards, {whole:,.0f} MB"
    if cold:
        words += "; the host of a virtual machine may still have cached them"
        return Stage(work=from_disk, settings=words, after_round=read_in, starts_over=True)
    read_in()
    return Stage(work=lambda: chain.from_iterable(once() for _ in count()), settings=words)


def forget(files: list[Path]) -> None:
    """Have the system drop files from its cache. Raises CannotRunError if it does not, or does not say."""
    for path in files:
        with path.open("rb") as file:
            with contextlib.suppress(OSError):  # a file system that is read-only has nothing to write
                os.fsync(file.fileno())  # what is not yet written cannot be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    still = cached_share(files)
    if still is None:
        raise CannotRunError("this system does not say what is cached, or only to who may write the shards")
    if still > _STILL_CACHED:
        raise CannotRunError(f"the system keeps {still:.0%} of the shards in its cache when told to forget them")


def memory_copy(*, threads: int, **_: Any) -> Stage:
    """Copy blocks of memory to others, with a thread each."""
    source, target = (np.ones((threads, _COPY_BYTES // threads), np.uint8) for _ in range(2))
    pool = ThreadPoolExecutor(threads)

    def work() -> Work:
        while True:
            list(pool.map(np.copyto, target, source))
            yield source.nbytes

    return Stage(work=work, settings=f"{threads} threads, {_COPY_BYTES >> 20} MiB; bytes are counted once")


def read(*, by: int, **task: Any) -> Stage:
    """Read batches as the stream does, shuffled. `by`: so many threads: one for the host decoder, two for DALI."""
    given, jpegs = LoaderTask(**task), SampleReader(by, keep=2)

    def work() -> Work:
        order = np.random.default_rng(0)
        while True:
            ids = order.permutation(len(given.reader))
            for first in range(0, len(ids), given.batch_images):
                yield len(jpegs.read(given.reader, ids[first : first + given.batch_images]).samples)

    return Stage(work=work, settings=f"{by} thread{'s' * (by > 1)}, shuffled")


def jpeg(*, part: str, output: Output, **task: Any) -> Stage:
    """Decode JPEGs that lie in memory into one buffer, again and again, by libjpeg-turbo: the host decoder by itself.

    `part`: "whole"; "crop"; or "last-pixel" of it: all that lies above is read bit by bit, but not made into pixels.
    """
    from alexnet.pipeline.host import JpegPool, Ring, available

    if reason := available():
        raise CannotRunError(reason)
    given = LoaderTask(**task)
    n, size_px = given.batch_images, given.size_px
    side, inset, mirrored = {
        "whole": (size_px, 0, 0.0),
        "crop": (given.crop_px, 0, 0.5),
        "last-pixel": (1, given.crop_px - 1, 0.0),
    }[part]
    jpegs = _held_jpegs(given.reader, n)
    shape = (n, side, side, 3) if output == "uint8" else (n, 3, side, side)
    out = Ring(4 * n * 3 * side**2, keep=1).take(shape, np.uint8 if output == "uint8" else np.float32)
    decoder, rng = JpegPool(given.threads), np.random.default_rng(0)
    mean, scale = np.full((n, 3), 120.0, np.float32), np.ones(3, np.float32)

    def work() -> Work:
        while True:
            for first in range(0, len(jpegs) - n + 1, n):
                bad = decoder.decode(
                    jpegs[first : first + n],
                    crop_yx=rng.integers(inset, size_px - side + 1, (n, 2), np.int32),
                    mirror=rng.random(n) < mirrored,
                    size=(size_px, size_px),
                    out=out,
                    planar=output != "uint8",
                    mean=mean,
                    scale=scale,
                )
                for reason in bad.values():
                    raise CannotRunError(f"an image cannot be decoded: {reason}")
                yield n

    words = f"{given.threads} threads, {len(jpegs):,} JPEGs in memory, one buffer that is used again"
    return Stage(work=work, settings=words)


def _held_jpegs(reader: SplitReader, at_least: int) -> list[npt.NDArray[np.uint8]]:
    """Read a random part of a split into memory: whole if it is small, and repeated if it is smaller than a batch."""
    jpegs: list[npt.NDArray[np.uint8]] = []
    held = 0
    for sample_id in np.random.default_rng(0).permutation(len(reader)).tolist():
        jpegs.append(reader.stored(sample_id))
        held += len(jpegs[-1])
        if held > _HELD_BYTES:
            break
    return jpegs * -(-at_least // len(jpegs))


def stream(*, depth: int = 2, device: str = "cpu", **options: Any) -> Stage:
    """Iterate the stream, epoch after epoch, letting go of each batch."""
    images = open_stream(depth=depth, device=device, **options)

    def work() -> Work:
        with closing(images):
            while True:
                for _, labels in images:
                    if device == "cuda":
                        labels.sum().item()  # the GPU has passed the batch
                    yield len(labels)

    words = "; ".join([line for line in images.describe() if line.startswith(("decoding", "resident"))])
    stage = Stage(work=work, settings=f"{words}; depth {depth}", ready_batches=depth + 3)
    return stage if device == "cpu" else watched(stage)


def open_stream(
    *, output: Output, augment: bool = True, device: str = "cpu", decode: str = "default", depth: int = 2,
    read_ahead_batches: int = 8, order: Order = "global", window_shards: int = 16, resident: Resident = "auto",
    cache: str = "", cache_gb: float = 1.0, **task: Any,
) -> ImageStream:  # fmt: skip
    """Return the stream as training uses it; with a `cache` from the URL of the data set, and not from its copy."""
    import_module("alexnet.pipeline.prefetch")  # torch: it comes with the first batch otherwise, as if a batch's memory
    given = LoaderTask(**task)
    return ImageStream(
        f"{given.url if cache else given.data}/{given.split}",
        batch_images=given.batch_images,
        rank=0,
        world_size=1,
        augment=augment,
        augmentation=AugmentSettings(crop_px=given.crop_px),
        device=device,
        threads=given.threads,
        output=output,
        settings=StreamSettings(
            order=order,
            window_shards=window_shards,
            decode=decode,
            depth=depth,
            read_ahead_batches=read_ahead_batches,
            resident=resident,
            cache=cache,
            cache_gb=cache_gb,
        ),
    )


def stream_beside_trainer(*, trainer_threads: int, **options: Any) -> Stage:
    """Iterate the stream while a network trains on the other cores, in a thread of this process.

    Over the stream alone this is what feeding a trainer costs the stream. CPU time holds the trainer's.
    """
    from alexnet.tools.bench.networks import Task as Network
    from alexnet.tools.bench.networks import Training

    alone = stream(**options)
    network = Network(arch="alexnet-2012", precision="auto", batch_images=32, threads=trainer_threads)
    training = Training(network)
    wanted: queue.Queue[None] = queue.Queue(_STEPS_AHEAD)

    def train() -> None:
        while True:
            wanted.get()
            training.steps(1)
            wanted.task_done()

    def work() -> Work:
        for done in alone.work():
            if not wanted.full():
                wanted.put(None)
            yield done

    threading.Thread(target=train, daemon=True).start()
    words = f"{alone.settings}; {network.title} trains on {trainer_threads} threads in this process"
    return replace(alone, work=work, after_round=wanted.join, settings=words)
