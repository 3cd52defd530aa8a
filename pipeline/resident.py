"""Keep a split's images in a GPU's memory as 4:2:0 planes: what a batch brought along once is not brought again.

There is no loading: the planes of a batch are kept while there is room, and a later epoch finds them. Memory is taken
in pieces as it fills, each only if training still has what it needs. When no more can be had, what is kept stays, and
the others are brought each time. With `in_host_memory`, what a GPU cannot hold goes to pinned memory of the host, as
far as half of what is available there; a kernel reads it where it is.
"""

import threading
import warnings
from collections import Counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from alexnet.pipeline.batch import DecodeSettings
from alexnet.pipeline.in_use import InUse
from alexnet.shards.planes import planes_bytes
from alexnet.shards.resources import available_memory

PIECE_BYTES = 1 << 30
_GIB = 1 << 30
_RESERVED_SHARE = 10  # a tenth of a GPU, where training is not known to need more
_UNTOUCHED_SHARE = 50  # free in any case: for workspaces and fragmentation

_held: Counter[torch.device] = Counter()
_taking = threading.Lock()
"""Bytes that all stores of this process hold on each GPU; one at a time takes more."""


def obtainable(device: torch.device, reserve_bytes: int) -> int:
    """Return the bytes that stores may still take on a GPU.

    All else that runs there keeps `reserve_bytes`, of which it may have taken some, and at least a tenth of the GPU.
    """
    free, total = torch.cuda.mem_get_info(device)
    reserve_bytes = max(reserve_bytes, total // _RESERVED_SHARE)
    others = torch.cuda.memory_reserved(device) - _held[device]
    return free - max(reserve_bytes - others, total // _UNTOUCHED_SHARE)


class Residence(NamedTuple):
    """Say whether a stream's planes are kept, and why, in a line; none where there is nothing to say."""

    keeps: bool
    line: str = ""


def residence(settings: DecodeSettings) -> Residence:
    """Decide by what was asked for, what the decoder yields and what the GPU can spare."""
    if settings.device_id is None or settings.resident == "off" or not torch.cuda.is_available():
        return Residence(False)
    if settings.decode != "host":
        return Residence(False, "resident: no, as DALI yields no planes; decode='host' does")
    device = torch.device(settings.device)
    needed = settings.images * planes_bytes(settings.size_px, settings.size_px)
    spare = obtainable(device, settings.reserve_bytes)
    sizes = f"{needed / _GIB:,.1f} GiB, of which {device} can spare {max(spare, 0) / _GIB:,.1f}"
    if needed <= spare:
        return Residence(True, f"resident: all {settings.images:,} images, as they come: planes of {sizes}")
    if settings.resident == "auto":
        return Residence(False, f"resident: no, planes would take {sizes}; resident='on' keeps a part")
    return Residence(True, f"resident: planes of {sizes}; others in host memory, up to half of what is available")


class ResidentPlanes:
    """Hold the planes of `images` images, of `image_bytes` each, and know where each lies.

    `reserve_bytes`: what everything else on the GPU needs. `pinned_bytes`: taken of the host.
    Copies are queued on the current stream, where what reads them must be queued, too.
    """

    def __init__(
        self, images: int, image_bytes: int, device: torch.device, *, reserve_bytes: int, in_host_memory: bool
    ) -> None:
        self._image_bytes, self._device, self._in_host_memory = image_bytes, device, in_host_memory
        self._reserve_bytes = reserve_bytes
        self._addresses = np.zeros(images, np.int64)
        self._pieces: list[torch.Tensor] = []
        self._free = torch.empty((0, image_bytes), dtype=torch.uint8)
        self._host_floor: int | None = None
        self._full = False
        self.kept = self.pinned_bytes = 0

    def addresses(self, sample_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return where the planes of samples begin, 0 for those that are not here: int64 (n,)."""
        return self._addresses[sample_ids]

    def holds(self, sample_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Say of samples whether their planes are here: bool (n,)."""
        held: npt.NDArray[np.bool_] = self._addresses[sample_ids] != 0
        return held

    def keep(self, sample_ids: npt.NDArray[np.int64], planes: torch.Tensor) -> None:
        """Copy planes of samples, uint8 (n, bytes) on the GPU, as far as there is room.

        An epoch's first batches are asked for before the last one's are here, and may bring some of the same: such a
        batch is left, as its others come again.
        """
        if self._addresses[sample_ids].any():
            return
        while len(sample_ids) and (len(self._free) or self._take()):
            count = min(len(self._free), len(sample_ids))
            slots, self._free = self._free[:count], self._free[count:]
            slots.copy_(planes[:count], non_blocking=True)
            self._addresses[sample_ids[:count]] = slots.data_ptr() + np.arange(count) * self._image_bytes
            self.kept += count
            sample_ids, planes = sample_ids[count:], planes[count:]

    def close(self) -> None:
        """Give the memory back, when nothing reads it any more."""
        reading = InUse()
        reading.keep(self._pieces)
        reading.close()
        with _taking:
            _held[self._device] -= self._device_bytes
        self._pieces, self._free, self._full = [], self._free[:0].cpu(), True
        self._addresses[:] = self.kept = self.pinned_bytes = 0
        torch.cuda.empty_cache()  # what is free there would be taken for training's

    @property
    def _device_bytes(self) -> int:
        return sum(piece.nbytes for piece in self._pieces) - self.pinned_bytes

    def _take(self) -> bool:
        """Take memory for the next images; say so, once, when there is no more."""
        count = min(max(1, PIECE_BYTES // self._image_bytes), len(self._addresses) - self.kept)
        if self._full:
            return False
        piece = self._on_device(count)
        if piece is None and self._in_host_memory:
            piece = self._pinned(count)
        if piece is None:
            self._full = True
            warnings.warn(self._says_full(), stacklevel=1)
            return False
        self._pieces.append(piece)
        self._free = piece
        return True

    def _on_device(self, count: int) -> torch.Tensor | None:
        with _taking:
            if obtainable(self._device, self._reserve_bytes) < count * self._image_bytes:
                return None
            try:
                piece = torch.empty((count, self._image_bytes), dtype=torch.uint8, device=self._device)
            except torch.OutOfMemoryError:  # someone else was quicker, or it is in parts
                return None
            _held[self._device] += piece.nbytes
            return piece

    def _pinned(self, count: int) -> torch.Tensor | None:
        available = available_memory()
        if self._host_floor is None:
            self._host_floor = available // 2
        if available - count * self._image_bytes < self._host_floor:
            return None
        try:
            piece = torch.empty((count, self._image_bytes), dtype=torch.uint8, pin_memory=True)
        except RuntimeError:  # the system does not let so much be pinned
            return None
        self.pinned_bytes += piece.nbytes
        return piece

    def _says_full(self) -> str:
        held = f"{self._device_bytes / _GIB:.1f} GiB of {self._device}"
        if self.pinned_bytes:
            held += f", {self.pinned_bytes / _GIB:.1f} GiB of pinned host memory"
        return (
            f"of {len(self._addresses):,} images {self.kept:,} are kept as planes ({held}), the others are read each "
            f"time: what is left is training's"
        )
