"""Decode on the CPU's cores in C (`alexnet.pipeline.host`), as a decoder of the stream, into memory that is used again.

JPEGs are read ahead of their decoding, as batches; planes by the threads that finish them, as a core's second cache
holds an image's: a batch's would have to go through memory twice more.

On a CPU it writes normalized tensors, which are used again when nobody holds them any more. For a GPU it writes uint8
crops into pinned memory, from which they are copied while the next batch is decoded.
"""

import contextlib
import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alexnet.pipeline.batch import Batch, DecodeSettings
from alexnet.pipeline.host.pool import DTYPES, Bytes, JpegPool, Ring, StoredPlanes, allocate_plain
from alexnet.pipeline.in_use import InUse
from alexnet.pipeline.read import FILES_AT_ONCE, SampleReader, located
from alexnet.shards.errors import InputError, SampleError

Array = npt.NDArray[Any]
Images = list[Bytes] | StoredPlanes
Decoding = Future[dict[int, str]]
"""Of a batch: the rows that could not be decoded, and why."""


class HostDecoder:
    """Decode with all threads at one batch after another, from a thread of its own.

    So the next batch is planned and read while this one is decoded: 10% of the time, on two cores. `pinned_bytes`: host
    memory that was pinned so far.
    """

    is_held = None
    ahead = 2  # one is decoded while the other is made ready

    def __init__(self, settings: DecodeSettings) -> None:
        self._settings = settings
        self._pool = JpegPool(settings.threads)
        self._reader = SampleReader(1, keep=self.ahead + 1)
        on_cpu = settings.device_id is None
        self._normalizes = on_cpu and not settings.crops_only
        self._dtype = np.dtype(DTYPES[settings.output if self._normalizes else "uint8"])
        self._planar = self._normalizes and not settings.channels_last
        buffer_bytes = math.prod(self._shape(settings.max_images)) * self._dtype.itemsize
        # What waits in the queue, what the consumer uses, what is being written, and what is to be written next.
        self._ring = Ring(buffer_bytes, keep=settings.depth + 3, allocate=allocate_plain if on_cpu else self._pinned)
        self.pinned_bytes = 0
        self._jobs: SimpleQueue[tuple[Batch, Images | None, object, Array, Decoding] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="alexnet-host-decoder", daemon=True)
        self._thread.start()
        self._copied = InUse()

    def submit(self, batch: Batch) -> Callable[[], Batch]:
        """Read a batch's JPEGs, or look up its planes, and have it decoded when those before are done."""
        images: Images | None = None
        held: object = None
        if self._settings.encoding == "jpeg":
            images, _, failures = self._reader.read(batch.reader, batch.plan.sample_ids)
            batch = batch.without(failures)
        elif len(batch) <= FILES_AT_ONCE:
            images, held = located(batch.reader, batch.reader.rows(batch.plan.sample_ids))
        out = self._ring.take(self._shape(len(batch)), self._dtype)
        decoding = Decoding()
        self._jobs.put((batch, images, held, out, decoding))
        return partial(self._result, batch, out, decoding)

    def close(self) -> None:
        """Stop the threads, after the batch at work."""
        with contextlib.suppress(Empty):
            while True:
                self._jobs.get_nowait()
        self._jobs.put(None)
        self._thread.join()
        self._pool.close()
        self._copied.close()
        self._reader.close()

    def _shape(self, images: int) -> tuple[int, ...]:
        """Return what so many images become."""
        px = self._settings.crop_px
        return (images, 3, px, px) if self._planar else (images, px, px, 3)

    def _result(self, batch: Batch, pixels: Array, decoding: Decoding) -> Batch:
        bad = decoding.result()
        # NumPy has no bfloat16 and holds its bits as uint16.
        images = torch.from_numpy(pixels)
        images = images.view(torch.bfloat16) if pixels.dtype == np.uint16 else images
        if bad:
            images = images[[row for row in range(len(batch)) if row not in bad]]
            ids = batch.plan.sample_ids
            batch = batch.without([_failure(batch, int(ids[row]), reason) for row, reason in bad.items()])
        if self._normalizes and not self._planar:
            images = images.permute(0, 3, 1, 2)
        return replace(batch, images=self._on_device(images), normalized=self._normalizes)

    def _work(self) -> None:
        """Decode one batch after another. An executor would refuse them once the main thread has ended."""
        while (job := self._jobs.get()) is not None:
            batch, images, held, out, decoding = job
            try:
                decoding.set_result(self._decode(batch, images, out))
            except OSError as error:  # too many threads
                decoding.set_exception(InputError(str(error)))
            except BaseException as error:  # whatever it is, the result must raise it
                decoding.set_exception(error)
            del job, batch, images, held, out, decoding  # they hold a batch's memory, and open files

    def _decode(self, batch: Batch, images: Images | None, out: Array) -> dict[int, str]:
        if images is not None:
            return self._decode_part(batch, images, out)
        bad: dict[int, str] = {}
        for first in range(0, len(batch), FILES_AT_ONCE):
            part = batch.select(np.arange(len(batch)) // FILES_AT_ONCE == first // FILES_AT_ONCE)
            stored, held = located(batch.reader, batch.reader.rows(part.plan.sample_ids))
            wrong = self._decode_part(part, stored, out[first : first + FILES_AT_ONCE])
            del held  # open until here
            bad |= {first + row: reason for row, reason in wrong.items()}
        return bad

    def _decode_part(self, batch: Batch, images: Images, out: Array) -> dict[int, str]:
        return self._pool.decode(
            images,
            size=(self._settings.size_px, self._settings.size_px),
            crop_yx=batch.plan.crop_yx,
            mirror=batch.plan.mirror,
            mean=batch.means,
            scale=batch.normalization.scale,
            mean_image=batch.normalization.mean_image,
            out=out,
            planar=self._planar,
        )

    def _pinned(self, bytes_: int) -> Bytes:
        self.pinned_bytes += bytes_
        memory: Bytes = torch.empty(bytes_, dtype=torch.uint8, pin_memory=True).numpy()
        return memory

    def _on_device(self, images: torch.Tensor) -> torch.Tensor:
        """Copy to the GPU, holding on to the pinned memory until that is done."""
        if self._settings.device_id is None:
            return images
        on_device = images.to(self._settings.device, non_blocking=True)
        self._copied.keep(images)
        return on_device


def _failure(batch: Batch, sample_id: int, reason: str) -> SampleError:
    """Say why a sample cannot be used; of one that cannot even be read, what the reader finds."""
    try:
        batch.reader.stored(sample_id)
    except SampleError as error:
        return error.with_traceback(None)  # which would keep the batch
    return batch.reader.error(sample_id, reason)
