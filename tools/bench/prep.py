"""`alexnet-bench prep`: how fast the converter is against one core's decode, resize and encode.

Of a data set, which is converted already, `prep_planes.py` measures how fast it is decoded to planes.

The bound is what Pillow alone needs for an image: decode all of it to RGB, resize the centre, encode. It is measured on
the same images in the same run, on one core, and nothing else is done with them. The converter reads, checks, sums
colours and writes shards besides.
"""

import io
import itertools
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
from PIL import Image, features

from alexnet.shards.errors import InputError
from alexnet.shards.manifest import MANIFEST_NAME
from alexnet.shards.processes import Counts, WorkerPool
from alexnet.shards.resources import usable_cores
from alexnet.tools.bench import prep_planes
from alexnet.tools.bench.conditions import without_home
from alexnet.tools.bench.measure import Bounds, Case, Say, Timing, measure_report
from alexnet.tools.bench.report import Asked, Data, Options, Report, Row, ratios_of
from alexnet.tools.bench.stage import CannotRunError, Stage, Work
from alexnet.tools.convert.image import resize_and_crop, to_rgb
from alexnet.tools.convert.listing import Listing, Member, Source
from alexnet.tools.convert.opening import FORMATS
from alexnet.tools.convert.plan import ConvertSettings, plan_shards
from alexnet.tools.convert.shard import ShardJob, convert_shard
from alexnet.tools.convert.sources import open_source
from alexnet.tools.host_memory import keep_freed_memory
from alexnet.tools.output_folder import WORK

_BOUND, _BOUND_IMAGES = "the bound, a core", 400
_SHARDS = 4  # that a worker converts again and again
_STEP_SECONDS = 60.0


class Subject(NamedTuple):
    """Name a command and its bound, and what makes their stages. `at_least`: what one worker must reach of it."""

    command: str
    make: Callable[..., Stage]
    bound: str
    make_bound: Callable[..., Stage]
    at_least: float


def measure_prep(say: Say, *, source: Path, images: int, workers: tuple[int, ...], timing: Timing) -> Report:
    """Measure the bound, and the converter with each number of workers, on images taken evenly from a source.

    Of a data set: its training images decoded to planes, whole shards at a time.
    """
    workers = workers or (1, 2)
    if (source / MANIFEST_NAME).exists():
        described = prep_planes.describe(source)
        return _measured(say, _DECODE, {"data": str(source.absolute())}, workers, timing, described)
    with tempfile.TemporaryDirectory(prefix="alexnet-bench-") as folder:
        index = Path(folder) / "index"  # listed once: rows find it there
        listed = open_source(source, index, lambda at: say(f"listing {source}: {at.counts['entries']:,} entries"))
        described = _describe(sample(listed, images))
        options: Options = {"source": str(source.absolute()), "index": str(index), "images": images}
        return _measured(say, _SHARD, options, workers, timing, described)


def _measured(
    say: Say, what: Subject, options: Options, workers: tuple[int, ...], timing: Timing, described: Data
) -> Report:
    cases = _cases(what, options, workers)
    report = measure_report("prep", cases, timing, say, device="cpu", threads=max(workers), data=described)
    asked = Asked("workers-1", "bound", f"one worker of {what.command} over its bound", what.at_least)
    verdict = _verdict([row for row in report.rows if row.shares])
    return replace(report, ratios=ratios_of(report.named(), [asked]), verdict=verdict)


