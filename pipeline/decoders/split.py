"""Decode a fixed share of the images with DALI and the others on the host, and put them together again.

DALI works while the host decodes, for it runs asynchronously. Both yield uint8 windows here; one finishing pass then
serves all rows of a batch alike.
"""

from collections import deque

import numpy as np
import torch

from alexnet.pipeline.decoders.choice import on_dali
from alexnet.pipeline.decoders.seam import Decoded, Decoder
from alexnet.pipeline.encoded import EncodedBatch


class SplitDecoder:
    """Decode with two decoders that yield windows on one device; `dali_share`: of images, by a hash of their ids."""

    def __init__(self, dali: Decoder, host: Decoder, dali_share: float) -> None:
        self._dali, self._host, self._share = dali, host, dali_share
        self._waiting: deque[tuple[EncodedBatch, bool, bool]] = deque()

    @property
    def ahead(self) -> int:
        """Keep the hungrier of the two busy."""
        return max(self._dali.ahead, self._host.ahead)

    @property
    def pinned_bytes(self) -> int:
        """What both pinned."""
        return self._dali.pinned_bytes + self._host.pinned_bytes

    def submit(self, batch: EncodedBatch) -> None:
        """Hand each its rows."""
        chosen = on_dali(batch.sample_ids, self._share)
        for decoder, rows in ((self._dali, chosen), (self._host, ~chosen)):
            if rows.any():
                decoder.submit(batch.select(rows))
        self._waiting.append((batch, bool(chosen.any()), bool((~chosen).any())))

    def result(self) -> Decoded:
        """Wait for both and put their rows back in order."""
        batch, has_dali, has_host = self._waiting.popleft()
        on_host = [self._host.result()] if has_host else []  # first, while DALI works on its part
        parts = ([self._dali.result()] if has_dali else []) + on_host
        place = {sample_id: row for row, sample_id in enumerate(batch.sample_ids.tolist())}
        failures = sorted((f for part in parts for f in part.failures), key=lambda f: place[f.sample_id])
        whole = batch.without(failures)
        images = torch.empty((len(whole), *parts[0].images.shape[1:]), dtype=torch.uint8, device=parts[0].images.device)
        for part in parts:
            rows = np.flatnonzero(np.isin(whole.sample_ids, part.batch.sample_ids))
            images[torch.from_numpy(rows).to(images.device)] = part.images
        if images.is_cuda:  # a part's memory is DALI's again when the part goes, at the end of this function
            torch.cuda.current_stream(images.device).synchronize()
        return Decoded(images=images, finished=False, batch=whole, failures=tuple(failures))

    def close(self) -> None:
        """Close both."""
        self._dali.close()
        self._host.close()
