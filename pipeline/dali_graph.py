"""DALI's graph: decode, crop, mirror, and where DALI can, subtract the mean and scale.

Everything random arrives from outside; `crop_mirror_normalize` takes a mean per image, so the colour offset costs
nothing. What DALI leaves different between its backends is set explicitly: chroma upsampling, EXIF orientation and the
exact inverse DCT. DALI has no bfloat16, no mean per pixel, and its float16 costs a CPU 1.7 times its float32: there the
graph yields uint8 crops, and `normalize_torch.py` does the rest.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia.dali import Pipeline, fn, types
from nvidia.dali.tensors import TensorCPU

from alexnet.pipeline.batch import DecodeSettings

Jpegs = list[npt.NDArray[np.uint8]]
Inputs = tuple[Any, ...]
"""Of the graph, a row an image: JPEG bytes, corners, mirror flags, and means and divisors if it normalizes."""


def normalizes(settings: DecodeSettings) -> bool:
    """Say whether the graph itself yields what was asked for."""
    if settings.crops_only or settings.mean_image:
        return False
    return settings.output == "float32" or (settings.output == "float16" and settings.device_id is not None)


def build_graph(settings: DecodeSettings, images: int, waiting: deque[Inputs]) -> Any:
    """Build the pipeline for runs of up to so many images, whose inputs it takes from `waiting`."""
    pipeline = define_graph(settings, images, waiting)
    pipeline.build()
    return pipeline


def warm_up(graph: Any, waiting: deque[Inputs], inputs: Inputs, images: int) -> Inputs:
    """Run a graph once with as many images as it is built for, these again and again; return what it may still read.

    nvImageCodec gives the JPEG engine, in every run, at most as many images as there were in its first. After a small
    first one, which a share of a batch or a resumed run may have, others would be decoded, and rounded, by a kernel.
    """
    rows = np.arange(images) % len(inputs[0])
    repeated = tuple([column[row] for row in rows] if isinstance(column, list) else column[rows] for column in inputs)
    waiting.append(repeated)
    with suppress(RuntimeError):  # a damaged image: the run that it is from says so
        graph.schedule_run()
        graph.reset()
        graph.outputs()
        return ()
    return repeated


def define_graph(settings: DecodeSettings, images: int, waiting: deque[Inputs]) -> Any:
    """Return the pipeline of `build_graph` before it is built, which takes a GPU if it is for one."""
    pipeline = Pipeline(
        batch_size=images,
        num_threads=settings.threads,
        device_id=settings.device_id,
        prefetch_queue_depth=settings.depth,
        exec_dynamic=True,  # outputs own their memory, so torch takes them without a copy
    )
    inputs = 5 if normalizes(settings) else 3
    with pipeline:
        jpegs, crop_yx, mirror, *constants = fn.external_source(
            source=_next_of(waiting), num_outputs=inputs, batch=True, no_copy=True
        )
        crops = _crops(settings, jpegs, crop_yx)
        if constants:
            mean, divisor = constants
            crops = fn.crop_mirror_normalize(
                crops,
                mirror=mirror,
                mean=mean,
                std=divisor,
                dtype=types.FLOAT if settings.output == "float32" else types.FLOAT16,
                output_layout="HWC" if settings.channels_last else "CHW",
            )
        else:
            crops = fn.flip(crops, horizontal=mirror, vertical=0)
        pipeline.set_outputs(crops)
    return pipeline


def _next_of(waiting: deque[Inputs]) -> Callable[[], Inputs]:
    """Return a graph's source. It holds on to nothing else, no open file above all: DALI leaves it to the collector."""

    def next_inputs() -> Inputs:
        if not waiting:
            raise StopIteration
        jpegs, *others = waiting.popleft()
        return [TensorCPU(jpeg) for jpeg in jpegs], *others  # 1.2 us an image; DALI takes 2.4 to find out what it is

    return next_inputs


def _crops(settings: DecodeSettings, jpegs: Any, crop_yx: Any) -> Any:
    """Decode only the crop on the CPU (1.4 times the speed of whole images); decode whole images on a GPU.

    Asking a GPU for a crop may keep its JPEG engine out. The engine takes all images, or none where there is no
    engine: of a share, DALI would choose those images by their place in the run, and a resumed run has other places.
    """
    shape = (settings.crop_px, settings.crop_px)
    # Chroma is upsampled as libjpeg does it; EXIF orientation is ignored, as by every published ImageNet result.
    decode: dict[str, Any] = {"output_type": types.RGB, "jpeg_fancy_upsampling": True, "adjust_orientation": False}
    if settings.device_id is None:
        return fn.decoders.image_slice(jpegs, start=crop_yx, shape=shape, axes=(0, 1), device="cpu", **decode)
    images = fn.decoders.image(jpegs, device="mixed", **_memory_and_threads(settings), **decode)
    return fn.slice(images, start=crop_yx, shape=shape, axes=(0, 1))


def _memory_and_threads(settings: DecodeSettings) -> dict[str, Any]:
    """Say what nvImageCodec takes for images of one size; unasked it takes 16 MiB of each kind of memory a thread."""
    coefficients = 8 * settings.size_px**2  # bytes: two of each of three planes, and the codes
    return {
        "hw_decoder_load": 1.0,
        "preallocate_width_hint": settings.size_px,
        "preallocate_height_hint": settings.size_px,
        "device_memory_padding": coefficients,
        "host_memory_padding": coefficients,
        # Threads tied to cores would be in the way of the host decoder's, which work at the same time.
        "affine": not settings.decode.startswith("split="),
    }
