"""What tests of streams share: a stream of any settings, and what it delivers."""

import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet.pipeline import ImageStream, StreamSettings
from alexnet.shards.reader import SplitReader

RUNNING = {field.name for field in fields(StreamSettings)} - {"threads"}
DECODERS = ["dali", "host", "split=0.5"]

Batches = list[tuple[torch.Tensor, list[int]]]


def stream_of(root: Path | str, **options: Any) -> ImageStream:
    """Return a stream over the training split, of one rank where no other is given; StreamSettings' options, too."""
    running = {name: options.pop(name) for name in RUNNING & set(options)}
    given = {"batch_images": 25, "seed": 3, "threads": 2, "rank": 0, "world_size": 1, **options}
    return ImageStream(f"{root}/train", settings=StreamSettings(**running), **given)


def epochs_of(stream: ImageStream, epochs: int = 1) -> Batches:
    """Return the batches of so many epochs, and close the stream."""
    with stream:
        return [(images.clone(), labels.tolist()) for _ in range(epochs) for images, labels in stream]


def same(a: Batches, b: Batches) -> bool:
    """Tell whether two streams delivered the same to the bit."""
    return len(a) == len(b) and all(torch.equal(x[0], y[0]) and x[1] == y[1] for x, y in zip(a, b, strict=True))


def together(shares: list[Batches]) -> Batches:
    """Return the global batches of which each rank delivered a share."""
    return [
        (torch.cat([images for images, _ in parts]), [label for _, labels in parts for label in labels])
        for parts in zip(*shares, strict=True)
    ]


def labels_of(stream: ImageStream, epoch: int) -> list[list[int]]:
    """Return an epoch's labels, batch by batch, from its plans alone."""
    steps = range(len(stream))
    return [[stream.sample(int(i)).label for i in stream.plan(epoch, step).sample_ids] for step in steps]


def damaged(data: Path, to: Path, sample_id: int, place: int | None, value: bytes) -> Path:
    """Copy a data set and overwrite bytes of a training image, from a place on: by default in the middle."""
    root = Path(shutil.copytree(data, to))
    reader = SplitReader(root, "train")
    row = reader.rows(np.array([sample_id]))[0]
    with (root / reader.shard(sample_id).file).open("r+b") as file:
        file.seek(int(row["offset"]) + (int(row["length"]) // 2 if place is None else place))
        file.write(value)
    return root


AMONG_THE_CODES = {"a marker": b"\xff\xc4\x00\x02", "an end": b"\xff\xd9", "zeros": bytes(300), "ones": b"\xff" * 300}


def others_are_unharmed(whole: ImageStream, skipping: ImageStream, sample_id: int) -> bool:
    """Tell whether an image of which the codes are damaged was taken; no other may differ, named is it if it was not.

    Both yield their images in the order of the ids.
    """
    expected, found = (torch.cat([images for images, _ in epochs_of(stream)]) for stream in (whole, skipping))
    rest = torch.arange(len(expected)) != sample_id
    taken = len(found) == len(expected)
    assert torch.equal(found[rest] if taken else found, expected[rest])
    assert skipping.meter.skipped == (not taken)
    assert all(f"sample {sample_id} (" in line for line in skipping.meter.last_skipped)
    return taken
