"""`alexnet-bench prep`: how fast the converter is against one core's decode, resize and encode.

The bound is what Pillow alone needs for an image: decode all of it to RGB, resize the centre, encode. It is measured on
the same images in the same run, on one core, and nothing else is done with them. The converter reads, checks, sums
colours and writes shards besides. What a second call costs, on a set that is half done or complete, is measured, too.
"""

import dataclasses
import io
import itertools
import os
import platform
import statistics
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import PIL
from PIL import Image, features

from alexnet.shards.errors import InputError
from alexnet.shards.processes import starting_workers, usable_cores
from alexnet.tools.bench.converter.prep_resume import ResumeCosts
from alexnet.tools.bench.converter.prep_table import print_prep
from alexnet.tools.bench.measuring.figures import refuse_unwritable, spread, write_json
from alexnet.tools.bench.measuring.process_memory import WorkerPeak
from alexnet.tools.console import interruptible
from alexnet.tools.convert.build import BuildOptions, Progress, build
from alexnet.tools.convert.image import resize_and_crop, to_rgb
from alexnet.tools.convert.listing import Listing, Member, Source
from alexnet.tools.convert.opening import FORMATS
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.run import of_index
from alexnet.tools.convert.sources import open_source
from alexnet.tools.progress import progress
from alexnet.tools.start import INTERRUPTED

SCHEMA = 1
_BOUND_IMAGES = 400
_LONG_LISTING_SECONDS = 2.0  # a source that takes longer is listed anew in one round only


def run_prep(source: Path, images: int, workers: tuple[int, ...], rounds: int, json_file: Path | None) -> None:
    """Measure bound and converter in turn, print a table, and write the JSON if asked.

    After Ctrl-C that is of the rounds that were over.
    """
    refuse_unwritable(json_file)
    with interruptible("interrupted before a round was over"):
        report, complete = measure_prep(source, images, workers, rounds)
        print_prep(report)
        write_json(json_file, report)
        if not complete:
            click.echo("interrupted: these are the rounds up to then", err=True)
            raise SystemExit(INTERRUPTED)


def measure_prep(source: Path, images: int, workers: tuple[int, ...], rounds: int) -> tuple[dict[str, Any], bool]:
    """Measure bound, converter and second calls in turn, round after round.

    Return the report, and whether it has all rounds: after Ctrl-C it has those that were over. Raises KeyboardInterrupt
    if none was.
    """
    started = time.perf_counter()
    with progress(as_json=False, stream=sys.stderr) as view:
        listed = open_source(source, on_walk=lambda walked: view.update(of_index(walked)))
    resume_rounds = rounds if time.perf_counter() - started < _LONG_LISTING_SECONDS else 1
    found = sample_evenly(listed, images)
    bounds: list[float] = []
    speeds: dict[int, list[float]] = {n: [] for n in workers}
    peak, resume, over = WorkerPeak(), ResumeCosts(), 0
    try:
        for over in range(rounds):  # those before this one are over
            bounds.append(_bound(found))
            for n in workers:
                speeds[n].append(_converter(found, n, peak))
            if over < resume_rounds:
                resume.measure(source, sample_evenly)
        over = rounds
    except KeyboardInterrupt:
        if not over:
            raise
    for values in (bounds, *speeds.values()):
        del values[over:]
    report = {
        "schema": SCHEMA,
        "command": "prep",
        "conditions": {
            **_conditions(source, over),
            "images": len(found.members["train"]),
            "entries": sum(map(len, listed.members.values())),
        },
        "bound_images_per_s_a_core": spread(bounds),
        "bound_rounds": bounds,
        "rows": [
            {
                "workers": n,
                "images_per_s": spread(values),
                "share_of_bound_a_core": statistics.median(values) / n / statistics.median(bounds),
                "rounds": values,
            }
            for n, values in speeds.items()
        ],
        "resume": resume.report(),
        "largest_worker_mb": peak.bytes / 1e6,
    }
    return report, over == rounds


def sample_evenly(source: Source, images: int) -> Source:
    """Take images evenly from the training set, so that every class and size is there."""
    members = source.members["train"]
    if not members:
        raise InputError(f"{source.root}: holds no training images to measure with")
    if source.encoding != "file":
        raise InputError(f"{source.root}: holds raw pixels ({source.kind}), and decoding is measured; give image files")
    step = max(1, len(members) // images)
    chosen = tuple(members[i] for i in range(0, len(members), step))[:images]
    return dataclasses.replace(source, members={"train": Listing.of(chosen), "val": Listing.of(())})


def _bound(source: Source) -> float:
    """Return the bound, measured in a fresh process: after some rounds this one's memory makes it up to 20% slower."""
    with starting_workers():  # Ctrl-C is for the command, which ends this process, too
        process = get_context("spawn").Pool(1)
    with process:
        return process.apply(_bound_here, (source,))


def _bound_here(source: Source) -> float:
    """Return images/s of one core's decode + resize + encode, on CPU time, bytes already in memory."""
    data = [read_member(source, m) for m in itertools.islice(source.members["train"], _BOUND_IMAGES)]
    decodable = [d for d in data if _try(d)]
    started = time.process_time()
    for d in decodable:
        with Image.open(io.BytesIO(d), formats=FORMATS) as image:
            square = resize_and_crop(to_rgb(image), ConvertSettings().size_px)
        square.save(io.BytesIO(), "JPEG", quality=ConvertSettings().quality, subsampling="4:2:0")
    return len(decodable) / (time.process_time() - started)


def read_member(source: Source, member: Member) -> bytes:
    """Read one image's bytes from a source."""
    with (source.root / member.file).open("rb") as file:
        file.seek(member.offset)
        return file.read(member.length)


def _try(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            to_rgb(image)
    except Exception:  # a bad image is not what is measured here
        return False
    return True


def _converter(source: Source, workers: int, peak: WorkerPeak) -> float:
    """Return images/s of a whole conversion from its first image on: starting Python is not part of it."""
    clock = _Clock(peak)
    images = len(source.members["train"])
    settings = ConvertSettings(shard_images=max(1, -(-images // (2 * workers))))
    with tempfile.TemporaryDirectory() as folder:
        build(source, Path(folder) / "set", settings, BuildOptions(workers=workers, max_rejected=images), clock.update)
    return clock.speed()


class _Clock:
    """Time the steady part of a conversion: from the first report with every worker at work to the last."""

    def __init__(self, peak: WorkerPeak) -> None:
        self._peak = peak
        self._points: list[tuple[float, int]] = []

    def update(self, progress: Progress) -> None:
        self._peak.look()
        done = progress.written + progress.rejected
        if not self._points or done != self._points[-1][1]:
            self._points.append((time.perf_counter(), done))

    def speed(self) -> float:
        begun = [point for point in self._points if point[1] > 0]
        if len(begun) < 2:
            raise InputError("too few images to measure with: give a larger SOURCE or --images")
        (t0, n0), (t1, n1) = begun[len(begun) // 10], begun[-1]
        return (n1 - n0) / (t1 - t0)


def _conditions(source: Path, rounds: int) -> dict[str, Any]:
    return {
        "source": str(source),
        "rounds": rounds,
        "cores": usable_cores(),
        "load": os.getloadavg()[0],
        "pillow": PIL.__version__,
        "libjpeg_turbo": str(features.version_feature("libjpeg_turbo") or features.version_codec("jpg")),
        "python": platform.python_version(),
    }
