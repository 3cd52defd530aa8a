"""Decode on the CPU's cores in C (`alexnet.pipeline.host`), as a decoder of the stream.

On a CPU it writes finished tensors into memory that is used again when nobody holds it any more. For a GPU it writes
uint8 windows into pinned memory, from which they are copied while the next batch is decoded.
"""

import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alexnet.pipeline.decoders.seam import Decoded, DecoderSettings
from alexnet.pipeline.encoded import EncodedBatch, Failure
from alexnet.pipeline.host.decoder import DTYPES, Decoder, Kind
from alexnet.pipeline.host.ring import Bytes, Ring
from alexnet.shards.errors import InputError

Pixels = npt.NDArray[Any]
Bad = list[tuple[int, str]]


class HostDecoder:
    """Decode with all threads at one batch after another, from a thread of its own.

    So the next batch is planned and read while this one is decoded: 10% of the time, on two cores. `pinned_bytes`: host
    memory that was pinned so far.
    """

    def __init__(self, settings: DecoderSettings) -> None:
        self._settings = settings
        self._decoder = Decoder(settings.threads)
        on_cpu = settings.device_id is None
        self._finishes = on_cpu and not settings.windows_only
        self._kind: Kind = settings.output if self._finishes else "uint8"
        self._planar = self._finishes and not settings.channels_last
        finish = settings.finish
        self._mean_image = finish.mean if self._finishes and finish.mean.ndim == 3 else None
        pixels = settings.window_px**2 * 3
        buffer_bytes = settings.max_images * pixels * np.dtype(DTYPES[self._kind]).itemsize
        # What waits in the queue, what the consumer uses, what is being written, and what is to be written next.
        self._ring = Ring(buffer_bytes, keep=settings.depth + 3, allocate=_plain if on_cpu else self._pinned)
        self.pinned_bytes = 0
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(self._jobs,), name="alexnet-host-decoder", daemon=True)
        self._thread.start()
        self._waiting: deque[tuple[EncodedBatch, list[Failure], Pixels, Future[Bad]]] = deque()
        self._copying: deque[tuple[torch.cuda.Event, torch.Tensor]] = deque()

    @property
    def ahead(self) -> int:
        """Two batches: one is decoded while the other is made ready."""
        return 2

    def submit(self, batch: EncodedBatch) -> None:
        """Read a batch's JPEGs and have them decoded when those before are done."""
        jpegs, failures = batch.read()
        batch = batch.without(failures)
        side = self._settings.window_px
        shape = (len(batch), 3, side, side) if self._planar else (len(batch), side, side, 3)
        out = self._ring.take(shape, DTYPES[self._kind])
        decoding: Future[Bad] = Future()
        self._jobs.put(functools.partial(_fulfil, decoding, self._decode, batch, jpegs, out))
        self._waiting.append((batch, failures, out, decoding))

    def result(self) -> Decoded:
        """Wait for the oldest batch."""
        batch, failures, pixels, decoding = self._waiting.popleft()
        bad = decoding.result()
        images = _tensor(pixels)
        if bad:
            keep = np.ones(len(batch), np.bool_)
            keep[[row for row, _ in bad]] = False
            failures += [batch.failure(int(batch.sample_ids[row]), reason) for row, reason in bad]
            batch, images = batch.select(keep), images[torch.from_numpy(keep)]
        if self._finishes and self._settings.channels_last:
            images = images.permute(0, 3, 1, 2)
        return Decoded(images=self._on_device(images), finished=self._finishes, batch=batch, failures=tuple(failures))

    def close(self) -> None:
        """Stop the threads, after the batch at work."""
        with contextlib.suppress(Empty):
            while True:
                self._jobs.get_nowait()
        self._jobs.put(None)
        self._thread.join()
        self._decoder.close()

    def _decode(self, batch: EncodedBatch, jpegs: list[npt.NDArray[np.uint8]], out: Pixels) -> Bad:
        s = self._settings
        try:
            return self._decoder.decode(
                jpegs,
                crop_yx=batch.crop_yx,
                mirror=batch.mirror,
                size=(s.size_px, s.size_px),
                crop_px=s.window_px,
                out=out,
                kind=self._kind,
                mean=None if self._kind == "uint8" else batch.means,
                scale=None if self._kind == "uint8" else s.finish.scale,
                mean_image=self._mean_image,
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
        done.record(torch.cuda.current_stream(self._settings.device))
        self._copying.append((done, images))
        return copied


def _work(jobs: "SimpleQueue[Callable[[], None] | None]") -> None:
    """Do one job after another. An executor would refuse them once the main thread has ended, whoever else goes on."""
    while (job := jobs.get()) is not None:
        job()
        del job  # it holds a batch's memory


def _fulfil(decoding: "Future[Bad]", decode: Callable[..., Bad], *arguments: Any) -> None:
    try:
        decoding.set_result(decode(*arguments))
    except BaseException as error:  # whatever it is, `result` must raise it
        decoding.set_exception(error)


def _tensor(pixels: npt.NDArray[Any]) -> torch.Tensor:
    """See a batch as a tensor; NumPy has no bfloat16 and holds its bits as uint16."""
    tensor = torch.from_numpy(pixels)
    return tensor.view(torch.bfloat16) if pixels.dtype == np.uint16 else tensor


def _plain(bytes_: int) -> Bytes:
    return np.empty(bytes_, np.uint8)