def sample(source: Source, images: int) -> Source:
    """Take images evenly from the training set, so that every class and size is there."""
    members = source.members["train"]
    if not members:
        raise InputError(f"{source.root}: holds no training images to measure with")
    if source.encoding != "file":
        raise InputError(f"{source.root}: holds raw pixels ({source.kind}), and decoding is measured; give image files")
    chosen = np.arange(0, len(members), max(1, len(members) // images))[:images]
    return replace(source, members={"train": members.take(chosen), "val": Listing.of()})


def bound(*, source: str, index: str, images: int) -> Stage:
    """Decode, resize and encode with Pillow, on one core, from memory; count images that can be decoded."""
    found = sample(open_source(Path(source), Path(index)), min(images, _BOUND_IMAGES))
    data = [jpeg for jpeg in (_read(found, member) for member in found.members["train"]) if _made_of(jpeg)]
    if not data:
        raise CannotRunError("none of the images can be decoded")

    def work() -> Work:
        for jpeg in itertools.cycle(data):
            _made_of(jpeg)
            yield 1

    versions = {"pillow": PIL.__version__}
    versions["libjpeg-turbo"] = str(features.version_feature("libjpeg_turbo") or features.version_codec("jpg"))
    return Stage(work=work, settings=f"{len(data)} images from memory", versions=versions)


def converter(*, source: str, index: str, images: int, workers: int) -> Stage:
    """Convert shards as `alexnet-prep shard` does, over and over, in worker processes that have started."""
    found = sample(open_source(Path(source), Path(index)), images)
    root = Path(tempfile.mkdtemp())
    for folder in ("train", WORK):
        (root / folder).mkdir()
    settings = ConvertSettings(shard_images=max(1, -(-len(found.members["train"]) // (_SHARDS * workers))))
    jobs = (
        ShardJob(
            root=root, source=replace(found, members={}), settings=settings, on_error="reject", plan=plan,
            members=plan.members(found),
        )
        for plan in itertools.cycle(plan_shards(found, settings))
    )  # fmt: skip

    def work() -> Work:
        with WorkerPool(_convert, workers) as pool:
            yield from pool.results(jobs)

    words = f"{settings.shard_images} images a shard, {_workers(workers)}"
    return Stage(work=work, settings=words, ready_batches=workers - 1, least_batches=2 * workers)


_SHARD = Subject("alexnet-prep shard", converter, "one core, decode + resize + encode", bound, 0.9)
_DECODE = Subject(
    "alexnet-prep decode", prep_planes.decoder, "one core, JPEGs to planes by libjpeg-turbo", prep_planes.bound, 0.5
)


def _cases(what: Subject, options: Options, workers: tuple[int, ...]) -> list[Case]:
    title = f"bound: {what.bound}"
    cases = [Case(name="bound", title=title, group="limit", make=what.make_bound, options=options)]
    for n in workers:
        cores = min(n, usable_cores())
        cases.append(
            Case(
                name=f"workers-{n}", title=f"{what.command}, {_workers(n)}", make=what.make, cores=cores,
                options={**options, "workers": n}, bounds=_bound_of(cores), step_seconds=_STEP_SECONDS,
            )
        )  # fmt: skip
    return cases


def _bound_of(cores: int) -> Bounds:
    return lambda rows, clock: {_BOUND: cores * rows["bound"].rate(clock)} if "bound" in rows else {}


def _workers(n: int) -> str:
    return f"{n} worker{'s' * (n > 1)}"


def _convert(job: ShardJob, counts: Counts) -> int:
    """Convert a shard in a worker; return its images, rejected ones among them."""
    keep_freed_memory()
    notes = convert_shard(job, [0, 0])
    return notes.record.images + len(notes.rejected)


def _made_of(data: bytes) -> bytes:
    """Return the square that the converter would store; nothing if the image cannot be decoded."""
    square = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            small = resize_and_crop(to_rgb(image), ConvertSettings().size_px)
    except Exception:  # a bad image is not what is measured here
        return b""
    small.save(square, "JPEG", quality=ConvertSettings().quality, subsampling="4:2:0")
    return square.getvalue()


def _read(source: Source, member: Member) -> bytes:
    with (source.root / member.file).open("rb") as file:
        file.seek(member.offset)
        return file.read(member.length)


def _describe(source: Source) -> Data:
    members = source.members["train"]
    mean_bytes = round(sum(member.length for member in members) / len(members))
    return Data(path=without_home(source.root), why="given", images=len(members), bytes_per_image=mean_bytes)


def _verdict(rows: list[Row]) -> str:
    if not rows:
        return "No verdict: the bound or the converter was not measured."
    first, last = rows[0], rows[-1]
    share = first.shares[_BOUND]["wall"]
    said = f"{first.title} makes {first.wall.median:,.0f} images/s, {share:.0%} of the bound a core"
    gain = last.wall.median / first.wall.median
    return f"{said}; {last.options['workers']} workers {gain:.2f} times that." if last is not first else f"{said}."
