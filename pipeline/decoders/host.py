"""Decode on the CPU's cores in C (`alexnet.pipeline.host`), as a decoder of the stream.

On a CPU it writes finished tensors into memory that is used again when nobody holds it any more. For a GPU it writes
uint8 windows into pinned memory, from which they are copied while the next batch is decoded.
"""

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alexnet.pipeline.decoders.seam import Decoded, DecoderSettings
from alexnet.pipeline.encoded import EncodedBatch
from alexnet.pipeline.host.decoder import DTYPES, Decoder, Kind
from alexnet.pipeline.host.ring import Bytes, Ring


class HostDecoder:
    """Decode with all threads at one batch after another; nothing is decoded ahead of `result`.

    `pinned_bytes`: host memory that was pinned so far.
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
        # What waits in the queue, what the consumer uses, and what is being written.
        self._ring = Ring(buffer_bytes, keep=settings.depth + 2, allocate=_plain if on_cpu else self._pinned)
        self.pinned_bytes = 0
        self._waiting: deque[EncodedBatch] = deque()
        self._copying: deque[tuple[torch.cuda.Event, torch.Tensor]] = deque()

    @property
    def ahead(self) -> int:
        """One batch: it is decoded when its result is asked for."""
        return 1

    def submit(self, batch: EncodedBatch) -> None:
        """Keep a batch until its result is wanted."""
        self._waiting.append(batch)

    def result(self) -> Decoded:
        """Read and decode the oldest batch."""
        asked = self._waiting.popleft()
        jpegs, failures = asked.read()
        batch = asked.without(failures)
        pixels, bad = self._decode(batch, jpegs)
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
        """Stop the threads."""
        self._decoder.close()

    def _decode(
        self, batch: EncodedBatch, jpegs: list[npt.NDArray[np.uint8]]
    ) -> tuple[npt.NDArray[Any], list[tuple[int, str]]]:
        s = self._settings
        n, side = len(batch), s.window_px
        shape = (n, 3, side, side) if self._planar else (n, side, side, 3)
        out = self._ring.take(shape, DTYPES[self._kind])
        bad = self._decoder.decode(
            jpegs,
            crop_yx=batch.crop_yx,
            mirror=batch.mirror,
            size=(s.size_px, s.size_px),
            crop_px=side,
            out=out,
            kind=self._kind,
            mean=None if self._kind == "uint8" else batch.means,
            scale=None if self._kind == "uint8" else s.finish.scale,
            mean_image=self._mean_image,
            planar=self._planar,
        )
        return out, bad

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
        done.record()
        self._copying.append((done, images))
        return copied


def _tensor(pixels: npt.NDArray[Any]) -> torch.Tensor:
    """See a batch as a tensor; NumPy has no bfloat16 and holds its bits as uint16."""
    tensor = torch.from_numpy(pixels)
    return tensor.view(torch.bfloat16) if pixels.dtype == np.uint16 else tensor


def _plain(bytes_: int) -> Bytes:
    return np.empty(bytes_, np.uint8)
