"""What tests of streams share: a stream of any settings, and what it delivers."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from alexnet.pipeline import ImageStream, StreamSettings

RUNNING = {field.name for field in fields(StreamSettings)} - {"threads"}
DECODERS = ["dali", "host", "split=0.5"]

Batches = list[tuple[torch.Tensor, list[int]]]


def stream_of(root: Path, **options: Any) -> ImageStream:
    """Return a stream over the training split, of one rank where no other is given; StreamSettings' options, too."""
    running = {name: options.pop(name) for name in RUNNING & set(options)}
    given = {"batch_images": 25, "seed": 3, "threads": 2, "rank": 0, "ranks": 1, **options}
    return ImageStream(root / "train", settings=StreamSettings(**running), **given)


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
