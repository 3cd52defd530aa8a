"""SPDL: a pipeline of threads, a batch a task: read and decode its images, cut them, finish the batch.

As its documentation has it: `PipelineBuilder`, a source that never ends, `pipe` with a concurrency, a sink that holds a
few. Tasks of one image, gathered with `aggregate`, took 1.7 times the CPU time: each passes through the event loop. Its
own decoder is FFmpeg's, told the window as a filter, with one thread an image.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import spdl.io
from spdl.pipeline import PipelineBuilder

from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.loader.peers.work import (
    Pixels,
    counted,
    crop_px_of,
    decoder_of,
    endless_ids,
    finished,
    mean_of,
    random_window,
)
from alexnet.tools.bench.measuring.stages_seam import Stage, StageSettings

_SINK = 2


def make(options: dict[str, Any], settings: StageSettings, versions: dict[str, str]) -> Stage:
    """Make the stage, with a batch in work a core."""
    reader = SplitReader(settings.data, settings.split)
    mean = mean_of(reader.manifest)
    window = _spdl_window(reader) if options["decoder"] == "spdl" else _window(reader, options["decoder"])

    def load(sample_ids: list[int]) -> tuple[Any, list[int]]:
        pixels = [window(reader.jpeg(sample_id).tobytes()) for sample_id in sample_ids]
        return finished(pixels, mean), [int(reader.labels[sample_id]) for sample_id in sample_ids]

    pipeline = (
        PipelineBuilder()
        .add_source(_batches(len(reader), settings.batch_images))
        .pipe(load, concurrency=settings.threads)
        .add_sink(_SINK)
        .build(num_threads=settings.threads, max_failures=0)
    )
    words = f"a batch a task, concurrency=num_threads={settings.threads}, sink of {_SINK}, {options['decoder']}"
    ready = _SINK + settings.threads
    return Stage(work=counted(_Running(pipeline), settings), settings=words, ready_batches=ready, versions=versions)


def _batches(images: int, batch_images: int) -> Iterator[list[int]]:
    ids = endless_ids(images)
    while True:
        yield list(islice(ids, batch_images))


def _window(reader: SplitReader, decoder: str) -> Callable[[bytes], Pixels]:
    decode, crop_px, rng = decoder_of(decoder), crop_px_of(reader.manifest), np.random.default_rng(0)
    return lambda jpeg: random_window(decode(jpeg), crop_px, rng)


def _spdl_window(reader: SplitReader) -> Callable[[bytes], Pixels]:
    crop_px, size_px, rng = crop_px_of(reader.manifest), reader.manifest.size_px, np.random.default_rng(0)
    one_thread = spdl.io.decode_config(decoder_options={"threads": "1"})

    def window(jpeg: bytes) -> Pixels:
        y, x, mirror = rng.integers(0, (size_px - crop_px + 1, size_px - crop_px + 1, 2)).tolist()
        description = f"crop={crop_px}:{crop_px}:{x}:{y}:exact=1,format=pix_fmts=rgb24{',hflip' * mirror}"
        buffer = spdl.io.load_image(jpeg, decode_config=one_thread, filter_desc=description)
        pixels: Pixels = spdl.io.to_numpy(buffer)
        return pixels

    return window


class _Running:
    """Start the pipeline with the first batch."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def __iter__(self) -> Any:
        with self._pipeline.auto_stop():
            yield from self._pipeline
