"""Decode on the CPU's cores in C (`alexnet.pipeline.host`), as a decoder of the stream.

On a CPU it writes normalized tensors into memory that is used again when nobody holds it any more. For a GPU it writes
uint8 crops into pinned memory, from which they are copied while the next batch is decoded.
"""

import contextlib
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alexnet.pipeline.batch import Batch
from alexnet.pipeline.decode import DecodeSettings
from alexnet.pipeline.host.decoder import DTYPES, Decoder, Kind
from alexnet.pipeline.host.ring import Bytes, Ring, allocate_plain
from alexnet.shards.errors import InputError

Decoding = Future[list[tuple[int, str]]]
"""Of a batch: the rows that could not be decoded, and why."""


class HostDecoder:
    """Decode with all threads at one batch after another, from a thread of its own.

    So the next batch is planned and read while this one is decoded: 10% of the time, on two cores. `pinned_bytes`: host
    memory that was pinned so far.
    """

    def __init__(self, settings: DecodeSettings) -> None:
        self._settings = settings
        self._decoder = Decoder(settings.threads)
        on_cpu = settings.device_id is None
        self._normalizes = on_cpu and not settings.crops_only
        self._kind: Kind = settings.output if self._normalizes else "uint8"
        self._planar = self._normalizes and not settings.channels_last
        buffer_bytes = settings.max_images * settings.side_px**2 * 3 * np.dtype(DTYPES[self._kind]).itemsize
        # What waits in the queue, what the consumer uses, what is being written, and what is to be written next.
        self._ring = Ring(buffer_bytes, keep=settings.depth + 3, allocate=allocate_plain if on_cpu else self._pinned)
        self.pinned_bytes = 0
        self._jobs: SimpleQueue[tuple[Batch, list[npt.NDArray[np.uint8]], npt.NDArray[Any], Decoding] | None]
        self._jobs = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="alexnet-host-decoder", daemon=True)
        self._thread.start()
        self._waiting: deque[tuple[Batch, npt.NDArray[Any], Decoding]] = deque()
        self._copying: deque[tuple[torch.cuda.Event, torch.Tensor]] = deque()

    @property
    def ahead(self) -> int:
        """Two batches: one is decoded while the other is made ready."""
        return 2

    def submit(self, batch: Batch) -> None:
        """Read a batch's JPEGs and have them decoded when those before are done."""
        batch, jpegs = batch.read()
        side = self._settings.side_px
        shape = (len(batch), 3, side, side) if self._planar else (len(batch), side, side, 3)
        out = self._ring.take(shape, DTYPES[self._kind])
        decoding = Decoding()
        self._jobs.put((batch, jpegs, out, decoding))
        self._waiting.append((batch, out, decoding))

    def result(self) -> Batch:
        """Wait for the oldest batch."""
        batch, pixels, decoding = self._waiting.popleft()
        bad = dict(decoding.result())
        # NumPy has no bfloat16 and holds its bits as uint16.
        images = torch.from_numpy(pixels)
        images = images.view(torch.bfloat16) if pixels.dtype == np.uint16 else images
        if bad:
            images = images[[row for row in range(len(batch)) if row not in bad]]
            batch = batch.without(batch.errors([bad.get(row, "") for row in range(len(batch))]))
        if self._normalizes and self._settings.channels_last:
            images = images.permute(0, 3, 1, 2)
        return replace(batch, images=self._on_device(images), normalized=self._normalizes)

    def close(self) -> None:
        """Stop the threads, after the batch at work."""
        with contextlib.suppress(Empty):
            while True:
                self._jobs.get_nowait()
        self._jobs.put(None)
        self._thread.join()
        self._decoder.close()

    def _work(self) -> None:
        """Decode one batch after another. An executor would refuse them once the main thread has ended."""
        while (job := self._jobs.get()) is not None:
            batch, jpegs, out, decoding = job
            try:
                decoding.set_result(self._decode(batch, jpegs, out))
            except BaseException as error:  # whatever it is, `result` must raise it
                decoding.set_exception(error)
            del job, batch, jpegs, out, decoding  # they hold a batch's memory

    def _decode(self, batch: Batch, jpegs: list[npt.NDArray[np.uint8]], out: npt.NDArray[Any]) -> list[tuple[int, str]]:
        s, pixels = self._settings, self._kind == "uint8"
        try:
            return self._decoder.decode(
                jpegs,
                crop_yx=batch.crop_yx,
                mirror=batch.mirror,
                size=(s.size_px, s.size_px),
                crop_px=s.side_px,
                out=out,
                kind=self._kind,
                mean=None if pixels else batch.means,
                scale=None if pixels else batch.scale,
                mean_image=None if pixels else s.mean_image,
                planar=self._planar,
            )
        except OSError as error:  # too many threads
            raise InputError(str(error)) from None

    def _pinned(self, bytes_: int) -> Bytes:
        self.pinned_bytes += bytes_
        memory: Bytes = torch.empty(bytes_, dtype=torch.uint8, pin_memory=True).numpy()
        return memory

    def _on_device(self, images: torch.Tensor) -> torch.Tensor:
        """Copy to the GPU, holding on to the pinned memory until that is done."""
        if self._settings.device_id is None:
            return images
        while self._copying and self._copying[0][0].query():
            self._copying.popleft()
        copied = images.to(self._settings.device, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(copied.device))
        self._copying.append((done, images))
        return copied
