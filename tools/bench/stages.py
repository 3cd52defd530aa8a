"""The stages of the data path, each as something that can be run for a while and counted.

A stage yields the number of images of each batch it finished. `read` touches every byte in the epoch's order; `decode`
turns whole files into pixels and does nothing with them; `full` is the stream as training uses it.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from nvidia.dali import Pipeline, fn, types

from alexnet.pipeline import ImageStream
from alexnet.shards.reader import SplitReader

Stage = Iterator[int]


def read(reader: SplitReader, batch_images: int) -> Stage:
    """Copy the bytes of one image after another out of the mapped tars."""
    while True:
        for first in range(0, len(reader) - batch_images + 1, batch_images):
            for sample_id in range(first, first + batch_images):
                reader.jpeg(sample_id).copy()
            yield batch_images


def decode(reader: SplitReader, batch_images: int, threads: int, device_id: int | None) -> Stage:
    """Decode whole images with DALI, nothing else."""
    batches = len(reader) // batch_images

    def jpegs(iteration: int) -> list[Any]:
        first = iteration % batches * batch_images
        return [reader.jpeg(i) for i in range(first, first + batch_images)]

    pipeline = Pipeline(batch_images, threads, device_id, prefetch_queue_depth=2, exec_dynamic=True)
    with pipeline:
        files = fn.external_source(source=jpegs, batch=True, no_copy=True)
        device = "cpu" if device_id is None else "mixed"
        pipeline.set_outputs(
            fn.decoders.image(
                files,
                device=device,
                output_type=types.RGB,
                jpeg_fancy_upsampling=True,
                adjust_orientation=False,
            )
        )
    pipeline.build()
    while True:
        pipeline.run()
        yield batch_images


def full(stream: ImageStream) -> Stage:
    """Iterate the stream, epoch after epoch."""
    with closing(stream):
        while True:
            for _, labels in stream:
                yield len(labels)
