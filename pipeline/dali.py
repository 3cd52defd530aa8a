"""Decode with DALI, on a GPU or a CPU, several batches at a time where that is quicker.

DALI runs asynchronously: `submit` queues a run, `result` waits for the oldest. A GPU's decoder wants hundreds of images
at a time, so there several batches make a run, and a run's output is sliced on the device.

DALI fails a run as a whole and does not say for which image. The images of such a run are then tried one by one; the
graph is built anew and goes on without those that failed.

What the graph does is in `dali_graph.py`.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.dlpack import from_dlpack

from alexnet.pipeline.batch import Batch, DecodeSettings
from alexnet.pipeline.dali_graph import Inputs, Jpegs, build_graph, normalizes, warm_up
from alexnet.pipeline.host.jpeg import DecodeError, read_header
from alexnet.pipeline.read import SampleReader

_GPU_RUN_IMAGES = 1024
_READ_THREADS = 2  # 2.4 us an image of 23 kB, where one takes 4.6; more would take cores from the decoder

Part = tuple[Batch, Jpegs]
"""Of a run: those rows of a batch that DALI can be given, and their bytes."""


@dataclass(kw_only=True)
class _Run:
    """Hold one run of the graph until its results are taken: the arrays too, which DALI reads in place."""

    parts: list[Part]
    inputs: Inputs = ()

    def __len__(self) -> int:
        return sum(len(jpegs) for _, jpegs in self.parts)


class DaliDecoder:
    """Decode on DALI's mixed or CPU backend."""

    is_held = None
    pinned_bytes = 0  # what DALI pins is not known

    def __init__(self, settings: DecodeSettings) -> None:
        self._settings = settings
        self._normalizes = normalizes(settings)
        self._batches_per_run = 1 if settings.device_id is None else max(1, _GPU_RUN_IMAGES // settings.max_images)
        self._headers = HeaderCheck(settings.size_px)
        self._reader = SampleReader(min(_READ_THREADS, settings.threads), keep=self.ahead)
        self._collected: list[Batch] = []
        self._inputs: deque[Inputs] = deque()
        self._runs: deque[_Run] = deque()
        self._ready: deque[Batch] = deque()
        self._graph: Any = None
        self._first_inputs: Inputs = ()  # of a warm-up that failed: held, for DALI reads in place

    @property
    def ahead(self) -> int:
        """Fill the queue of runs."""
        return self._batches_per_run * self._settings.depth

    def submit(self, batch: Batch) -> Callable[[], Batch]:
        """Collect a batch; start a run when enough are there."""
        self._collected.append(batch)
        if len(self._collected) == self._batches_per_run:
            self._start_run()
        return self._oldest

    def close(self) -> None:
        """Let go of the graph."""
        self._graph = None
        self._reader.close()

    def _oldest(self) -> Batch:
        if not self._ready:
            if not self._runs:
                self._start_run()  # a run that is not full: what was submitted must come out
            self._ready.extend(self._results(self._runs.popleft()))
        return self._ready.popleft()

    def _start_run(self) -> None:
        run = _Run(parts=[self._read(batch) for batch in self._collected])
        self._collected = []
        self._runs.append(run)
        self._schedule(run)

    def _read(self, batch: Batch) -> Part:
        jpegs, unknown, failures = self._reader.read(batch.reader, batch.plan.sample_ids, self._headers.sound)
        reasons = {row: self._headers.damage(jpegs[row]) for row in unknown}
        return _without(batch.without(failures), jpegs, reasons)

    def _schedule(self, run: _Run) -> None:
        if not len(run):
            return  # DALI knows no empty batch
        run.inputs = self._inputs_of(run.parts)
        if self._graph is None:
            most = self._settings.max_images * self._batches_per_run
            self._graph = build_graph(self._settings, most, self._inputs)
            if self._settings.device_id is not None and len(run) < most:
                self._first_inputs = warm_up(self._graph, self._inputs, run.inputs, most)
        self._inputs.append(run.inputs)
        # `schedule_run` takes inputs until there are none and then thinks the data have ended: `reset` says no.
        self._graph.schedule_run()
        self._graph.reset()

    def _inputs_of(self, parts: Sequence[Part]) -> Inputs:
        batches, jpegs = [batch for batch, _ in parts], [jpeg for _, jpegs in parts for jpeg in jpegs]
        crop_yx = np.concatenate([batch.plan.crop_yx for batch in batches])
        mirror = np.concatenate([batch.plan.mirror for batch in batches]).astype(np.int32)
        if not self._normalizes:
            return jpegs, crop_yx, mirror
        divisors = [np.tile(np.float32(1) / batch.normalization.scale, (len(batch), 1)) for batch in batches]
        return jpegs, crop_yx, mirror, np.concatenate([batch.means for batch in batches]), np.concatenate(divisors)

    def _results(self, run: _Run) -> list[Batch]:
        """Return the batches of a run, with their part of its output."""
        images, normalized = None, self._normalizes
        while images is None and len(run):
            try:
                (outputs,) = self._graph.outputs()
                images = from_dlpack(outputs.as_tensor())
                break
            except RuntimeError as raised:
                error = raised.with_traceback(None)  # which would keep the graph alive
            self._drop_bad_images(run, error)
        if images is None:
            side = self._settings.crop_px
            images = torch.empty((0, side, side, 3), dtype=torch.uint8, device=self._settings.device)
            normalized = False
        if normalized and self._settings.channels_last:
            images = images.permute(0, 3, 1, 2)
        images = iter(images.split([len(batch) for batch, _ in run.parts]))
        return [replace(batch, images=next(images), normalized=normalized) for batch, _ in run.parts]

    def _drop_bad_images(self, run: _Run, error: RuntimeError) -> None:
        """Find out which images of a failed run DALI cannot decode, and start again without them."""
        self._graph = None  # first of all: until it is gone, its threads read the arrays of every run that was started
        before, readable = len(run), [self._read(batch) for batch, _ in run.parts]
        run.parts = [_without(*part, self._reasons(*part)) for part in readable]
        if len(run) == before:
            raise error  # not an image's fault
        self._inputs.clear()
        for queued in (run, *self._runs):
            self._schedule(queued)

    def _reasons(self, batch: Batch, jpegs: Jpegs) -> dict[int, str]:
        """Decode a batch's images one by one; return for their rows why they cannot be decoded."""
        graph, waiting, reasons = None, deque[Inputs](), {}
        for row, jpeg in enumerate(jpegs):
            if graph is None:  # after a failure, too: nothing of it shall be left
                graph = build_graph(self._settings, 1, waiting)
            alone = batch.select(np.arange(len(batch)) == row)
            inputs = self._inputs_of([(alone, [jpeg])])  # held: DALI reads in place
            waiting.append(inputs)
            try:
                graph.schedule_run()
                graph.reset()
                graph.outputs()
            except RuntimeError as error:
                reasons[row] = f"cannot be decoded: {_last_line(error)}"
                graph = None
                waiting.clear()
        return reasons


class HeaderCheck:
    """Look at the headers of square images before DALI does.

    With 32 images or more in a run, DALI 2.4 ends the process with a segmentation fault where a header cannot be
    parsed; it raises an error, as it should, for damage that is found later, in the pixels' codes. Most images of a
    data set have the same headers to the byte, so these are parsed once. `sound`: headers that need no second look.
    """

    def __init__(self, size_px: int) -> None:
        self._size_px = size_px
        self.sound = b""

    def damage(self, jpeg: npt.NDArray[np.uint8]) -> str:
        """Return why an image, uint8 (bytes,), cannot be given to DALI, or nothing."""
        if self.sound and jpeg[: len(self.sound)].tobytes() == self.sound:
            return ""
        try:
            header = read_header(jpeg)
        except DecodeError as error:
            return f"cannot be decoded: {error}"
        if header.components not in (1, 3):
            return f"cannot be decoded: has {header.components} components, not one (grey) or three"
        if (header.width_px, header.height_px) != (self._size_px, self._size_px):
            found = f"{header.width_px} pixels wide and {header.height_px} high"
            return f"cannot be decoded: is {found}, not {self._size_px} and {self._size_px}"
        self.sound = jpeg[: header.bytes].tobytes()
        return ""


def _without(batch: Batch, jpegs: Jpegs, reasons: Mapping[int, str]) -> Part:
    """Return the rows and bytes of the images for which there is no reason against them, or an empty one."""
    against = {row: reason for row, reason in reasons.items() if reason}
    left = [jpeg for row, jpeg in enumerate(jpegs) if row not in against]
    return batch.without_rows(against), left


def _last_line(error: RuntimeError) -> str:
    """Take what matters out of DALI's message, which goes on about operators and stacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "nvImageCodec" in line or "rror" in line]
    return (named or lines or ["DALI gives no reason"])[-1][:200]
