"""PyTorch's DataLoader over a map-style data set: worker processes, each sample decoded, cut and mirrored in NumPy.

As its documentation has it: `num_workers`, `persistent_workers`, a `collate_fn` in the worker, tensors through shared
memory. Bytes are read from the shards by offset, as there are no loose files.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.loader.peers.work import (
    Decode,
    Pixels,
    counted,
    crop_px_of,
    decoder_of,
    endless_ids,
    finished,
    mean_of,
    random_window,
)
from alexnet.tools.bench.measuring.stages_seam import Stage, StageSettings

_PREFETCH = 2  # DataLoader's default


def make(options: dict[str, Any], settings: StageSettings, versions: dict[str, str]) -> Stage:
    """Make the stage, with a worker process a core."""
    reader = SplitReader(settings.data, settings.split)
    loader = DataLoader(
        _Samples(reader, decoder_of(options["decoder"])),
        batch_size=settings.batch_images,
        sampler=_Endless(len(reader)),
        num_workers=settings.threads,
        collate_fn=_Collate(mean_of(reader.manifest)),
        persistent_workers=True,
        prefetch_factor=_PREFETCH,
    )
    words = f"num_workers={settings.threads}, prefetch_factor={_PREFETCH}, persistent_workers, {options['decoder']}"
    ready = settings.threads * _PREFETCH
    return Stage(work=counted(loader, settings), settings=words, ready_batches=ready, versions=versions)


class _Samples(Dataset[tuple[Pixels, int]]):
    def __init__(self, reader: SplitReader, decode: Decode) -> None:
        self._root, self._split, self._decode = reader.root, reader.split, decode
        self._crop_px = crop_px_of(reader.manifest)
        self._reader: SplitReader | None = None  # each worker opens its own
        self._rng = np.random.default_rng(0)

    def __getitem__(self, sample_id: int) -> tuple[Pixels, int]:
        if self._reader is None:
            self._reader = SplitReader(self._root, self._split)
            self._rng = np.random.default_rng(torch.initial_seed())
        image = self._decode(self._reader.jpeg(sample_id).tobytes())
        return random_window(image, self._crop_px, self._rng), int(self._reader.labels[sample_id])


class _Endless(Sampler[int]):
    def __init__(self, images: int) -> None:
        self._images = images

    def __iter__(self) -> Any:
        return endless_ids(self._images)


class _Collate:
    def __init__(self, mean: npt.NDArray[np.float32]) -> None:
        self._mean = mean

    def __call__(self, samples: list[tuple[Pixels, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        windows, labels = zip(*samples, strict=True)
        return finished(list(windows), self._mean), torch.tensor(labels)
