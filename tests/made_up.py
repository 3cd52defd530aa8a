"""A data set of planes as large as ImageNet in the room of one shard: the other shards are links to it.

    python -m tests.made_up FOLDER [IMAGES]

makes it, opens its stream in either order, and says how long that and the first batch take.
"""

import dataclasses
import os
import shutil
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np

from alexnet.shards.index import write_index
from alexnet.shards.manifest import FILES, INDEX_NAME, MANIFEST_NAME, SplitCounts, read_manifest, shard_file
from alexnet.shards.planes import planes_bytes
from alexnet.shards.reader import SplitReader
from alexnet.shards.writer import Sample, file_record, publish_shard, write_shard

IMAGENET_IMAGES = 1_281_167
SHARD_IMAGES = 1_000
_GREY = 128  # what both chroma planes hold


def write_made_up(like: Path, out: Path, images: int) -> Path:
    """Write training images of a grey each, by their place in a shard, with the classes of another data set."""
    manifest = read_manifest(like)
    px, labels = manifest.size_px, len(manifest.classes)
    chroma = bytes([_GREY]) * (planes_bytes(px, px) - px * px)
    samples = (
        Sample(place=k, stem="grey", label=k % labels, stored=bytes([k % 256]) * px * px + chroma)
        for k in range(SHARD_IMAGES)
    )
    return _write_repeated(like, out, images, list(samples), "yuv")


def write_made_up_jpegs(like: Path, out: Path, images: int, shard_images: int = SHARD_IMAGES) -> Path:
    """Write the training images of another data set again and again."""
    reader = SplitReader(like, "train")
    stored = [reader.sample(n % len(reader)) for n in range(shard_images)]
    samples = [Sample(place=k, stem="again", label=one.label, stored=one.stored) for k, one in enumerate(stored)]
    return _write_repeated(like, out, images, samples, "jpg")


def _write_repeated(like: Path, out: Path, images: int, samples: list[Sample], extension: str) -> Path:
    """Write one shard of samples; all others are links to it."""
    manifest, shard_images = read_manifest(like), len(samples)
    (out / "train").mkdir(parents=True)
    record, rows = write_shard(out, "train", 0, samples, extension)
    publish_shard(out, record)
    counts = [min(shard_images, images - first) for first in range(0, images, shard_images)]
    shards = [dataclasses.replace(record, file=shard_file("train", n), images=k) for n, k in enumerate(counts)]
    for shard in shards[1:]:
        os.link(out / record.file, out / shard.file)
    index = np.tile(rows, len(shards))[:images]
    index["shard"] = np.arange(images) // shard_images
    for name in FILES:
        shutil.copyfile(like / name, out / name)
    write_index(out / INDEX_NAME, [index])
    planes = {"encoding": "planes-420"} if extension == "yuv" else {}
    made = dataclasses.replace(
        manifest,
        settings={**manifest.settings, **planes, "shard_images": shard_images},
        source={"kind": "planes of a data set", "digest": manifest.digest()} if planes else manifest.source,
        counts={
            "train": SplitCounts(input=images, written=images, rejected=0),
            "val": SplitCounts(input=0, written=0, rejected=0),
        },
        shards=tuple(shards),
        files=tuple(file_record(out, name) for name in FILES),
    )
    (out / MANIFEST_NAME).write_text(made.to_json())
    return out


def main(out: Path, images: int) -> None:
    """Make a set with the classes of the bundled images, and print seconds."""
    from alexnet.pipeline import ImageStream, StreamSettings

    import_module("alexnet.pipeline.prefetch")  # torch, which would come with the first batch
    data = write_made_up(Path(__file__).parents[1] / "shards" / "ci-100", out, images)
    for order in ("global", "blocks"):
        begin = time.perf_counter()
        with ImageStream(data / "train", batch_images=256, settings=StreamSettings(order=order)) as stream:
            opened = time.perf_counter() - begin
            next(iter(stream))
            print(f"{order}: opened after {opened:.2f} s, first batch after {time.perf_counter() - begin:.2f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else IMAGENET_IMAGES)
