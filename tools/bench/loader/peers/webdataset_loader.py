"""WebDataset: shards read from front to back in worker processes, shuffled in a buffer, batched in the worker.

As its documentation has it: `resampled` shards, so that any number of workers has some and epochs are not felt;
`shuffle(1000)`; batches made in the workers; `WebLoader` with `batch_size=None`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import webdataset as wds

from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.loader.peers.work import (
    Decode,
    Pixels,
    counted,
    crop_px_of,
    decoder_of,
    finished,
    mean_of,
    random_window,
)
from alexnet.tools.bench.measuring.stages_seam import Stage, StageSettings

_SHUFFLE = 1_000
_PREFETCH = 2


def make(options: dict[str, Any], settings: StageSettings, versions: dict[str, str]) -> Stage:
    """Make the stage, with a worker process a core."""
    reader = SplitReader(settings.data, settings.split)
    urls = [str(reader.root / shard.file) for shard in reader.shards]
    dataset = (
        wds.WebDataset(urls, resampled=True, shardshuffle=False)
        .shuffle(_SHUFFLE)
        .to_tuple("jpg", "cls")
        .map(_Transform(decoder_of(options["decoder"]), crop_px_of(reader.manifest)))
        .batched(settings.batch_images, partial=False, collation_fn=_Collate(mean_of(reader.manifest)))
    )
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=settings.threads, prefetch_factor=_PREFETCH)
    words = f"resampled shards, shuffle({_SHUFFLE}), num_workers={settings.threads}, {options['decoder']}"
    ready = settings.threads * _PREFETCH
    return Stage(work=counted(loader, settings), settings=words, ready_batches=ready, versions=versions)


class _Transform:
    def __init__(self, decode: Decode, crop_px: int) -> None:
        self._decode, self._crop_px = decode, crop_px
        self._rng: np.random.Generator | None = None

    def __call__(self, sample: tuple[bytes, bytes]) -> tuple[Pixels, int]:
        if self._rng is None:
            self._rng = np.random.default_rng(torch.initial_seed())
        jpeg, label = sample
        return random_window(self._decode(jpeg), self._crop_px, self._rng), int(label)


class _Collate:
    def __init__(self, mean: npt.NDArray[np.float32]) -> None:
        self._mean = mean

    def __call__(self, samples: list[tuple[Pixels, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        windows, labels = zip(*samples, strict=True)
        return finished(list(windows), self._mean), torch.tensor(labels)
