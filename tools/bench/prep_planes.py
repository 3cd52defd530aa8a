"""How fast `alexnet-prep decode` is against one core's decoder, which makes planes of JPEGs from memory and drops them.

Shards are decoded as the command does it: what is read is checked, and what is written is hashed and put on the disk.
"""

import itertools
import tempfile
from pathlib import Path

import numpy as np

from alexnet.pipeline.host import JpegPool, available
from alexnet.shards.errors import InputError
from alexnet.shards.planes import planes_bytes
from alexnet.shards.processes import Counts, WorkerPool
from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.conditions import without_home
from alexnet.tools.bench.report import Data
from alexnet.tools.bench.stage import CannotRunError, Stage, Work
from alexnet.tools.decode.plan import plan_planes
from alexnet.tools.decode.shard import DecodeJob, decode_shard
from alexnet.tools.output_folder import WORK

_HELD_IMAGES, _BATCH_IMAGES = 400, 32


def describe(data: Path) -> Data:
    """Describe the training images of a data set."""
    reader = SplitReader(data, "train")
    if reader.manifest.stored.encoding != "jpeg":
        raise InputError(f"{data}: holds planes already; give the data set that they were decoded from")
    if not len(reader):
        raise InputError(f"{data}: holds no training images to measure with")
    bytes_per_image = round(reader.stored_bytes() / len(reader))
    return Data(
        path=without_home(data), why="given", images=len(reader), bytes_per_image=bytes_per_image,
        manifest=reader.manifest.digest(), size_px=reader.manifest.size_px,
    )  # fmt: skip


def bound(*, data: str) -> Stage:
    """Decode JPEGs to planes, on one core, from memory into memory that is used again."""
    if reason := available():
        raise CannotRunError(reason)
    reader = SplitReader(Path(data), "train")
    stored = np.linspace(0, len(reader) - 1, min(len(reader), _HELD_IMAGES)).astype(int).tolist()
    jpegs = [reader.stored(sample_id) for sample_id in stored]
    n, size = min(len(jpegs), _BATCH_IMAGES), (reader.manifest.size_px,) * 2
    pool, out = JpegPool(1), np.empty((n, planes_bytes(*size)), np.uint8)

    def work() -> Work:
        while True:
            for first in range(0, len(jpegs) - n + 1, n):
                for reason in pool.decode_planes(jpegs[first : first + n], size=size, out=out).values():
                    raise CannotRunError(f"an image cannot be decoded to planes: {reason}")
                yield n

    return Stage(work=work, settings=f"{len(jpegs)} JPEGs from memory, {n} at a time")


def decoder(*, data: str, workers: int) -> Stage:
    """Decode shards as `alexnet-prep decode` does, over and over, in worker processes that have started."""
    plan = plan_planes(Path(data), "train", None)
    folders = [Path(tempfile.mkdtemp()) for _ in range(2 * workers)]  # of each job its own: shards may be fewer
    for folder in folders:
        for part in ("train", WORK):
            (folder / part).mkdir()
    jobs = (
        DecodeJob(source=plan.source, root=folder, shard=shard, stored=plan.stored, colour=False)
        for folder, shard in zip(itertools.cycle(folders), itertools.cycle(plan.shards), strict=False)
    )

    def work() -> Work:
        with WorkerPool(_decode, workers) as pool:
            yield from pool.results(jobs)

    words = f"{len(plan.shards[0].ids):,} images a shard"
    return Stage(work=work, settings=words, ready_batches=workers - 1, least_batches=2 * workers)


def _decode(job: DecodeJob, counts: Counts) -> int:
    decode_shard(job, [0])
    for file in (job.root / "train").iterdir():
        file.unlink()
    return len(job.shard.ids)
