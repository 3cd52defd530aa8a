"""Make the decoder that a stream's settings name: DALI's, the host's, or both (`decode="split=SHARE"`)."""

from collections import deque
from dataclasses import replace

import numpy as np
import torch

from alexnet.pipeline.batch import Batch
from alexnet.pipeline.cpu import HostDecoder
from alexnet.pipeline.decode import Decoder, DecodeSettings, on_dali
from alexnet.shards.errors import InputError


def make_decoder(settings: DecodeSettings) -> Decoder:
    """Make it; raises InputError if what it needs is not installed."""
    if settings.dali_share == 0:
        return HostDecoder(settings)
    try:
        from alexnet.pipeline.dali import DaliDecoder  # which a machine without DALI goes without
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: decode='dali' needs NVIDIA DALI, for Linux") from None
    if settings.dali_share == 1:
        return DaliDecoder(settings)
    return SplitDecoder(DaliDecoder(settings), HostDecoder(settings), settings.dali_share)


class SplitDecoder:
    """Decode with two decoders that yield crops on one device; `dali_share`: of images, by a hash of their ids.

    DALI works while the host decodes, for it runs asynchronously.
    """

    def __init__(self, dali: Decoder, host: Decoder, dali_share: float) -> None:
        self._dali, self._host, self._share = dali, host, dali_share
        self._waiting: deque[tuple[Batch, list[Decoder]]] = deque()

    @property
    def ahead(self) -> int:
        """Keep the hungrier of the two busy."""
        return max(self._dali.ahead, self._host.ahead)

    @property
    def pinned_bytes(self) -> int:
        """What both pinned."""
        return self._dali.pinned_bytes + self._host.pinned_bytes

    def submit(self, batch: Batch) -> None:
        """Hand each its rows."""
        chosen, asked = on_dali(batch.sample_ids, self._share), list[Decoder]()
        for decoder, rows in ((self._dali, chosen), (self._host, ~chosen)):
            if rows.any():
                decoder.submit(batch.select(rows))
                asked.append(decoder)
        self._waiting.append((batch, asked))

    def result(self) -> Batch:
        """Wait for both and put their rows back in order."""
        batch, asked = self._waiting.popleft()
        parts = [decoder.result() for decoder in reversed(asked)]  # the host's first, while DALI works on its part
        place = {sample_id: row for row, sample_id in enumerate(batch.sample_ids.tolist())}
        batch = batch.without(sorted((e for p in parts for e in p.failures), key=lambda error: place[error.sample_id]))
        first = parts[0].images
        images = torch.empty((len(batch), *first.shape[1:]), dtype=torch.uint8, device=first.device)
        for part in parts:
            rows = np.flatnonzero(np.isin(batch.sample_ids, part.sample_ids))
            images[torch.from_numpy(rows).to(images.device)] = part.images
        if images.is_cuda:  # a part's memory is DALI's again when the part goes, at the end of this function
            torch.cuda.current_stream(images.device).synchronize()
        return replace(batch, images=images)

    def close(self) -> None:
        """Close both."""
        self._dali.close()
        self._host.close()
