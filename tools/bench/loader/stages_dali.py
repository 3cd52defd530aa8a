"""DALI's decoder by itself: whole images, on the CPU or with nvJPEG."""

from collections.abc import Iterator
from typing import Any

from alexnet.shards.reader import SplitReader


def decode(
    reader: SplitReader, batch_images: int, threads: int, device_id: int | None, engine_share: float | None = None
) -> Iterator[int]:
    """Decode whole images with DALI, nothing else; yield the number of each run's images.

    `engine_share`: of the images, for a GPU's hardware engine; None leaves it to DALI.
    """
    from nvidia.dali import Pipeline, fn, types

    batches = len(reader) // batch_images

    def jpegs(iteration: int) -> list[Any]:
        first = iteration % batches * batch_images
        return [reader.jpeg(i) for i in range(first, first + batch_images)]

    pipeline = Pipeline(batch_images, threads, device_id, prefetch_queue_depth=2, exec_dynamic=True)
    with pipeline:
        files = fn.external_source(source=jpegs, batch=True, no_copy=True)
        device = "cpu" if device_id is None else "mixed"
        engine: dict[str, Any] = {} if engine_share is None else {"hw_decoder_load": engine_share}
        pipeline.set_outputs(
            fn.decoders.image(
                files,
                device=device,
                output_type=types.RGB,
                jpeg_fancy_upsampling=True,
                adjust_orientation=False,
                **engine,
            )
        )
    pipeline.build()
    while True:
        pipeline.run()
        yield batch_images
