"""Make batches of 4:2:0 planes on a GPU: one kernel cuts, mirrors, upsamples, converts and normalizes.

It reads the planes of each image where they are: in a resident store, or where a batch's own copy to the GPU put them.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from alexnet.pipeline.batch import Batch, Decoder, DecodeSettings
from alexnet.pipeline.cpu import HostDecoder, Images
from alexnet.pipeline.host.pool import Bytes, Found, StoredPlanes
from alexnet.pipeline.normalize import Normalization
from alexnet.pipeline.normalize_torch import DTYPES, in_one_kernel, moved, on_gpu
from alexnet.pipeline.read_ahead import IsHeld
from alexnet.pipeline.resident import ResidentPlanes, residence
from alexnet.shards.planes import planes_bytes


class PlanesDecoder:
    """Have planes brought to the GPU where they are not there yet, and make batches of them.

    `source`: yields for a batch the planes of its images on the GPU, uint8 (n, bytes). `resident`: keeps them.
    """

    def __init__(self, settings: DecodeSettings, source: Decoder, resident: ResidentPlanes | None) -> None:
        self._settings, self._source, self._resident = settings, source, resident
        self._device = torch.device(settings.device)
        self._constants: tuple[Normalization, Constants] | None = None

    @property
    def is_held(self) -> IsHeld | None:
        """What the store holds."""
        return self._resident.holds if self._resident else None

    @property
    def ahead(self) -> int:
        """Keep the source busy."""
        return self._source.ahead

    @property
    def pinned_bytes(self) -> int:
        """What the source and the store pinned."""
        return self._source.pinned_bytes + (self._resident.pinned_bytes if self._resident else 0)

    def submit(self, batch: Batch) -> Callable[[], Batch]:
        """Ask the source for what is not there."""
        missing = self._addresses(batch) == 0
        return partial(self._result, batch, self._source.submit(batch.select(missing)) if missing.any() else None)

    def close(self) -> None:
        """Close both."""
        self._source.close()
        if self._resident:
            self._resident.close()

    def _addresses(self, batch: Batch) -> npt.NDArray[np.int64]:
        ids = batch.plan.sample_ids
        return self._resident.addresses(ids) if self._resident else np.zeros(len(ids), np.int64)

    def _result(self, batch: Batch, bring: Callable[[], Batch] | None) -> Batch:
        if bring is None:
            return self._finished(batch, self._addresses(batch))
        brought = bring()
        batch = batch.without(brought.failures)
        ids, planes = brought.plan.sample_ids, brought.images
        if self._resident:
            self._resident.keep(ids, planes)
        addresses = self._addresses(batch)
        addresses[np.isin(batch.plan.sample_ids, ids)] = planes.data_ptr() + np.arange(len(ids)) * planes.shape[1]
        return self._finished(batch, addresses)

    def _finished(self, batch: Batch, addresses: npt.NDArray[np.int64]) -> Batch:
        s, n = self._settings, len(batch)
        last = s.channels_last or s.crops_only
        images = torch.empty(
            (n, 3, s.crop_px, s.crop_px),
            dtype=DTYPES["uint8" if s.crops_only else s.output],
            device=self._device,
            memory_format=torch.channels_last if last else torch.contiguous_format,
        )
        if self._constants is None or self._constants[0] is not batch.normalization:
            self._constants = batch.normalization, Constants.of(batch.normalization, self._device)
        rows = (addresses, batch.plan.crop_yx, batch.plan.mirror.view(np.uint8), batch.means)
        finish(tuple(moved(of, self._device) for of in rows), self._constants[1], images, s.size_px)
        return replace(batch, images=images.movedim(1, -1) if s.crops_only else images, normalized=not s.crops_only)


def planes_decoder(settings: DecodeSettings) -> PlanesDecoder | None:
    """Make the decoder of planes for a GPU; None where planes are not wanted, or the kernel does not work."""
    keeps = residence(settings).keeps
    if not (keeps or settings.encoding != "jpeg") or on_gpu() is not in_one_kernel:
        return None
    store = ResidentPlanes(
        settings.images,
        planes_bytes(settings.size_px, settings.size_px),
        torch.device(settings.device),
        reserve_bytes=settings.reserve_bytes,
        in_host_memory=settings.resident == "on",
    )
    return PlanesDecoder(settings, HostPlanes(settings), store if keeps else None)


class Constants(NamedTuple):
    """Hold on the GPU what pixels are multiplied with, and a mean image if there is one."""

    scale: torch.Tensor
    mean_image: torch.Tensor | None

    @classmethod
    def of(cls, normalization: Normalization, device: torch.device) -> "Constants":
        """Move those of an epoch."""
        image = normalization.mean_image
        return cls(moved(normalization.scale.copy(), device), None if image is None else moved(image.copy(), device))


def finish(
    rows: tuple[torch.Tensor, ...],
    constants: Constants,
    images: torch.Tensor,
    size_px: int,
    block: int = 1024,  # pixels a program, 4 a thread
) -> None:
    """Fill images (n, 3, crop, crop), of either memory format, from planes; uint8 is not normalized.

    `rows`: where the planes of each image begin, int64 (n,), and what of its plan says how it is cut, mirrored (as
    uint8) and shifted. `size_px`: the stored images' side.
    """
    from alexnet.pipeline.planes_kernels import finish_planes  # which needs triton

    if not len(images):
        return
    crop = images.shape[-1]
    columns = min(256, 1 << (crop - 1).bit_length())
    lines = block // columns
    *plan, means = rows
    normal = (None, None, None) if images.dtype == torch.uint8 else (means, *constants)
    grid = (len(images), -(-crop // lines), -(-crop // columns))
    options = {"SIDE": size_px, "CROP": crop, "PLANAR": images.is_contiguous(), "ROWS": lines, "COLUMNS": columns}
    finish_planes[grid](*plan, *normal, images, **options, num_warps=8)


class HostPlanes(HostDecoder):
    """Decode JPEGs as far as their planes, or read planes; they go to the GPU as they are."""

    def _shape(self, images: int) -> tuple[int, ...]:
        return images, planes_bytes(self._settings.size_px, self._settings.size_px)

    def _decode_part(self, batch: Batch, images: Images, out: Bytes) -> dict[int, str]:
        side = self._settings.size_px
        if not isinstance(images, StoredPlanes):
            return self._pool.decode_planes(images, size=(side, side), out=out)
        descriptors, offsets, keys = images
        lengths = np.full(len(out), out.shape[1], np.int64)
        places = np.arange(len(out)) * lengths
        found = self._pool.read(descriptors, offsets, lengths, head=b"", places=places, out=out.reshape(-1), keys=keys)
        return dict.fromkeys(np.flatnonzero(found == Found.NOT).tolist(), "cannot be read")
