"""Decode with DALI, on a GPU or a CPU, several batches at a time where that is quicker.

DALI runs asynchronously: `submit` queues a run, `result` waits for the oldest. A GPU's decoder wants hundreds of images
at a time, so there several batches make a run, and a run's output is sliced on the device.

DALI fails a run as a whole and does not say for which image. The images of such a run are then tried one by one; the
graph is built anew and goes on without those that failed.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.dlpack import from_dlpack

from alexnet.pipeline.decoders.graph import Arrays, build_graph, graph_finishes, inputs_of
from alexnet.pipeline.decoders.seam import Decoded, DecoderSettings
from alexnet.pipeline.encoded import EncodedBatch, Failure, concatenated
from alexnet.pipeline.host.jpeg import DecodeError, read_header

_GPU_RUN_IMAGES = 1024


@dataclass(kw_only=True)
class _Run:
    """Hold one run of the graph until its results are taken: the arrays too, which DALI reads in place.

    `batches`: the rows of each batch that are decoded. `failures`: of each batch.
    """

    batches: list[EncodedBatch]
    jpegs: list[npt.NDArray[Any]]
    failures: list[list[Failure]]
    inputs: Arrays = ()


class DaliDecoder:
    """Decode on DALI's mixed or CPU backend."""

    def __init__(self, settings: DecoderSettings) -> None:
        self._settings = settings
        per_run = 1 if settings.device_id is None else max(1, _GPU_RUN_IMAGES // settings.max_images)
        self._batches_per_run = per_run
        self._collected: list[EncodedBatch] = []
        self._inputs: deque[Arrays] = deque()
        self._runs: deque[_Run] = deque()
        self._ready: deque[Decoded] = deque()
        self._graph: Any = None

    @property
    def ahead(self) -> int:
        """Fill the queue of runs."""
        return self._batches_per_run * self._settings.depth

    @property
    def pinned_bytes(self) -> int:
        """None of its own."""
        return 0

    def submit(self, batch: EncodedBatch) -> None:
        """Collect a batch; start a run when enough are there."""
        self._collected.append(batch)
        if len(self._collected) == self._batches_per_run:
            self._start_run()

    def result(self) -> Decoded:
        """Wait for the oldest batch."""
        if not self._ready:
            if not self._runs:
                self._start_run()  # a run that is not full: what was submitted must come out
            self._ready.extend(self._results(self._runs.popleft()))
        return self._ready.popleft()

    def close(self) -> None:
        """Let go of the graph."""
        self._graph = None

    def _start_run(self) -> None:
        run = _Run(batches=[], jpegs=[], failures=[])
        for batch in self._collected:
            readable, jpegs, failures = self._read(batch)
            run.batches.append(readable)
            run.jpegs += jpegs
            run.failures.append(failures)
        self._collected = []
        self._runs.append(run)
        self._schedule(run)

    def _read(self, batch: EncodedBatch) -> tuple[EncodedBatch, list[npt.NDArray[Any]], list[Failure]]:
        """Read the JPEGs that DALI can be given; return their rows, their bytes, and the samples that have failed."""
        jpegs, failures = batch.read()
        batch = batch.without(failures)
        damages = [header_damage(jpeg, self._settings.size_px) for jpeg in jpegs]
        for sample_id, damage in zip(batch.sample_ids.tolist(), damages, strict=True):
            failures += [batch.failure(sample_id, f"cannot be decoded: {damage}")] if damage else []
        return batch.without(failures), [j for j, damage in zip(jpegs, damages, strict=True) if not damage], failures

    def _schedule(self, run: _Run) -> None:
        if not run.jpegs:
            return  # DALI knows no empty batch
        run.inputs = inputs_of(self._settings, concatenated(run.batches), run.jpegs)
        self._inputs.append(run.inputs)
        if self._graph is None:
            self._graph = build_graph(
                self._settings, self._settings.max_images * self._batches_per_run, _next_of(self._inputs)
            )
        # `schedule_run` takes inputs until there are none and then thinks the data have ended: `reset` says no.
        self._graph.schedule_run()
        self._graph.reset()

    def _results(self, run: _Run) -> list[Decoded]:
        images = None
        while images is None and run.jpegs:
            try:
                (outputs,) = self._graph.outputs()
                images = from_dlpack(outputs.as_tensor())
                break
            except RuntimeError as raised:
                error = raised.with_traceback(None)  # which would keep the graph alive
            self._drop_bad_images(run, error)
        return _split(self._settings, run, images)

    def _drop_bad_images(self, run: _Run, error: RuntimeError) -> None:
        """Find out which images of a failed run DALI cannot decode, and start again without them."""
        self._graph = None  # first of all: until it is gone, its threads read the arrays of every run that was started
        before = len(run.jpegs)
        run.jpegs = []
        for i, batch in enumerate(run.batches):
            read, jpegs, failures = self._read(batch)
            reasons = _reasons(self._settings, read, jpegs)
            for sample_id, reason in zip(read.sample_ids.tolist(), reasons, strict=True):
                failures += [read.failure(sample_id, reason)] if reason else []
            run.jpegs += [jpeg for jpeg, reason in zip(jpegs, reasons, strict=True) if not reason]
            run.batches[i] = batch.without(failures)
            run.failures[i] += failures
        if len(run.jpegs) == before:
            raise error  # not an image's fault
        self._inputs.clear()
        for queued in (run, *self._runs):
            self._schedule(queued)


def header_damage(jpeg: npt.NDArray[np.uint8], size_px: int) -> str:
    """Return what is wrong with the headers of a square image, uint8 (bytes,), or nothing.

    With 32 images or more in a run, DALI 2.4 ends the process with a segmentation fault where a header cannot be
    parsed; it raises an error, as it should, for damage that is found later, in the pixels' codes.
    """
    try:
        header = read_header(jpeg)
    except DecodeError as error:
        return str(error)
    if header.components not in (1, 3):
        return f"has {header.components} components, not one (grey) or three"
    if (header.width_px, header.height_px) != (size_px, size_px):
        return f"is {header.width_px} pixels wide and {header.height_px} high, not {size_px} and {size_px}"
    return ""


def _next_of(waiting: deque[Arrays]) -> Callable[[], Arrays]:
    """Return a graph's source. It holds on to nothing else, no open file above all: DALI leaves it to the collector."""

    def next_inputs() -> Arrays:
        if not waiting:
            raise StopIteration
        return waiting.popleft()

    return next_inputs


def _reasons(settings: DecoderSettings, batch: EncodedBatch, jpegs: list[npt.NDArray[Any]]) -> list[str]:
    """Decode a batch's images one by one; return for each why it cannot be decoded, or nothing."""
    graph, waiting, reasons = None, deque[Arrays](), []
    for row, jpeg in enumerate(jpegs):
        if graph is None:  # after a failure, too: nothing of it shall be left
            graph = build_graph(settings, 1, _next_of(waiting))
        inputs = inputs_of(settings, batch.one(row), [jpeg])  # held here, as DALI reads them in place
        waiting.append(inputs)
        try:
            graph.schedule_run()
            graph.reset()
            graph.outputs()
            reasons.append("")
        except RuntimeError as error:
            reasons.append(f"cannot be decoded: {_last_line(error)}")
        if reasons[-1]:
            graph = None
            waiting.clear()
    return reasons


def _split(settings: DecoderSettings, run: _Run, images: torch.Tensor | None) -> list[Decoded]:
    """Cut a run's output into its batches."""
    finished = graph_finishes(settings)
    if images is None:
        shape = (0, settings.window_px, settings.window_px, 3)
        images, finished = torch.empty(shape, dtype=torch.uint8, device=settings.device), False
    if finished and settings.channels_last:
        images = images.permute(0, 3, 1, 2)
    parts = images.split([len(batch) for batch in run.batches])
    return [
        Decoded(images=part, finished=finished, batch=batch, failures=tuple(failures))
        for part, batch, failures in zip(parts, run.batches, run.failures, strict=True)
    ]


def _last_line(error: RuntimeError) -> str:
    """Take what matters out of DALI's message, which goes on about operators and stacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "nvImageCodec" in line or "rror" in line]
    return (named or lines or ["DALI gives no reason"])[-1][:200]
