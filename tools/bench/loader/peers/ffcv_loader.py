"""FFCV: its own file, written once before the clock starts, and its compiled pipeline.

As its documentation has it: `os_cache=True` for data that fit in memory, `QUASI_RANDOM` for others, `drop_last`. It has
no decoder for a random window of fixed size, so `RandomResizedCrop` is told the one scale and ratio that are it.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage
from ffcv.writer import DatasetWriter

from alexnet.shards.reader import SplitReader
from alexnet.tools.bench.loader.peers.work import counted, crop_px_of, decoder_of, mean_of
from alexnet.tools.bench.measuring.stages_seam import CannotRunError, Stage, StageSettings

_MOST_IMAGES = 10_000  # written; raw, 2 GB
_QUALITY = 90
_REPEATS = 1_000  # of the ids, so that the end of an epoch is not felt


def make(options: dict[str, Any], settings: StageSettings, versions: dict[str, str]) -> Stage:
    """Write the file and make the stage, with a thread a core."""
    reader = SplitReader(settings.data, settings.split)
    images = min(len(reader), _MOST_IMAGES)
    folder = tempfile.TemporaryDirectory(prefix="alexnet-bench-ffcv-")
    most_bytes, free_bytes = images * 3 * reader.manifest.size_px**2, shutil.disk_usage(folder.name).free
    if free_bytes < most_bytes:
        raise CannotRunError(
            f"{folder.name}: has {free_bytes / 1e9:.1f} GB free; the file may take {most_bytes / 1e9:.1f}"
        )
    file = Path(folder.name) / "set.beton"
    fields = {
        "image": RGBImageField(write_mode=options["stored"], jpeg_quality=_QUALITY),
        "label": IntField(),
    }
    DatasetWriter(str(file), fields, num_workers=settings.threads).from_indexed_dataset(_Samples(reader, images))
    side, size_px = crop_px_of(reader.manifest), reader.manifest.size_px
    scale = (side / size_px) ** 2
    loader = Loader(
        str(file),
        batch_size=settings.batch_images,
        num_workers=settings.threads,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        indices=np.tile(np.arange(images), _REPEATS),
        pipelines={
            "image": [
                RandomResizedCropRGBImageDecoder((side, side), scale=(scale, scale), ratio=(1.0, 1.0)),
                RandomHorizontalFlip(),
                NormalizeImage(mean_of(reader.manifest), np.ones(3), np.float32),
                ToTensor(),
                ToTorchImage(),
            ],
            "label": [IntDecoder(), ToTensor(), Squeeze()],
        },
    )
    words = f"{options['stored']}, os_cache, RANDOM, num_workers={settings.threads}, channels last"
    batches = _Held(loader, folder)
    return Stage(work=counted(batches, settings), settings=words, ready_batches=4, versions=versions)


class _Samples:
    def __init__(self, reader: SplitReader, images: int) -> None:
        self._reader, self._images, self._decode = reader, images, decoder_of("pil")

    def __len__(self) -> int:
        return self._images

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        pixels = self._decode(self._reader.jpeg(index).tobytes())
        return Image.fromarray(pixels), int(self._reader.labels[index])


class _Held:
    """Keep the temporary folder for as long as the loader reads it."""

    def __init__(self, loader: Any, folder: "tempfile.TemporaryDirectory[str]") -> None:
        self._loader, self.folder = loader, folder

    def __iter__(self) -> Any:
        while True:
            yield from self._loader
