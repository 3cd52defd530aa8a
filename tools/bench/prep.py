"""`alexnet-bench prep`: how fast the converter is against one core's decode, resize and encode.

The bound is what Pillow alone needs for an image: decode all of it to RGB, resize the centre, encode. It is measured on
the same images in the same run, on one core, and nothing else is done with them. The converter reads, checks, sums
colours and writes shards besides.
"""

import dataclasses
import io
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import PIL
from PIL import Image, features
from rich.console import Console
from rich.table import Table

from alexnet.shards.errors import InputError
from alexnet.tools.convert.build import BuildOptions, Progress, build
from alexnet.tools.convert.listing import Member, Source
from alexnet.tools.convert.plan import ConvertSettings
from alexnet.tools.convert.resize import resize_and_crop, to_rgb
from alexnet.tools.convert.sources import open_source

SCHEMA = 1
_BOUND_IMAGES = 400


def run_prep(source: Path, images: int, workers: tuple[int, ...], rounds: int, json_file: Path | None) -> None:
    """Measure bound and converter in turn, print a table, and write the JSON if asked."""
    found = _sample(open_source(source), images)
    count = len(found.members["train"])
    bounds: list[float] = []
    speeds: dict[int, list[float]] = {n: [] for n in workers}
    for _ in range(rounds):
        bounds.append(_bound(found))
        for n in workers:
            speeds[n].append(_converter(found, n))
    report = {
        "schema": SCHEMA,
        "conditions": _conditions(source, count, rounds),
        "bound_images_per_s_a_core": _spread(bounds),
        "rows": [
            {
                "workers": n,
                "images_per_s": _spread(values),
                "share_of_bound_a_core": statistics.median(values) / n / statistics.median(bounds),
            }
            for n, values in speeds.items()
        ],
        "largest_worker_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }
    _print(report)
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=1) + "\n")


def _sample(source: Source, images: int) -> Source:
    """Take images evenly from the training set, so that every class and size is there."""
    members = source.members["train"]
    if not members:
        raise InputError(f"{source.root}: holds no training images to measure with")
    step = max(1, len(members) // images)
    chosen = tuple(members[i] for i in range(0, len(members), step))[:images]
    return dataclasses.replace(source, members={"train": chosen, "val": ()})


def _bound(source: Source) -> float:
    """Return images/s of one core's decode + resize + encode, on CPU time, bytes already in memory."""
    data = [_read(source, m) for m in source.members["train"][:_BOUND_IMAGES]]
    decodable = [d for d in data if _try(d)]
    started = time.process_time()
    for d in decodable:
        with Image.open(io.BytesIO(d)) as image:
            square = resize_and_crop(to_rgb(image), ConvertSettings().size_px)
        square.save(io.BytesIO(), "JPEG", quality=ConvertSettings().quality, subsampling="4:2:0")
    return len(decodable) / (time.process_time() - started)


def _read(source: Source, member: Member) -> bytes:
    with (source.root / member.file).open("rb") as file:
        file.seek(member.offset)
        return file.read(member.length)


def _try(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as image:
            to_rgb(image)
    except Exception:  # a bad image is not what is measured here
        return False
    return True


def _converter(source: Source, workers: int) -> float:
    """Return images/s of a whole conversion from its first image on: starting Python is not part of it."""
    clock = _Clock()
    images = len(source.members["train"])
    settings = ConvertSettings(shard_images=max(1, -(-images // (2 * workers))))
    with tempfile.TemporaryDirectory() as folder:
        build(source, Path(folder) / "set", settings, BuildOptions(workers=workers, max_rejected=images), clock.update)
    return clock.speed()


class _Clock:
    """Time the steady part of a conversion: from the first report with every worker at work to the last."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []

    def update(self, progress: Progress) -> None:
        done = progress.written + progress.rejected
        if not self._points or done != self._points[-1][1]:
            self._points.append((time.perf_counter(), done))

    def speed(self) -> float:
        begun = [point for point in self._points if point[1] > 0]
        if len(begun) < 2:
            raise InputError("too few images to measure with: give a larger SOURCE or --images")
        (t0, n0), (t1, n1) = begun[len(begun) // 10], begun[-1]
        return (n1 - n0) / (t1 - t0)


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _figures(rate: dict[str, float]) -> list[str]:
    return [f"{rate[k]:,.0f}" for k in ("median", "min", "max")]


def _conditions(source: Path, images: int, rounds: int) -> dict[str, Any]:
    return {
        "source": str(source),
        "images": images,
        "rounds": rounds,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "pillow": PIL.__version__,
        "libjpeg_turbo": str(features.version_feature("libjpeg_turbo") or features.version_codec("jpg")),
        "python": platform.python_version(),
    }


def _print(report: dict[str, Any]) -> None:
    c, bound = report["conditions"], report["bound_images_per_s_a_core"]
    click.echo(f"{c['source']}: {c['images']:,} images, {c['rounds']} rounds, {c['cores']} cores, Pillow {c['pillow']}")
    table = Table("", "images/s", "min", "max", "share of the bound, a core")
    table.add_row("bound: one core, decode + resize + encode", *_figures(bound), "")
    for row in report["rows"]:
        name = f"alexnet-prep shard, {row['workers']} worker{'s' if row['workers'] > 1 else ''}"
        table.add_row(name, *_figures(row["images_per_s"]), f"{row['share_of_bound_a_core']:.0%}")
    Console().print(table)
    first, last = report["rows"][0], report["rows"][-1]
    if last["workers"] > first["workers"]:
        gain = last["images_per_s"]["median"] / first["images_per_s"]["median"]
        click.echo(f"{first['workers']} to {last['workers']} workers: {gain:.2f}x")
    click.echo(f"largest worker: {report['largest_worker_mb']:,.0f} MB")
