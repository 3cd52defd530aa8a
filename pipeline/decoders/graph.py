"""The DALI graph: execute a batch's plan. Decode, crop, mirror, and where DALI can, subtract the mean and scale.

The same graph runs on a GPU (`device_id` a number, decode on `mixed`) and on DALI's CPU backend (`device_id=None`).
Everything random arrives from outside through `external_source`; `crop_mirror_normalize` takes a mean per image, so
the colour offset costs nothing. What DALI leaves different between its backends is set explicitly: chroma upsampling,
EXIF orientation and the exact inverse DCT.

DALI has no bfloat16, no mean per pixel, and its float16 costs a CPU 1.7 times its float32: there the graph yields uint8
windows, and the finishing pass does the rest.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from nvidia.dali import Pipeline, fn, types

from alexnet.pipeline.decoders.seam import DecoderSettings
from alexnet.pipeline.encoded import EncodedBatch

Arrays = tuple[Any, ...]


def inputs_of(settings: DecoderSettings, batch: EncodedBatch, jpegs: list[Any]) -> Arrays:
    """Return the graph's inputs, a row an image: JPEG bytes, corners, mirror flags, and means if it uses them."""
    means = (batch.means,) if graph_finishes(settings) else ()
    return jpegs, batch.crop_yx, batch.mirror.astype(np.int32), *means


def graph_finishes(settings: DecoderSettings) -> bool:
    """Say whether the graph itself yields what was asked for."""
    if settings.windows_only or settings.finish.mean.ndim > 1:
        return False
    return settings.output == "float32" or (settings.output == "float16" and settings.device_id is not None)


def build_graph(settings: DecoderSettings, images: int, next_inputs: Callable[[], Arrays]) -> Any:
    """Build the pipeline for runs of up to so many images. `next_inputs` raises StopIteration when there are none."""
    pipeline = Pipeline(
        batch_size=images,
        num_threads=settings.threads,
        device_id=settings.device_id,
        prefetch_queue_depth=settings.depth,
        exec_dynamic=True,  # outputs own their memory, so torch takes them without a copy
    )
    with pipeline:
        inputs = 4 if graph_finishes(settings) else 3
        jpegs, crop_yx, mirror, *means = fn.external_source(
            source=next_inputs, num_outputs=inputs, batch=True, no_copy=True
        )
        windows = _windows(settings, jpegs, crop_yx)
        if means:
            pipeline.set_outputs(_normalised(settings, windows, mirror, *means))
        else:
            pipeline.set_outputs(fn.flip(windows, horizontal=mirror, vertical=0))
    pipeline.build()
    return pipeline


def _windows(settings: DecoderSettings, jpegs: Any, crop_yx: Any) -> Any:
    """Decode only the window on the CPU (1.4 times the speed of whole images); decode whole images on a GPU.

    Asking a GPU for a window may keep its JPEG engine out. The engine takes all images, or none where there is no
    engine: of a share, DALI would choose those images by their place in the run, and a resumed run has other places.
    """
    shape = (settings.window_px, settings.window_px)
    # Chroma is upsampled as libjpeg does it; EXIF orientation is ignored, as by every published ImageNet result.
    decode: dict[str, Any] = {"output_type": types.RGB, "jpeg_fancy_upsampling": True, "adjust_orientation": False}
    if settings.device_id is None:
        return fn.decoders.image_slice(jpegs, start=crop_yx, shape=shape, axes=(0, 1), device="cpu", **decode)
    images = fn.decoders.image(jpegs, device="mixed", hw_decoder_load=1.0, **decode)
    return fn.slice(images, start=crop_yx, shape=shape, axes=(0, 1))


def _normalised(settings: DecoderSettings, windows: Any, mirror: Any, means: Any) -> Any:
    return fn.crop_mirror_normalize(
        windows,
        mirror=mirror,
        mean=means,
        std=[1.0 / float(s) for s in settings.finish.scale],
        dtype=types.FLOAT if settings.output == "float32" else types.FLOAT16,
        output_layout="HWC" if settings.channels_last else "CHW",
    )
